//! The fleet.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::manner::Doubts;
use crate::clock::{Clock, SystemClock};
use crate::config::overrides::Overrides;
use crate::config::report::Level;
use crate::config::shape::{FleetKeys, StoreTlsKeys};
use crate::config::source;
use crate::config::value::{OrNone, PemPath, StoreKey, ValueKind};
use crate::config::written::{Section, Written};
use crate::fleet::{FleetSettings, StoreAddress, StoreTls, WhenUnreachable, password_in};
use crate::tls::{Flaw, Origination, Originator, PairFiles, SystemRoots};

/// No password is as long.
const LONGEST: usize = 4096;
/// No file with nothing but a password is as large.
const LARGEST: u64 = 1 << 20;
/// What all keys in the store begin with when nobody says so.
const PREFIX: &str = "tollgate";

/// What the file and the environment say of the fleet; none where this node is alone.
pub(super) fn of_file(
    top: &mut Level<'_>,
    key: Written<OrNone<Section<FleetKeys>>>,
    overrides: &Overrides,
    doubts: &mut Doubts,
) -> Option<FleetSettings> {
    let keys = match (top.take("fleet", key).flatten(), &overrides.fleet) {
        (Some(keys), _) => keys,
        (None, Some(_)) => FleetKeys::default(),
        (None, None) => return None,
    };
    let at = &mut top.below("fleet");
    let store = store(at, keys.store, overrides);
    let password_file = at.take("password_file", keys.password_file).flatten().map(|path| overrides.locate(path));
    if let Some(path) = &password_file {
        let warning = source::open_to_all(path).map(|why| format!("{}: {why}", at.at.key("password_file")));
        doubts.warnings.extend(warning);
        check_password(at, path);
    }
    let tls = at.take("tls", keys.tls).flatten().unwrap_or_default();
    let tls = tls_files(&mut at.below("tls"), tls, (store.as_ref(), overrides, doubts));
    let max_asks = NonZeroUsize::new(1024).unwrap_or(NonZeroUsize::MIN);
    let (prefix, node) = (at.or("prefix", keys.prefix, PREFIX.to_owned()), at.or("node", keys.node, None));
    let lease = at.or("lease", keys.lease, Duration::from_millis(100));
    let timeout = at.or("timeout", keys.timeout, Duration::from_millis(25));
    let max_asks = at.or("max_asks", keys.max_asks, max_asks);
    let when_unreachable = at.or("when_unreachable", keys.when_unreachable, WhenUnreachable::default());
    Some(FleetSettings { store: store?, password_file, tls, prefix, node, lease, timeout, max_asks, when_unreachable })
}

/// Where the store is. That of the file may be missing where the environment has one, but is checked all the same.
fn store(at: &mut Level<'_>, key: Written<StoreKey>, overrides: &Overrides) -> Option<StoreAddress> {
    let of_file = match &overrides.fleet {
        Some(_) => at.take("store", key),
        None => at.need("store", key),
    };
    let of_file = match of_file {
        Some(Err(error)) => {
            let error = error.to_string();
            let wrong =
                if error.starts_with("must ") { error } else { format!("must be {}: {error}", StoreKey::WANTED) };
            at.add("store", wrong);
            None
        }
        Some(Ok(store)) => Some(store),
        None => None,
    };
    overrides.fleet.clone().or(of_file)
}

/// Whether the file of the password holds one.
fn check_password(at: &mut Level<'_>, path: &Path) {
    let wrong = match source::read(path, LARGEST) {
        Ok(text) => match password_in(&text) {
            "" => "is empty, must hold the store's password".to_owned(),
            text if text.contains(['\r', '\n', '\0']) => "must hold one line, the store's password".to_owned(),
            text if text.len() > LONGEST => format!("must hold a password of at most {LONGEST} bytes"),
            _ => return,
        },
        Err((reason, _)) => reason,
    };
    at.add("password_file", format!("{}: {wrong}", path.display()));
}

/// The files for TLS, each of which is read once to see what is wrong with it.
fn tls_files(
    at: &mut Level<'_>,
    keys: StoreTlsKeys,
    (store, overrides, doubts): (Option<&StoreAddress>, &Overrides, &mut Doubts),
) -> StoreTls {
    let before = at.report.problems.len();
    let mut file = |name: &str, key: Written<OrNone<PemPath>>| -> Option<PathBuf> {
        at.take(name, key).flatten().map(|path| overrides.locate(path))
    };
    let files = StoreTls { ca: file("ca", keys.ca), cert: file("cert", keys.cert), key: file("key", keys.key) };
    let Some(store) = store.filter(|_| at.report.problems.len() == before) else { return files };
    let named = [("ca", &files.ca), ("cert", &files.cert), ("key", &files.key)];
    if !store.tls {
        for (name, _) in named.into_iter().filter(|(_, file)| file.is_some()) {
            at.add(name, format!("must be null with {store}: over TLS the address begins with rediss://"));
        }
        return files;
    }
    let pair = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => Some(PairFiles { cert: cert.clone(), key: key.clone() }),
        (None, None) => None,
        (Some(_), None) => {
            at.add("key", "is missing, must be the path of a PEM file: cert is of no use without it");
            return files;
        }
        (None, Some(_)) => {
            at.add("cert", "is missing, must be the path of a PEM file: key is of no use without it");
            return files;
        }
    };
    let origination = Origination { server_name: None, verify: true, ca: files.ca.clone(), pair };
    let now = SystemClock.wall();
    match Originator::load(origination, &SystemRoots::default(), now) {
        Ok((originator, unwise)) => {
            let said = |flaw: Flaw| format!("{}: {}", at.at.key(flaw.part.name()), flaw.message);
            doubts.warnings.extend(unwise.into_iter().map(said));
            let lapse = originator.lapse(now);
            doubts.lapsed.extend(lapse.map(|flaw| at.report.problem(&at.at.key(flaw.part.name()), flaw.message)));
        }
        Err(flaws) => flaws.into_iter().for_each(|flaw| at.add(flaw.part.name(), flaw.message)),
    }
    files
}
