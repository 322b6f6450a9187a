//! The host names among a pool's backends, and the addresses that they resolve to.

use std::net::SocketAddr;
use std::sync::Arc;

use log::Level;

use super::roster::PoolStage;
use super::{News, Pool};
use crate::upstream::{Backend, ConnectAddress};

impl Pool {
    /// Makes the backends that are new among `addresses`, to which the name of the configured backend number `index`
    /// resolves now. They take part from [`resolved`](Pool::resolved) on; until then they can be checked.
    pub(in crate::upstream) fn expect(&self, index: usize, addresses: &[SocketAddr]) -> Vec<Arc<Backend>> {
        let mut roster = self.roster.lock();
        if roster.stage == PoolStage::Replaced {
            return Vec::new();
        }
        // Nor are those new that another entry has: they are in service already, with that one's weight.
        let owners = roster.owners(&self.settings);
        let addresses = addresses.iter().copied().map(ConnectAddress::Tcp);
        let coming: Vec<_> = addresses.filter(|address| !owners.contains_key(address)).collect();
        drop(owners);
        roster.entries[index].coming.clone_from(&coming);
        let orders = self.lineage.orders();
        let host = self.settings.backends[index].address.host();
        coming.iter().map(|address| orders.enlist(&self.registry, address, host)).collect()
    }

    /// Takes note of what the name of the configured backend number `index` resolves to. A name that stops resolving
    /// keeps its last addresses.
    pub(in crate::upstream) fn resolved(&self, index: usize, outcome: Result<Vec<SocketAddr>, String>) {
        let name = &self.settings.backends[index].address;
        let mut news = News::default();
        let mut say = |level, what: String| {
            news.add(module_path!(), level, format!("upstream {}: backend {name} {what}", self.name()));
        };
        let mut roster = self.roster.lock();
        if roster.stage == PoolStage::Replaced {
            return;
        }
        let entry = &mut roster.entries[index];
        entry.coming.clear();
        let was_failing = std::mem::replace(&mut entry.failing, outcome.is_err());
        match outcome {
            Err(reason) if !was_failing => {
                let kept = match entry.addresses.len() {
                    0 => "it has no address yet".to_owned(),
                    count => format!("keeping its last {count}"),
                };
                say(Level::Warn, format!("does not resolve: {reason}; {kept}"));
            }
            Err(_) => {}
            Ok(addresses) => {
                let mut addresses: Vec<_> = addresses.into_iter().map(ConnectAddress::Tcp).collect();
                addresses.sort_unstable();
                addresses.dedup();
                if addresses != entry.addresses {
                    let list: Vec<_> = addresses.iter().map(ConnectAddress::to_string).collect();
                    say(Level::Info, format!("resolves to {}", list.join(", ")));
                    entry.addresses = addresses;
                    let targets = roster.targets(&self.settings, &self.registry, &self.lineage.orders());
                    self.selector.set(&targets);
                } else if was_failing {
                    say(Level::Info, "resolves again".to_owned());
                }
            }
        }
    }

    /// Whether the last try to resolve a name failed.
    #[cfg(test)]
    pub(in crate::upstream) fn is_failing(&self) -> bool {
        self.roster.lock().entries.iter().any(|entry| entry.failing)
    }

    /// Whether a name has never resolved.
    pub(in crate::upstream) fn awaits_address(&self) -> bool {
        self.roster.lock().entries.iter().any(|entry| entry.addresses.is_empty())
    }
}
