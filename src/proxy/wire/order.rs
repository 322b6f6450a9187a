//! The lines of a header section that Pingora wrote, in the order and the spelling in which they came.
//!
//! The problem: Pingora keeps a header in a map. What is repeated stands together in it, what is taken out moves the
//! last line into the gap, and so the same message leaves differently by the two ways. What the lines say is right;
//! here they are put where they were. Lines that did not come, which are ours, follow in Pingora's order.

use crate::proxy::wire::lines::{is_same, line};

/// Lines as text, each with its end, as [`in_order`] takes them.
pub(in crate::proxy) fn text<'h>(lines: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in lines {
        line(&mut text, name, value);
    }
    text
}

/// The header section `written`, whose lines stand as in `came`. Those under a name in `ours` stand last, in that order
/// and in that spelling; where they came, they stay there when `kept` has their name.
pub(in crate::proxy) fn in_order(written: &[u8], came: &[u8], ours: &[&[u8]], kept: &[&[u8]]) -> Vec<u8> {
    let (start, rest) = split_line(written);
    let mut left: Vec<Option<(&[u8], &[u8])>> = lines(rest).map(Some).collect();
    let mut out = Vec::with_capacity(written.len());
    out.extend_from_slice(start);
    out.extend_from_slice(b"\r\n");
    // Nearly always the next one of the one is the next one of the other.
    let mut next = 0;
    let stays = |name: &[u8]| !is_one_of(name, ours) || is_one_of(name, kept);
    for (name, value) in lines(came).filter(|(name, _)| stays(name)) {
        let places = (next..left.len()).chain(0..next);
        let is_it =
            |line: &Option<(&[u8], &[u8])>| line.is_some_and(|(other, said)| said == value && is_same(other, name));
        if let Some(at) = places.into_iter().find(|at| is_it(&left[*at])) {
            left[at] = None;
            next = at + 1;
            line(&mut out, name, value);
        }
    }
    let left = || left.iter().flatten();
    let own = ours
        .iter()
        .flat_map(|own| left().filter(move |(name, _)| is_same(name, own)).map(move |(_, value)| (*own, *value)));
    for (name, value) in left().copied().filter(|(name, _)| !is_one_of(name, ours)).chain(own) {
        line(&mut out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn is_one_of(name: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|other| is_same(name, other))
}

/// The lines of a header section behind its first.
pub(in crate::proxy) fn lines(mut text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (first, rest) = split_line(text);
        text = rest;
        let colon = memchr::memchr(b':', first)?;
        Some((&first[..colon], first[colon + 1..].trim_ascii()))
    })
}

/// What stands behind the first line of a header section.
pub(in crate::proxy) fn behind_first_line(head: &[u8]) -> &[u8] {
    split_line(head).1
}

fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\r', text) {
        Some(end) => (&text[..end], text.get(end + 2..).unwrap_or_default()),
        None => (text, b""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ordered(written: &str, came: &str, ours: &[&[u8]], kept: &[&[u8]]) -> String {
        String::from_utf8(in_order(written.as_bytes(), came.as_bytes(), ours, kept)).unwrap()
    }

    #[test]
    fn lines_stand_and_are_spelt_as_they_came_and_ours_follow() {
        let written = "GET / HTTP/1.1\r\nx-a: 1\r\nx-a: 3\r\nHost: a\r\nX-Ours: new\r\n\r\n";
        let came = "X-A: 1\r\nhOST: a\r\nGone: 5\r\nX-Ours: old\r\nx-A: 3\r\n";
        let expected = "GET / HTTP/1.1\r\nX-A: 1\r\nhOST: a\r\nx-A: 3\r\nX-Ours: new\r\n\r\n";
        assert_eq!(ordered(written, came, &[], &[]), expected);
        let same = "GET / HTTP/1.1\r\nX-Ours: same\r\nHost: a\r\n\r\n";
        let came = "X-Ours: same\r\nHost: a\r\n";
        assert_eq!(ordered(same, came, &[b"X-Ours"], &[]), "GET / HTTP/1.1\r\nHost: a\r\nX-Ours: same\r\n\r\n");
        assert_eq!(ordered(same, came, &[b"X-Ours"], &[b"X-Ours"]), same);
        let mixed = "GET / HTTP/1.1\r\nb: 1\r\nHost: a\r\na: 1\r\n\r\n";
        let spelt = "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 1\r\n\r\n";
        assert_eq!(ordered(mixed, "", &[b"A", b"B"], &[]), spelt);
        assert_eq!(ordered(same, came, &[], &[]), same);
        assert_eq!(ordered("HTTP/1.1 200\r\n\r\n", "A: b\r\n", &[], &[]), "HTTP/1.1 200\r\n\r\n");
    }

    proptest! {
        /// Whatever came, the lines that were written leave, and no others.
        #[test]
        fn no_line_is_lost_or_made(
            written in prop::collection::vec(("[ab]{1,2}", "[a-c ]{0,3}"), 0..8),
            came in prop::collection::vec(("[abAB]{1,2}", "[a-c]{0,3}"), 0..8),
        ) {
            let text = |lines: &[(String, String)]| lines.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect::<String>();
            let sorted = |head: &[u8]| {
                let mut all: Vec<_> = lines(head).map(|(n, v)| (n.to_ascii_lowercase(), v.to_vec())).collect();
                all.sort();
                all
            };
            let written = format!("GET / HTTP/1.1\r\n{}\r\n", text(&written));
            let out = in_order(written.as_bytes(), text(&came).as_bytes(), &[], &[]);
            prop_assert_eq!(sorted(behind_first_line(&out)), sorted(behind_first_line(written.as_bytes())));
        }

        #[test]
        fn no_bytes_panic(written in prop::collection::vec(any::<u8>(), 0..80), came in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = in_order(&written, &came, &[b"a"], &[]);
        }
    }
}
