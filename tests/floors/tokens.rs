//! Rust sources as tokens, as far as imports need it.
//!
//! A parser of the whole language was refused: words, paths and braces are all that an import is made of.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Word(String),
    /// `::` is one, everything else is a character of its own.
    Mark(&'static str),
}

const MARKS: &[&str] = &["::", "{", "}", "(", ")", "[", "]", ",", ";", "*", "#", "$", "=", "!", "."];

/// The tokens of a source with their lines. Comments, literals and lifetimes leave none.
pub(crate) fn tokens(source: &str) -> Vec<(usize, Token)> {
    let bytes = source.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &source[at..];
        let literal = skipped(rest);
        if literal > 0 {
            at += literal;
            continue;
        }
        let line = || source[..at].matches('\n').count() + 1;
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if word > 0 {
            tokens.push((line(), Token::Word(rest[..word].to_owned())));
            at += word;
        } else if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            tokens.push((line(), Token::Mark(mark)));
            at += mark.len();
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    tokens
}

/// The length of the comment, literal or lifetime at the start of `rest`, or 0.
fn skipped(rest: &str) -> usize {
    let until = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return until(2, "\n");
    }
    if rest.starts_with("/*") {
        let (mut depth, mut at) = (0, 0);
        while at < rest.len() {
            match &rest.as_bytes()[at..] {
                [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
                [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
            if depth == 0 {
                return at;
            }
        }
        return rest.len();
    }
    let prefix = ["br", "cr", "r", "b", "c"].iter().find(|prefix| {
        let after = rest.strip_prefix(**prefix).unwrap_or_default().trim_start_matches('#');
        after.starts_with('"') || (**prefix == "b" && after.starts_with('\''))
    });
    let start = prefix.map_or(0, |prefix| prefix.len());
    if prefix.is_some_and(|prefix| prefix.ends_with('r')) {
        let hashes = rest[start..].len() - rest[start..].trim_start_matches('#').len();
        return until(start + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
    }
    match rest[start..].chars().next() {
        Some('"') => escaped(rest, start, '"'),
        Some('\'') => {
            let mut chars = rest[start + 1..].chars();
            let (first, second) = (chars.next(), chars.next());
            if first == Some('\\') || second == Some('\'') {
                return escaped(rest, start, '\'');
            }
            let name = rest[start + 1..].find(|c: char| !c.is_alphanumeric() && c != '_');
            start + 1 + name.unwrap_or(rest.len() - start - 1)
        }
        _ => 0,
    }
}

/// The end of the literal that opens at `start` and closes with `quote`.
fn escaped(rest: &str, start: usize, quote: char) -> usize {
    let mut after_backslash = false;
    for (at, c) in rest.char_indices().skip_while(|(at, _)| *at <= start) {
        if !after_backslash && c == quote {
            return at + 1;
        }
        after_backslash = c == '\\' && !after_backslash;
    }
    rest.len()
}

#[test]
fn comments_literals_and_lifetimes_leave_no_tokens() {
    let words = |source: &str| -> Vec<String> {
        tokens(source)
            .into_iter()
            .filter_map(|(_, token)| match token {
                Token::Word(word) => Some(word),
                Token::Mark(_) => None,
            })
            .collect()
    };
    for (source, expected) in [
        ("a // b\nc", "a c"),
        ("a /* b /* c */ d */ e", "a e"),
        (r#"a "b \" c" d"#, "a d"),
        ("a r\"b\\\" c", "a c"),
        ("a r##\"b\"# c\"## d", "a d"),
        ("a b'x' b\"y\" br#\"z\"# c\"w\" d", "a d"),
        ("a 'b' '\\'' '\\n' '\u{e4}' c", "a c"),
        ("a<'b> &'static c", "a c"),
        ("r#type b'\\\\' c", "r type c"),
    ] {
        assert_eq!(words(source).join(" "), expected, "{source}");
    }
}
