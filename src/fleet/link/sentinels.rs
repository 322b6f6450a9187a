//! The primary, as sentinels name it.
//!
//! All are asked, over connections that stay, and the one that most of them name is it: a sentinel that was cut off goes
//! on naming the primary of before. They need no more than `SENTINEL get-master-addr-by-name`.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use super::opening::{certificates, connect, info};
use crate::fleet::settings::{FleetSettings, HostPort, StoreKind};

/// The longest that a sentinel is waited for.
const ASKING: Duration = Duration::from_millis(200);

/// Connections to sentinels.
#[derive(Default)]
pub(super) struct Sentinels(Vec<Option<MultiplexedConnection>>);

impl Sentinels {
    /// The primary that most of them name; none where none answers.
    pub(super) async fn primary(&mut self, settings: &FleetSettings) -> Option<HostPort> {
        let StoreKind::Sentinel { nodes, name } = &settings.store.kind else { return None };
        self.0.resize_with(nodes.len(), || None);
        let asked = self.0.iter_mut().zip(nodes).map(|(wire, node)| async {
            let named = timeout(ASKING, ask(wire, settings, node, name)).await.unwrap_or(None);
            if named.is_none() {
                *wire = None;
            }
            named
        });
        let named: Vec<HostPort> = join_all(asked).await.into_iter().flatten().collect();
        let votes = |primary: &HostPort| named.iter().filter(|other| *other == primary).count();
        named.iter().max_by_key(|primary| votes(primary)).cloned()
    }
}

/// What one sentinel says. A new connection is tried without a password first, as sentinels mostly have none.
async fn ask(
    wire: &mut Option<MultiplexedConnection>,
    settings: &FleetSettings,
    node: &HostPort,
    name: &str,
) -> Option<HostPort> {
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(name);
    if let Some(wire) = wire {
        let (host, port) = ask.query_async::<Option<(String, u16)>>(wire).await.ok()??;
        return Some(HostPort { host, port });
    }
    for login in [false, true] {
        let tls = certificates(settings).ok()?;
        let Ok(mut opened) = connect(info(settings, node, login).ok()?, tls).await else { continue };
        if let Ok(Some((host, port))) = ask.query_async::<Option<(String, u16)>>(&mut opened).await {
            *wire = Some(opened);
            return Some(HostPort { host, port });
        }
    }
    None
}
