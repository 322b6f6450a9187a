//! The primary, as sentinels name it.
//!
//! All are asked, over connections that stay, and the one that most of them name is it: a sentinel that was cut off goes
//! on naming the primary of before. They need no more than `SENTINEL get-master-addr-by-name`.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use super::errors::LinkError;
use super::opening::{certificates, connect, info, words};
use crate::fleet::settings::{FleetSettings, HostPort, StoreKind};

/// The longest that a sentinel is waited for.
const ASKING: Duration = Duration::from_millis(200);

/// Connections to sentinels.
#[derive(Default)]
pub(super) struct Sentinels(Vec<Option<MultiplexedConnection>>);

impl Sentinels {
    /// The primary that most of them name.
    ///
    /// # Errors
    /// Why none of them names one.
    pub(super) async fn primary(&mut self, settings: &FleetSettings) -> Result<HostPort, LinkError> {
        let StoreKind::Sentinel { nodes, name } = &settings.store.kind else { return Err(LinkError::lost()) };
        self.0.resize_with(nodes.len(), || None);
        let asked = self.0.iter_mut().zip(nodes).map(|(wire, node)| async move {
            let named = timeout(ASKING, ask(wire, settings, node, name)).await;
            let named = named.unwrap_or_else(|_| Err("it does not answer".to_owned()));
            if named.is_err() {
                *wire = None;
            }
            named.map_err(|why| format!("{node}: {why}"))
        });
        let (named, whys): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().partition(Result::is_ok);
        let named: Vec<HostPort> = named.into_iter().flatten().collect();
        let votes = |primary: &HostPort| named.iter().filter(|other| *other == primary).count();
        named.iter().max_by_key(|primary| votes(primary)).cloned().ok_or_else(|| {
            let whys: Vec<String> = whys.into_iter().filter_map(Result::err).collect();
            LinkError::Unreachable(format!("no sentinel names a primary ({})", whys.join("; ")))
        })
    }
}

/// What one sentinel says, or why it says nothing. A new connection is tried without a password first, as sentinels
/// mostly have none, then with what the store has.
async fn ask(
    wire: &mut Option<MultiplexedConnection>,
    settings: &FleetSettings,
    node: &HostPort,
    name: &str,
) -> Result<HostPort, String> {
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(name);
    let found = |said: Option<(String, u16)>| {
        let unknown = || format!("it watches nothing under the name {name}");
        said.map(|(host, port)| HostPort { host, port }).ok_or_else(unknown)
    };
    if let Some(wire) = wire {
        return ask.query_async(wire).await.map_err(|error| words(error).reason()).and_then(found);
    }
    let mut why = String::new();
    for login in [false, true] {
        let tls = certificates(settings).map_err(|why| why.reason())?;
        let as_whom = info(settings, node, login).map_err(|why| why.reason())?;
        let opened = async {
            let mut opened = connect(as_whom, tls).await?;
            Ok((ask.query_async(&mut opened).await?, opened))
        };
        match opened.await {
            Ok((said, opened)) => {
                *wire = Some(opened);
                return found(said);
            }
            Err(error) => why = words(error).reason(),
        }
    }
    Err(why)
}
