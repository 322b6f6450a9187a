//! Tickets, with which clients resume sessions, and the keys that they are sealed with.
//!
//! The problem: rustls' own ticketer makes its keys in each process and gives them to nobody. So after an upgrade, and
//! on the next node behind the same name, every client makes a full handshake, all of them at once on a busy node.
//!
//! The rules. A process makes keys in memory ([`TicketRing`]) and hands them on at an upgrade; they are never written
//! to a disk. A new one is made every [`SEALS`], and each opens tickets for twice as long, so that a ticket lasts at
//! least [`SEALS`] and its key is gone soon after. Or the keys are those of a file ([`TicketKeys`]), which several
//! nodes share and somebody else renews; the first seals, all of them open.
//!
//! A ticket is the key's name, a salt, and the session sealed with AES-256-GCM under a key of its own, made of the
//! secret and the salt by HMAC-SHA-256. So there is no nonce that could come twice, however many tickets a key of a
//! file seals. A ticket that does not open is none: the client makes a full handshake.
//!
//! Refused: one key for each listener. What a session may be resumed for is its name (rustls compares it), and
//! listeners that ask for certificates of clients have no tickets at all, since a client is not verified again when it
//! resumes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use rustls::server::ProducesTickets;

use super::files;

/// How long a key seals tickets, and a client may keep one.
const SEALS: Duration = Duration::from_secs(12 * 60 * 60);
/// How long it opens them.
const OPENS: Duration = Duration::from_secs(24 * 60 * 60);
/// The most keys at once.
const MOST: usize = 16;

const NAME: usize = 16;
const SALT: usize = 32;

/// What tickets are sealed with.
struct TicketKey {
    secret: hmac::Key,
    name: [u8; NAME],
}

impl TicketKey {
    /// A key of this secret, which has at least 32 bytes.
    fn of(secret: &[u8]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut name = [0; NAME];
        name.copy_from_slice(&hmac::sign(&secret, b"tollgate ticket name").as_ref()[..NAME]);
        TicketKey { secret, name }
    }

    /// The key of one ticket.
    fn own(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(b"tollgate ticket key");
        context.update(salt);
        UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).ok().map(LessSafeKey::new)
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).ok()?;
        let mut sealed = session.to_vec();
        // The key seals nothing but this.
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        self.own(&salt)?.seal_in_place_append_tag(nonce, Aad::from(&self.name), &mut sealed).ok()?;
        Some([&self.name[..], &salt, &sealed].concat())
    }

    fn open(&self, salt: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut session = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let length = self.own(salt)?.open_in_place(nonce, Aad::from(&self.name), &mut session).ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

/// Opens a ticket with the one of `keys` that has sealed it.
fn open<'k>(keys: impl IntoIterator<Item = &'k TicketKey>, ticket: &[u8]) -> Option<Vec<u8>> {
    let (name, rest) = ticket.split_at_checked(NAME)?;
    let (salt, sealed) = rest.split_at_checked(SALT)?;
    // A name is no secret: it stands in every ticket.
    keys.into_iter().find(|key| key.name == name)?.open(salt, sealed)
}

/// The secret of a key, with its age, on its way to another process.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret {
    /// It.
    pub secret: [u8; 32],
    /// How old it is.
    pub age: Duration,
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSecret").field("age", &self.age).finish_non_exhaustive()
    }
}

/// A key of this process.
struct MadeKey {
    secret: [u8; 32],
    key: TicketKey,
    made: Instant,
}

/// The keys that processes make and hand on. One for all listeners that have none of a file.
#[derive(Default)]
pub struct TicketRing {
    /// The first one seals.
    keys: ArcSwap<Vec<Arc<MadeKey>>>,
}

impl TicketRing {
    /// The keys that a predecessor has handed on, or a new one, at `now`.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(inherited: &[TicketSecret], now: Instant) -> Result<Self, rustls::Error> {
        let made = |age: Duration| now.checked_sub(age);
        let keys = inherited.iter().take(MOST).filter_map(|key| Some(MadeKey::new(key.secret, made(key.age)?)));
        let ring = TicketRing { keys: ArcSwap::from_pointee(keys.map(Arc::new).collect()) };
        ring.rotate(now)?;
        Ok(ring)
    }

    /// Makes a new key when the one that seals is too old, and forgets those that open no more. To be called every so
    /// often.
    ///
    /// # Errors
    /// When the system has no random numbers; the old one seals on.
    pub fn rotate(&self, now: Instant) -> Result<(), rustls::Error> {
        let age = |key: &Arc<MadeKey>| now.saturating_duration_since(key.made);
        let keys = self.keys.load();
        if keys.first().is_some_and(|key| age(key) < SEALS) {
            return Ok(());
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        let old = keys.iter().filter(|key| age(key) < OPENS).cloned();
        self.keys.store(Arc::new([Arc::new(MadeKey::new(secret, now))].into_iter().chain(old).collect()));
        Ok(())
    }

    /// What a successor needs to open the tickets of this process.
    pub fn secrets(&self, now: Instant) -> Vec<TicketSecret> {
        let keys = self.keys.load();
        let secret =
            |key: &Arc<MadeKey>| TicketSecret { secret: key.secret, age: now.saturating_duration_since(key.made) };
        keys.iter().map(secret).filter(|key| key.age < OPENS).collect()
    }
}

impl MadeKey {
    fn new(secret: [u8; 32], made: Instant) -> Self {
        MadeKey { secret, key: TicketKey::of(&secret), made }
    }
}

impl fmt::Debug for TicketRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketRing").finish_non_exhaustive()
    }
}

impl ProducesTickets for TicketRing {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        SEALS.as_secs() as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.keys.load().first()?.key.seal(session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        open(self.keys.load().iter().map(|key| &key.key), ticket)
    }
}

/// The keys of a file. A clone is another handle; two are equal when the same was in their files.
#[derive(Clone)]
pub struct TicketKeys {
    path: PathBuf,
    keys: Arc<[TicketKey]>,
}

impl TicketKeys {
    /// Reads the file at `path`: on each line a key in Base64, of 32, 48 or 80 bytes, the first of which seals. Blank
    /// lines and those that begin with `#` are none. Blocks.
    ///
    /// # Errors
    /// What is wrong with it; shows nothing of a key.
    pub fn load(path: &Path) -> Result<Self, String> {
        let said = |why: String| format!("{}: {why}", path.display());
        let text = files::read(path).map_err(said)?;
        let text = String::from_utf8(text).map_err(|_| said(NO_LINES.to_owned()))?;
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let key = |(number, line): (usize, &str)| {
            let secret = STANDARD.decode(line).ok().filter(|secret| matches!(secret.len(), 32 | 48 | 80));
            secret.map(|secret| TicketKey::of(&secret)).ok_or_else(|| said(format!("line {number} is no key; {FORM}")))
        };
        let keys: Arc<[_]> = lines.map(key).collect::<Result<_, _>>()?;
        match keys.len() {
            0 => Err(said(format!("holds no key; {FORM}"))),
            1..=MOST => Ok(TicketKeys { path: path.to_owned(), keys }),
            more => Err(said(format!("holds {more} keys; at most {MOST} are taken"))),
        }
    }
}

const FORM: &str = "each line is a key, of 32, 48 or 80 bytes in Base64, as `openssl rand -base64 48` makes it";
const NO_LINES: &str = "is no text; each line is a key in Base64";

impl PartialEq for TicketKeys {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.keys.iter().map(|key| key.name).eq(other.keys.iter().map(|key| key.name))
    }
}

impl Eq for TicketKeys {}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").field("path", &self.path).field("keys", &self.keys.len()).finish()
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        SEALS.as_secs() as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.keys.first()?.seal(session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        open(self.keys.iter(), ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    const HOUR: Duration = Duration::from_secs(60 * 60);

    #[test]
    fn a_ticket_opens_for_as_long_as_its_key_is_there() {
        let clock = ManualClock::new();
        let ring = TicketRing::new(&[], clock.now()).unwrap();
        let first = ring.encrypt(b"session").unwrap();
        assert_ne!(first, ring.encrypt(b"session").unwrap(), "no two are the same");
        let after = |hours: u32| ring.rotate(clock.now() + HOUR * hours).unwrap();
        after(11);
        assert_eq!(ring.keys.load().len(), 1);
        after(12);
        let second = ring.encrypt(b"other").unwrap();
        assert_ne!(first[..NAME], second[..NAME]);
        after(23);
        assert_eq!(ring.decrypt(&first).as_deref(), Some(&b"session"[..]));
        after(24);
        assert_eq!((ring.decrypt(&first), ring.decrypt(&second).as_deref()), (None, Some(&b"other"[..])));
    }

    #[test]
    fn whatever_else_comes_is_no_ticket() {
        let ring = TicketRing::new(&[], ManualClock::new().now()).unwrap();
        let ticket = ring.encrypt(b"session").unwrap();
        for index in 0..ticket.len() {
            let mut other = ticket.clone();
            other[index] ^= 1;
            assert_eq!(ring.decrypt(&other), None, "{index}");
            assert_eq!(ring.decrypt(&ticket[..index]), None, "{index}");
        }
        let stranger = TicketRing::new(&[], ManualClock::new().now()).unwrap();
        assert_eq!(stranger.decrypt(&ticket), None);
        assert_eq!(format!("{ring:?}"), "TicketRing { .. }");
    }

    #[test]
    fn a_successor_opens_what_its_predecessor_has_sealed_and_the_other_way_round() {
        let clock = ManualClock::new();
        let old = TicketRing::new(&[], clock.now()).unwrap();
        let ticket = old.encrypt(b"session").unwrap();
        clock.advance(5 * HOUR);
        let secrets = old.secrets(clock.now());
        assert_eq!(secrets.iter().map(|key| key.age).collect::<Vec<_>>(), [5 * HOUR]);
        let new = TicketRing::new(&secrets, clock.now()).unwrap();
        assert_eq!(new.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(old.decrypt(&new.encrypt(b"later").unwrap()).as_deref(), Some(&b"later"[..]));
        clock.advance(7 * HOUR);
        new.rotate(clock.now()).unwrap();
        assert_eq!(new.secrets(clock.now()).len(), 2, "its age was handed on");
        let ages = [30 * HOUR, 13 * HOUR].map(|age| TicketSecret { secret: [7; 32], age });
        assert_eq!(TicketRing::new(&ages[..1], clock.now()).unwrap().secrets(clock.now()).len(), 1);
        assert_eq!(TicketRing::new(&ages[1..], clock.now()).unwrap().secrets(clock.now()).len(), 2);
        assert!(!format!("{secrets:?}").contains("secret:"), "{secrets:?}");
    }

    #[test]
    fn keys_of_a_file_are_the_same_on_every_node() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            TicketKeys::load(&path)
        };
        let [one, two, three] = [32, 48, 80].map(|length| STANDARD.encode(vec![length as u8; length]));
        let node = load(&format!("# of today\n{one}\n\n{two}\n")).unwrap();
        let other = load(&format!("{two}\r\n{one}\n{three}")).unwrap();
        assert_eq!(other.decrypt(&node.encrypt(b"session").unwrap()).as_deref(), Some(&b"session"[..]));
        assert_eq!(node.decrypt(&other.encrypt(b"session").unwrap()).as_deref(), Some(&b"session"[..]));
        assert_ne!(node, other);
        let renewed = load(&three).unwrap();
        assert_eq!((renewed.decrypt(&node.encrypt(b"session").unwrap()), &renewed), (None, &load(&three).unwrap()));
        for (text, why) in [
            ("", "holds no key"),
            ("# none\n", "holds no key"),
            ("c2hvcnQ=\n", "line 1 is no key"),
            (&format!("{one}\n!\n"), "line 2 is no key"),
            (&format!("{one}\n").repeat(17), "holds 17 keys"),
        ] {
            let said = load(text).unwrap_err();
            assert!(said.contains(why) && said.contains("keys: ") && !said.contains(&one), "{said}");
        }
        std::fs::write(&path, [0xff; 48]).unwrap();
        assert!(TicketKeys::load(&path).unwrap_err().contains("is no text"));
    }
}
