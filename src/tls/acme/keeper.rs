//! When a certificate is asked for, and what is served until it is there.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::time::timeout;

use super::challenges::Challenges;
use super::elsewhere::{AnswerBoard, SeenBoard};
use super::order::{self, Proof};
use super::settings::AcmeSettings;
use super::storage::AcmeStorage;
use crate::clock::Clock;
use crate::tls::{ListenerTls, Pair};

/// How long after a first failure it is tried again.
const SHORTEST: Duration = Duration::from_secs(60);
/// The longest between two tries.
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);

/// The longest that one try takes, whatever the authority does.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// What came of a look at the certificates.
#[derive(Debug, PartialEq, Eq)]
pub enum AcmeNews {
    /// A certificate was got, for this listener's names.
    Obtained(String),
    /// None was, for this reason.
    Failed(String),
}

/// Keeps the certificates of authorities.
#[derive(Debug)]
pub struct AcmeKeeper {
    storage: AcmeStorage,
    challenges: Arc<Challenges>,
    tries: Mutex<HashMap<AcmeSettings, Tries>>,
}

/// How it went so far with one certificate.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    failures: u32,
    next: Option<Instant>,
}

impl AcmeKeeper {
    /// Keeps them beside `database`, or in memory. Answers are put up on `board` for other nodes.
    pub fn new(database: Option<&Path>, board: Option<(Box<dyn AnswerBoard>, Arc<dyn Clock>)>) -> Self {
        let storage = AcmeStorage::beside(database);
        let challenges = Challenges::new(board.map(|(board, clock)| SeenBoard::new(board, clock)));
        AcmeKeeper { storage, challenges: Arc::new(challenges), tries: Mutex::default() }
    }

    /// What authorities ask.
    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// Whether what is kept ends with the process.
    pub fn is_in_memory(&self) -> bool {
        self.storage.is_in_memory()
    }

    /// `tls` with the pair that its names have now; one that is made here where there is none yet. Blocks on files.
    ///
    /// # Errors
    /// When nothing can be kept, or made.
    pub fn fill(&self, mut tls: ListenerTls, now: SystemTime) -> Result<ListenerTls, String> {
        if let Some(acme) = &mut tls.acme {
            self.challenges.look_elsewhere();
            acme.challenges = Some(Arc::clone(&self.challenges));
            let files = self.storage.files_of(&acme.settings)?;
            let pair = match Pair::load(&files, now) {
                Ok((pair, _)) => pair,
                Err(_) => {
                    self.storage.put_pair(&acme.settings, &order::self_made(&acme.settings.domains, now)?)?;
                    let loaded = Pair::load(&files, now);
                    loaded.map_err(|flaws| flaws.first().map(ToString::to_string).unwrap_or_default())?.0
                }
            };
            let stand_in = self.stand_in(&acme.settings, &pair, now);
            tls.pairs = vec![stand_in.map_or_else(|| pair.clone(), |stand_in| stand_in.in_place_of(&pair))];
        }
        Ok(tls)
    }

    /// What is presented in place of `own`, where that was made here: of what authorities gave for other lists of names
    /// and is valid, the one with the most of these, so that a name more takes nothing away from the others.
    fn stand_in(&self, settings: &AcmeSettings, own: &Pair, now: SystemTime) -> Option<Pair> {
        if !own.is_self_made() {
            return None;
        }
        let kept = self.storage.kept().into_iter().filter_map(|files| Some(Pair::load(&files, now).ok()?.0));
        let covered = |pair: &Pair| settings.domains.iter().filter(|name| pair.names().contains(name)).count();
        let fit = kept.filter(|pair| !pair.is_self_made() && pair.lapse(now).is_none() && covered(pair) > 0);
        fit.max_by_key(|pair| (covered(pair), pair.ends()))
    }

    /// Gets a certificate for `settings`, if one is due and it is time for a try; nothing when none is. Another process
    /// that has got one meanwhile counts. `plain` says whether there is a listener without TLS.
    pub async fn look(&self, settings: &AcmeSettings, plain: bool, times: (Instant, SystemTime)) -> Option<AcmeNews> {
        let (now, wall) = times;
        let tries = self.tries.lock().get(settings).copied().unwrap_or_default();
        if tries.next.is_some_and(|next| now < next) || !self.is_due(settings, wall) {
            return None;
        }
        let proof = if plain && tries.failures.is_multiple_of(2) { Proof::Http } else { Proof::Tls };
        let outcome = match self.storage.lock() {
            // Another process is asking; what it gets is seen by the next look.
            Ok(None) => return None,
            Ok(Some(_lock)) if self.is_due(settings, wall) => self.obtain(settings, proof).await,
            Ok(Some(_)) => return None,
            Err(why) => Err(why),
        };
        let (names, directory) = (settings.domains.join(", "), &settings.directory);
        let Err(why) = outcome else {
            self.tries.lock().remove(settings);
            return Some(AcmeNews::Obtained(format!("ACME: a certificate for {names} was got from {directory}")));
        };
        let pause = SHORTEST.saturating_mul(1 << tries.failures.min(16)).min(LONGEST);
        let tries = Tries { failures: tries.failures + 1, next: Some(now + pause) };
        self.tries.lock().insert(settings.clone(), tries);
        let own = self.pair(settings, wall);
        let served = own.and_then(|own| self.stand_in(settings, &own, wall).or(Some(own)));
        let served = match served {
            Some(pair) if !pair.is_self_made() => {
                format!("the certificate for {} that ends on {}", pair.names().join(", "), pair.end())
            }
            _ => "a self-made certificate, which no client believes,".to_owned(),
        };
        Some(AcmeNews::Failed(format!(
            "ACME: no certificate for {names} from {directory} by {}: {why}; tried again in {} s, {served} is served \
             until then",
            proof.name(),
            pause.as_secs()
        )))
    }

    async fn obtain(&self, settings: &AcmeSettings, proof: Proof) -> Result<(), String> {
        let asked = async {
            let account = order::account(settings, self.storage.account(settings)?).await?;
            self.storage.put_account(settings, &account.kept)?;
            order::obtain(settings, proof, &self.challenges, &account).await
        };
        let outcome = timeout(LIMIT, asked).await;
        self.challenges.clear().await;
        match outcome.unwrap_or_else(|_| Err(format!("it came to no end within {} s", LIMIT.as_secs()))) {
            Ok(pem) => self.storage.put_pair(settings, &pem),
            Err(why) => {
                if why.contains(order::NO_SUCH_ACCOUNT) {
                    self.storage.forget_account(settings);
                }
                Err(why)
            }
        }
    }

    /// The pair that `settings` have now, when there is one.
    pub fn pair(&self, settings: &AcmeSettings, now: SystemTime) -> Option<Pair> {
        let files = self.storage.files_of(settings).ok()?;
        Pair::load(&files, now).ok().map(|(pair, _)| pair)
    }

    fn is_due(&self, settings: &AcmeSettings, now: SystemTime) -> bool {
        self.pair(settings, now).is_none_or(|pair| now >= pair.renewal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    #[tokio::test]
    async fn what_fails_is_tried_again_later_each_time_and_in_turn() {
        let (keeper, clock) = (AcmeKeeper::new(None, None), ManualClock::new());
        // Nobody listens there.
        let directory = "https://127.0.0.1:1/dir".to_owned();
        let settings = AcmeSettings { domains: vec!["a.example".to_owned()], contact: Vec::new(), directory };
        let empty =
            ListenerTls { pairs: Vec::new(), acme: Some(settings.clone().into()), ticket_keys: None, clients: None };
        let wall = SystemClock.wall();
        let filled = keeper.fill(empty.clone(), wall).unwrap();
        assert_eq!(filled.pairs[0].names(), ["a.example"]);
        assert!(filled.pairs[0].is_self_made() && filled.pairs[0].lapse(wall).is_none());
        assert_eq!(keeper.fill(empty, wall).unwrap().pairs, filled.pairs, "it is kept");
        let pauses = [60, 120, 240, 480, 960, 1920, 3840, 7680, 15360, 21600, 21600];
        for (pause, plain) in pauses.iter().zip([true, true, false].into_iter().cycle()) {
            let news = keeper.look(&settings, plain, (clock.now(), wall)).await;
            let Some(AcmeNews::Failed(told)) = news else { panic!("{news:?}") };
            assert!(told.contains(&format!("tried again in {pause} s")) && told.contains("refused"), "{told}");
            assert!(plain || told.contains("TLS-ALPN-01"), "{told}");
            clock.advance(Duration::from_secs(pause - 1));
            assert_eq!(keeper.look(&settings, plain, (clock.now(), wall)).await, None);
            clock.advance(Duration::from_secs(1));
        }
    }
}
