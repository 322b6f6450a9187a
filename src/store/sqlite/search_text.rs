//! The names and notes of all clients as one text in memory, for searches.
//!
//! The problem: a million rows cost SQLite 150 ms to step over, before anything is compared.
//!
//! The rule: one client behind the other in the order of their names, ASCII letters in lower case, between marks that no
//! UTF-8 has; so finding a text in all of them is one pass over some 20 bytes each. The name as it is written stands
//! first, and once more in lower case when that is another: whatever occurs in either occurs in the name. The text is cut
//! into pieces, and a change writes those anew that it is in; the others are shared with the text before.
//!
//! Refused: a covering index or a scalar function, as stepping alone is too slow; halves on two threads, which take
//! from requests what they save; trigrams (FTS5), which triple a write's cost, know no text of two letters, and take
//! longer than this for one that many clients have.

use std::collections::BTreeMap;
use std::sync::Arc;

use memchr::{memchr, memmem, memrchr};

/// Ends the name, and the name in lower case.
const PART: u8 = 0xff;
/// Ends the client.
const END: u8 = 0xfe;
/// How long a piece is, in bytes, up to twice of it.
const PIECE: usize = if cfg!(test) { 64 } else { 64 << 10 };

/// The text. A clone shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct SearchText(Vec<Arc<[u8]>>);

impl SearchText {
    /// How many bytes it takes.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.len()).sum()
    }

    /// Appends a piece of clients behind all others.
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        while piece.len() > 2 * PIECE
            && let Some(end) = memchr(END, &piece[PIECE..]).map(|end| PIECE + end + 1)
        {
            self.0.push(piece[..end].into());
            piece = &piece[end..];
        }
        if !piece.is_empty() {
            self.0.push(piece.into());
        }
    }

    /// The text after these clients have changed: by their names what their notes are, or none of a client that is gone.
    pub(super) fn with(&self, changes: BTreeMap<String, Option<String>>) -> Self {
        let (mut text, mut changes) = (SearchText::default(), changes.into_iter().peekable());
        let mut nexts = self.0.iter().skip(1).map(|piece| name(piece));
        for piece in &self.0 {
            let next = nexts.next();
            let is_here = |id: &str| next.is_none_or(|next| id.as_bytes() < next);
            if changes.peek().is_none_or(|(id, _)| !is_here(id)) {
                text.0.push(Arc::clone(piece));
                continue;
            }
            let mut anew = Vec::with_capacity(piece.len() + PIECE / 8);
            for client in piece.split_inclusive(|byte| *byte == END) {
                while let Some((id, note)) = changes.next_if(|(id, _)| id.as_bytes() < name(client)) {
                    append(&mut anew, &id, note.as_deref());
                }
                match changes.next_if(|(id, _)| id.as_bytes() == name(client)) {
                    Some((id, note)) => append(&mut anew, &id, note.as_deref()),
                    None => anew.extend_from_slice(client),
                }
            }
            while let Some((id, note)) = changes.next_if(|(id, _)| is_here(id)) {
                append(&mut anew, &id, note.as_deref());
            }
            text.push(&anew);
        }
        let mut behind = Vec::new();
        changes.for_each(|(id, note)| append(&mut behind, &id, note.as_deref()));
        text.push(&behind);
        text
    }

    /// Looks for a text in all clients.
    pub(super) fn look(&self, search: &mut SearchPass) {
        self.0.iter().for_each(|piece| search.look(piece));
    }
}

/// Clients in the order of their names, which become a piece of the text.
#[derive(Debug, Default)]
pub(super) struct SearchPiece(Vec<u8>);

impl SearchPiece {
    /// Appends a client; the piece, once it is long enough, and then the next one begins.
    pub(super) fn add(&mut self, id: &str, note: &str) -> Option<Vec<u8>> {
        append(&mut self.0, id, Some(note));
        (self.0.len() >= PIECE).then(|| self.take())
    }

    /// What there is of it.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// One search, piece by piece in their order: how many clients it has found, and the first of them behind a name.
#[derive(Debug)]
pub(super) struct SearchPass {
    finder: memmem::Finder<'static>,
    after: String,
    most: usize,
    /// At most so many names behind that one.
    pub(super) names: Vec<String>,
    /// All that were found.
    pub(super) total: u64,
}

impl SearchPass {
    /// Looks for `needle`, ASCII letters in either case, and keeps at most `most` names behind `after`.
    pub(super) fn new(needle: &str, after: &str, most: usize) -> Self {
        let finder = memmem::Finder::new(&needle.to_ascii_lowercase()).into_owned();
        SearchPass { finder, after: after.to_owned(), most, names: Vec::new(), total: 0 }
    }

    /// Looks through the next piece.
    pub(super) fn look(&mut self, mut piece: &[u8]) {
        while let Some(found) = self.finder.find(piece)
            && let Some(end) = memchr(END, &piece[found..]).map(|end| found + end)
        {
            self.total += 1;
            if self.names.len() < self.most {
                let start = memrchr(END, &piece[..found]).map_or(0, |end| end + 1);
                let name = name(&piece[start..end]);
                if name > self.after.as_bytes() {
                    self.names.push(String::from_utf8_lossy(name).into_owned());
                }
            }
            piece = &piece[end + 1..];
        }
    }
}

/// The name of the first client of a piece.
fn name(piece: &[u8]) -> &[u8] {
    &piece[..memchr(PART, piece).unwrap_or(piece.len())]
}

/// Appends a client; nothing when it has no note, not even an empty one, as it is gone.
fn append(piece: &mut Vec<u8>, id: &str, note: Option<&str>) {
    let Some(note) = note else { return };
    piece.extend_from_slice(id.as_bytes());
    piece.push(PART);
    if id.bytes().any(|byte| byte.is_ascii_uppercase()) {
        piece.extend(id.bytes().map(|byte| byte.to_ascii_lowercase()));
        piece.push(PART);
    }
    piece.extend(note.bytes().map(|byte| byte.to_ascii_lowercase()));
    piece.push(END);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::super::super::plan;
    use super::*;

    type Notes = BTreeMap<String, String>;

    fn text(clients: &Notes) -> SearchText {
        let (mut text, mut piece) = (SearchText::default(), SearchPiece::default());
        for (id, note) in clients {
            piece.add(id, note).into_iter().for_each(|piece| text.push(&piece));
        }
        text.push(&piece.take());
        text
    }

    fn found(text: &SearchText, needle: &str, after: &str, most: usize) -> (Vec<String>, u64) {
        let mut pass = SearchPass::new(needle, after, most);
        text.look(&mut pass);
        (pass.names, pass.total)
    }

    fn expected(clients: &Notes, needle: &str, after: &str, most: usize) -> (Vec<String>, u64) {
        let all: Vec<_> = clients.iter().filter(|(id, note)| plan::matches(needle, id, note)).collect();
        let behind = all.iter().filter(|(id, _)| id.as_str() > after).take(most);
        (behind.map(|(id, _)| (*id).clone()).collect(), all.len() as u64)
    }

    /// Few letters, so that much is found; what patterns have signs for, and what is not ASCII.
    const NEEDLE: &str = "[abAB1%_äÄß\\\\\u{0}]{0,3}";
    fn notes() -> impl Strategy<Value = Notes> {
        prop::collection::btree_map("[abAB1./@]{1,5}", "[abAB1%_äÄß\\\\ \u{0}]{0,40}", 0..30)
    }

    proptest! {
        #[test]
        fn finds_what_is_there(clients in notes(), needle in NEEDLE, after in "[abAB1]{0,2}", most in 0_usize..6) {
            prop_assert_eq!(found(&text(&clients), &needle, &after, most), expected(&clients, &needle, &after, most));
        }

        // Before this, SQLite compared; it sees the end of a text in a zero byte.
        #[test]
        fn agrees_with_like(clients in notes(), needle in NEEDLE) {
            let unended = |text: &str| text.replace('\0', "");
            let clients: Notes = clients.into_iter().map(|(id, note)| (id, unended(&note))).collect();
            let needle = unended(&needle);
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE clients (id TEXT PRIMARY KEY, note TEXT) WITHOUT ROWID").unwrap();
            for client in &clients {
                connection.execute("INSERT INTO clients VALUES (?1, ?2)", client).unwrap();
            }
            let sql = "SELECT id FROM clients WHERE id LIKE ?1 ESCAPE '\\' OR note LIKE ?1 ESCAPE '\\' ORDER BY id";
            let escaped = needle.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            let mut all = connection.prepare(sql).unwrap();
            let all = all.query_map([format!("%{escaped}%")], |row| row.get(0)).unwrap();
            let all: Vec<String> = all.collect::<Result<_, _>>().unwrap();
            let total = all.len() as u64;
            prop_assert_eq!(found(&text(&clients), &needle, "", usize::MAX), (all, total));
        }

        #[test]
        fn changes_lead_to_what_is_made_anew(
            mut clients in notes(),
            rounds in prop::collection::vec(
                prop::collection::btree_map("[abAB1./@]{1,5}", prop::option::of("[abB ]{0,40}"), 0..6), 1..6),
            taken in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
            needle in NEEDLE,
        ) {
            let mut changed = text(&clients);
            for (round, changes) in rounds.into_iter().enumerate() {
                let mut changes = changes;
                // Some of them are there.
                let ids: Vec<_> = clients.keys().cloned().collect();
                let taken = taken.iter().filter(|_| !ids.is_empty()).map(|taken| taken.get(&ids).clone());
                changes.extend(taken.skip(round).map(|id| (id, (round % 2 == 0).then(String::new))));
                let before = (changed.clone(), clients.clone());
                changed = changed.with(changes.clone());
                for (id, note) in changes {
                    match note {
                        Some(note) => clients.insert(id, note),
                        None => clients.remove(&id),
                    };
                }
                prop_assert_eq!(found(&changed, &needle, "", 99), expected(&clients, &needle, "", 99));
                prop_assert_eq!(changed.0.concat(), text(&clients).0.concat());
                prop_assert_eq!(before.0.0.concat(), text(&before.1).0.concat());
            }
        }
    }

    #[test]
    fn a_change_shares_what_it_is_not_in_and_keeps_pieces_long() {
        let clients: Notes = (0..1_000).map(|number| (format!("c{number:03}"), "a note".to_owned())).collect();
        let before = text(&clients);
        let pieces = before.0.len();
        let after = before.with(BTreeMap::from([("c500".to_owned(), Some("another".to_owned()))]));
        let shared = after.0.iter().zip(&before.0).filter(|(one, other)| Arc::ptr_eq(one, other)).count();
        assert_eq!((after.0.len(), shared), (pieces, pieces - 1));
        let grown = (0..1_000).fold(before, |text, number| {
            text.with(BTreeMap::from([(format!("c500-{number}"), Some("a note".to_owned()))]))
        });
        assert!(grown.0.iter().rev().skip(1).all(|piece| (PIECE / 2..=3 * PIECE).contains(&piece.len())));
        let none = grown.with(
            clients.into_keys().chain((0..1_000).map(|number| format!("c500-{number}"))).map(|id| (id, None)).collect(),
        );
        assert_eq!((none.0.len(), none.len()), (0, 0), "nothing is held on to");
    }
}
