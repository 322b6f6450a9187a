//! How values stand in an access line: in quotes, with escapes, or as a sign that there is none. By the rules that
//! [`record`](super::record) has.

use std::fmt;
use std::io::Write;

/// Appends formatted text.
pub(super) fn put(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write and nothing formatted here fails");
}

/// A value, or `-` for none.
pub(super) struct OrDash<T>(pub(super) Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// Appends what is the same in every line. Inlined, so that its length is known where it is copied.
#[inline(always)]
pub(super) fn literal(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a value by `write` when it is there, and `null` when it is not.
#[inline(always)]
pub(super) fn or_null<T>(value: Option<T>, out: &mut Vec<u8>, write: impl FnOnce(T, &mut Vec<u8>)) {
    match value {
        Some(value) => write(value, out),
        None => literal("null", out),
    }
}

/// Appends what `write` does, in quotes.
#[inline(always)]
pub(super) fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    literal("\"", out);
    write(out);
    literal("\"", out);
}

/// Appends a word of our own, which needs no escapes, in quotes.
pub(super) fn word(value: &str, out: &mut Vec<u8>) {
    quoted(out, |out| out.extend_from_slice(value.as_bytes()));
}

/// Appends text from outside in quotes.
pub(super) fn text(value: &[u8], out: &mut Vec<u8>) {
    quoted(out, |out| escape_json(value, out));
}

/// Whether both forms write `value` as it is, which nearly all values are.
fn is_plain(value: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') & !matches!(byte, b'"' | b'\\');
    // All of them, since a loop that may end early is not made one over many bytes at a time.
    value.iter().fold(true, |all, byte| all & is_plain(byte))
}

fn escape_json(value: &[u8], out: &mut Vec<u8>) {
    if is_plain(value) {
        return out.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                '\u{2028}' | '\u{2029}' => put(out, format_args!("\\u{:04x}", u32::from(c))),
                _ if c.is_control() => put(out, format_args!("\\u{:04x}", u32::from(c))),
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends ` key="value"`, or ` key=-` for no value.
pub(super) fn text_pair(key: &str, value: Option<&[u8]>, out: &mut Vec<u8>) {
    put(out, format_args!(" {key}="));
    let Some(value) = value else {
        return out.push(b'-');
    };
    out.push(b'"');
    escape_text(value, out);
    out.push(b'"');
}

pub(super) fn escape_text(value: &[u8], out: &mut Vec<u8>) {
    if is_plain(value) {
        return out.extend_from_slice(value);
    }
    for byte in value {
        match byte {
            b' '..=b'~' if !matches!(byte, b'"' | b'\\') => out.push(*byte),
            _ => put(out, format_args!("\\x{byte:02X}")),
        }
    }
}
