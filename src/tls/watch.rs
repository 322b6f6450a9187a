//! Renewed certificates are taken up by themselves.
//!
//! The problem: ACME clients renew a pair at night and tell nobody. None of them swaps both files at once: certificates
//! and keys are missing, empty or half for a while, and the new one of one stands beside the old one of the other, for
//! milliseconds or for minutes, or for good where a disk is full. Some swap links, some a link to the directory, some
//! write in place.
//!
//! The rule: every other second both files of each pair are read again, by their names, and what they hold is compared
//! with what is served. When it is something else and the same twice in a row, and a pair that fits, it is served from
//! the next handshake on. Until then the old pair is: whatever is there meanwhile is waited out. What does not become a
//! pair within [`PATIENCE`] is told, and again every hour; a file that cannot be read any more is told like that, too.
//!
//! Refused: inotify. Links on the way to a file, directories that are swapped as a whole and files that are replaced
//! under a watch each need a watch of their own, which goes dead with what it watches, and network file systems have
//! none. Reading some kilobytes every other second costs nothing that could be measured.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::pair::PairTexts;
use super::{Flaw, Pair, PairFiles, TlsListeners};

/// How long it is waited for files that have changed to become a pair before that is told.
const PATIENCE: Duration = Duration::from_secs(20);
/// After how long it is told again.
const AGAIN: Duration = Duration::from_secs(60 * 60);

/// What watching has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairNews {
    /// A renewed pair is served; this says which, and by which listeners.
    Renewed(String),
    /// Something stands against it.
    Stuck(String),
}

/// Watches over the files of pairs.
#[derive(Debug, Default)]
pub struct PairWatch {
    /// Those that hold something else than what is served.
    changed: BTreeMap<PairFiles, ChangedPair>,
}

/// Files that hold something else than what is served.
#[derive(Debug)]
struct ChangedPair {
    since: Instant,
    /// What they held when they were read last.
    seen: Option<[u8; 32]>,
    told: Option<Instant>,
}

impl PairWatch {
    /// Looks at the files of every pair of `tls` once, and has renewed ones served. Blocks on the files.
    pub fn look(&mut self, tls: &TlsListeners, now: Instant, wall: SystemTime) -> Vec<PairNews> {
        let mut served = BTreeMap::<PairFiles, (Pair, Vec<SocketAddr>)>::new();
        for (address, terminator) in tls.iter() {
            for pair in terminator.tls().pairs {
                let (_, addresses) = served.entry(pair.files().clone()).or_insert_with(|| (pair, Vec::new()));
                addresses.push(address);
            }
        }
        self.changed.retain(|files, _| served.contains_key(files));
        let looked = served.into_iter().filter_map(|(files, (pair, mut addresses))| {
            addresses.dedup();
            match self.look_at(&files, &pair, now, wall)? {
                Ok(renewed) => {
                    addresses.retain(|address| tls.at(*address).is_some_and(|at| at.renew(&renewed)));
                    Some(PairNews::Renewed(told(&addresses, &renewed)))
                }
                Err(reason) => {
                    let (ends, listeners) = (pair.end(), listed(&addresses));
                    let stays = format!("the pair from before, whose certificate ends on {ends}, is served on");
                    Some(PairNews::Stuck(format!("listener {listeners}: {reason}; {stays}")))
                }
            }
        });
        looked.collect()
    }

    /// Looks at the files of `pair`: a renewed one, or what is to be told.
    fn look_at(
        &mut self,
        files: &PairFiles,
        pair: &Pair,
        now: Instant,
        wall: SystemTime,
    ) -> Option<Result<Pair, String>> {
        let texts = PairTexts::read(files);
        let digest = texts.digest();
        if digest.is_some() && digest == pair.digest() {
            self.changed.remove(files);
            return None;
        }
        let changed = self.changed.entry(files.clone());
        let changed = changed.or_insert(ChangedPair { since: now, seen: None, told: None });
        let settled = digest.is_none() || changed.seen == digest;
        changed.seen = digest;
        let flaws = match Pair::of(files, &texts, wall) {
            Ok((renewed, _)) if settled => {
                self.changed.remove(files);
                return Some(Ok(renewed));
            }
            Ok(_) => return None,
            Err(flaws) => flaws,
        };
        let overdue = now.saturating_duration_since(changed.since) >= PATIENCE;
        if !overdue || changed.told.is_some_and(|told| now.saturating_duration_since(told) < AGAIN) {
            return None;
        }
        changed.told = Some(now);
        let what =
            if digest.is_some() { "a changed pair cannot be taken up" } else { "a pair cannot be read any more" };
        let flaws: Vec<_> = flaws.into_iter().map(|Flaw { message, .. }| message).collect();
        Some(Err(format!("{what}: {}", flaws.join("; "))))
    }
}

fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn told(addresses: &[SocketAddr], pair: &Pair) -> String {
    let (listeners, cert) = (listed(addresses), pair.files().cert.display());
    format!("listener {listeners}: {cert} was renewed and is served; the certificate ends on {}", pair.end())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;
    use crate::clock::{Clock, ManualClock, SystemClock};

    const SECOND: Duration = Duration::from_secs(1);

    /// The text of a certificate and of its key.
    fn made() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    struct Bench {
        dir: TempDir,
        tls: TlsListeners,
        watch: PairWatch,
        clock: ManualClock,
    }

    impl Bench {
        /// A listener with the pair in `live/` of a directory, which `prepare` makes.
        fn new(prepare: impl Fn(&Path)) -> Self {
            let dir = TempDir::new().unwrap();
            prepare(dir.path());
            let files = PairFiles { cert: dir.path().join("live/cert"), key: dir.path().join("live/key") };
            let pair = Pair::load(&files, SystemClock.wall()).unwrap().0;
            let clock = ManualClock::new();
            let listeners = [("127.0.0.1:443".parse().unwrap(), pair.into())];
            let tls = TlsListeners::new(listeners, &[], clock.now()).unwrap();
            Bench { dir, tls, watch: PairWatch::default(), clock }
        }

        fn written((cert, key): &(String, String)) -> Self {
            Self::new(|dir| {
                std::fs::create_dir(dir.join("live")).unwrap();
                write(&dir.join("live"), cert, key);
            })
        }

        fn live(&self) -> std::path::PathBuf {
            self.dir.path().join("live")
        }

        /// Looks once more, two seconds later.
        fn look(&mut self) -> Vec<PairNews> {
            self.clock.advance(2 * SECOND);
            self.watch.look(&self.tls, self.clock.now(), SystemClock.wall())
        }

        /// Whether the certificate with this text is served.
        fn serves(&self, cert: &str) -> bool {
            use rustls::pki_types::CertificateDer;
            use rustls::pki_types::pem::PemObject;
            let (_, terminator) = self.tls.iter().next().unwrap();
            terminator.tls().pairs[0].certified().cert[0] == CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()
        }
    }

    fn write(dir: &Path, cert: &str, key: &str) {
        std::fs::write(dir.join("cert"), cert).unwrap();
        std::fs::write(dir.join("key"), key).unwrap();
    }

    fn is_renewed(news: &[PairNews]) -> bool {
        matches!(news, [PairNews::Renewed(told)] if told.starts_with("listener 127.0.0.1:443: "))
    }

    #[test]
    fn a_renewed_pair_is_served_once_it_is_the_same_twice() {
        let (old, new, next) = (made(), made(), made());
        let mut bench = Bench::written(&old);
        assert_eq!(bench.look(), []);
        write(&bench.live(), &new.0, &new.1);
        assert_eq!((bench.look(), bench.serves(&old.0)), (vec![], true));
        write(&bench.live(), &next.0, &next.1);
        assert_eq!(bench.look(), [], "it has changed again");
        assert!(is_renewed(&bench.look()) && bench.serves(&next.0));
        assert_eq!(bench.look(), []);
    }

    #[test]
    fn a_renewed_certificate_for_the_same_key_is_a_renewed_pair() {
        let key = KeyPair::generate().unwrap();
        let cert = |name: &str| CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let (old, new) = (cert("a.example"), cert("b.example"));
        let mut bench = Bench::written(&(old, key.serialize_pem()));
        std::fs::write(bench.live().join("cert"), &new).unwrap();
        assert!(bench.look().is_empty() && is_renewed(&bench.look()) && bench.serves(&new));
    }

    #[test]
    fn links_are_followed_anew_those_of_files_and_those_of_directories() {
        let (old, new) = (made(), made());
        let prepare = |dir: &Path| {
            for (name, (cert, key)) in [("1", &old), ("2", &new)] {
                std::fs::create_dir(dir.join(name)).unwrap();
                write(&dir.join(name), cert, key);
            }
        };
        let mut of_files = Bench::new(|dir| {
            prepare(dir);
            std::fs::create_dir(dir.join("live")).unwrap();
            for name in ["cert", "key"] {
                symlink(format!("../1/{name}"), dir.join("live").join(name)).unwrap();
            }
        });
        for name in ["cert", "key"] {
            std::fs::remove_file(of_files.live().join(name)).unwrap();
            assert_eq!(of_files.look(), [], "it is gone for a moment");
            symlink(format!("../2/{name}"), of_files.live().join(name)).unwrap();
            assert_eq!((of_files.look(), of_files.serves(&old.0)), (vec![], true));
        }
        assert!(is_renewed(&of_files.look()) && of_files.serves(&new.0));
        let mut of_a_directory = Bench::new(|dir| {
            prepare(dir);
            symlink("1", dir.join("live")).unwrap();
        });
        symlink("2", of_a_directory.dir.path().join("next")).unwrap();
        std::fs::rename(of_a_directory.dir.path().join("next"), of_a_directory.live()).unwrap();
        assert!(of_a_directory.look().is_empty() && is_renewed(&of_a_directory.look()));
    }

    #[test]
    fn what_is_half_swapped_waits_and_is_told_when_it_takes_too_long() {
        let (old, new) = (made(), made());
        let chain = format!("{}{}", new.0, made().0);
        type Spoil<'a> = &'a dyn Fn(&Path);
        let cases: [(&str, Spoil<'_>); 6] = [
            ("is not that of the certificate", &|live| std::fs::write(live.join("key"), &new.1).unwrap()),
            ("is not that of the certificate", &|live| std::fs::write(live.join("cert"), &new.0).unwrap()),
            ("holds no certificate", &|live| std::fs::write(live.join("cert"), "").unwrap()),
            ("there is no such file", &|live| std::fs::remove_file(live.join("key")).unwrap()),
            ("has no END line", &|live| write(live, &chain[..chain.len() - 40], &new.1)),
            ("first line of a section", &|live| write(live, &format!("{}-----BEG", new.0), &new.1)),
        ];
        for (why, spoil) in cases {
            let mut bench = Bench::written(&old);
            spoil(&bench.live());
            assert!((0..10).all(|_| bench.look().is_empty()), "{why}: it is waited for");
            let told = bench.look();
            assert!(
                matches!(&told[..], [PairNews::Stuck(said)] if said.contains(why) && said.contains("ends on ")),
                "{told:?}"
            );
            assert!((0..100).all(|_| bench.look().is_empty()) && bench.serves(&old.0), "{why}: once is enough");
            bench.clock.advance(AGAIN);
            assert_eq!(bench.look(), told, "for an hour");
            write(&bench.live(), &chain, &new.1);
            assert!(bench.look().is_empty() && is_renewed(&bench.look()) && bench.serves(&new.0), "{why}");
        }
    }

    #[test]
    fn the_old_one_come_back_is_no_news_and_a_reload_is_not_undone() {
        let (old, new) = (made(), made());
        let mut bench = Bench::written(&old);
        std::fs::write(bench.live().join("key"), &new.1).unwrap();
        assert_eq!(bench.look(), []);
        write(&bench.live(), &old.0, &old.1);
        assert!((0..20).all(|_| bench.look().is_empty()));
        write(&bench.live(), &new.0, &new.1);
        let (_, terminator) = bench.tls.iter().next().unwrap();
        let files = terminator.tls().pairs[0].files().clone();
        terminator.set(Pair::load(&files, SystemClock.wall()).unwrap().0.into());
        assert!(bench.look().is_empty() && bench.look().is_empty() && bench.serves(&new.0));
    }
}
