//! What a route changes of the headers that go by it: lines taken away, edited by a regular expression, set.
//!
//! The problem: a backend that is moved behind a proxy may need another word in a header (a `Destination` of the
//! scheme that it speaks itself), and its answers may say too much. Whoever can rewrite any header can also break the
//! message: what frames it, and what counts for one connection only, is written by tollgate.
//!
//! The rules. Lines are taken away first, then edited, then set, whatever the order in the file, as Envoy and Apache
//! keep an order of their own. What is set takes the place of every line of its name, also where it turns out to say
//! nothing: a caller whom nobody knows must not be able to send the `X-Client` that others get. Every match of an edit
//! is replaced. Edits may make [`LONGEST`] bytes of one message; a line for which there is no room is not sent. Names
//! are compared without regard to case; trailers are no headers.
//!
//! The framing and hop-by-hop names are refused as nginx ignores them, HAProxy warns of them and Envoy leaves them to
//! its codecs. `Host` may be set, which is how a backend gets the name that it knows, but not to what a stranger says,
//! and never be missing. Refused, too: a language of conditions, and expressions that look back, which a stranger's
//! value can make slow ([`regex`] takes time by the length alone).

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;

use http::HeaderName;
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use regex::bytes::Regex;

/// The most that edits may make of one message, in bytes: what a whole header section may have.
const LONGEST: usize = 64 << 10;

/// Names that no rule may touch, whichever way the message goes.
const FRAMING: [HeaderName; 11] = [
    CONNECTION,
    CONTENT_LENGTH,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Which messages rules are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleSide {
    /// Requests, on their way to a backend.
    Request,
    /// Answers of backends.
    Answer,
}

/// What a rule does to lines of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleVerb {
    /// Takes them away.
    Remove,
    /// Changes what they say.
    Edit,
    /// Puts one of its own in their place.
    Set,
}

/// Why a rule is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The name says where a message ends, or counts for one connection only.
    #[error(
        "frames the message or counts for one connection only, and is tollgate's to write; no rule may touch it, nor \
         Connection, Content-Length, Keep-Alive, Proxy-*, TE, Trailer, Transfer-Encoding, Upgrade"
    )]
    Framing,
    /// The client and its backend agree by it on when the body comes.
    #[error("decides when the body is sent, which tollgate sees to; no rule may touch it")]
    Expect,
    /// Every answer has it.
    #[error("is written by tollgate itself into every answer; no rule may touch it")]
    Date,
    /// A request has exactly one host.
    #[error("can only be set: a request has one, and a stranger's word must not become it")]
    Host,
    /// The value of a `Host` is none.
    #[error("must be a host name or an IP address, with a port where it needs one, and without placeholders")]
    HostValue,
    /// A placeholder that there is not.
    #[error("must have no placeholder but {{client_id}}, {{client_ip}} and {{request_id}}, not {{{0}}}")]
    Placeholder(String),
    /// A group that the expression has not.
    #[error(
        "names the group {0}, which `from` has not; $1 is its first, ${{1}}x that with an x behind it, $$ a dollar"
    )]
    Group(String),
}

/// Whether a rule may do this to lines of this name.
///
/// # Errors
/// Why not.
pub fn may(side: RuleSide, verb: RuleVerb, name: &HeaderName) -> Result<(), RuleError> {
    match (side, verb) {
        _ if FRAMING.contains(name) => Err(RuleError::Framing),
        (RuleSide::Request, _) if *name == EXPECT => Err(RuleError::Expect),
        (RuleSide::Request, RuleVerb::Remove | RuleVerb::Edit) if *name == HOST => Err(RuleError::Host),
        (RuleSide::Answer, _) if *name == DATE => Err(RuleError::Date),
        _ => Ok(()),
    }
}

/// What a route changes of the headers of one side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderRules {
    /// Names whose lines are taken away.
    pub remove: Vec<HeaderName>,
    /// Changes of what lines say, in their order.
    pub edit: Vec<HeaderEdit>,
    /// Lines in place of those of their name.
    pub set: Vec<HeaderLine>,
}

/// A change of what the lines of one name say.
#[derive(Clone, Debug)]
pub struct HeaderEdit {
    name: HeaderName,
    from: Regex,
    to: Vec<EditPart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EditPart {
    Text(Vec<u8>),
    Group(usize),
}

/// A line that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderLine {
    name: HeaderName,
    /// As it is spelt in the file, and over HTTP/1.1.
    spelt: String,
    value: Vec<LinePart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LinePart {
    Text(String),
    ClientId,
    ClientIp,
    RequestId,
}

/// What placeholders stand for in one request.
#[derive(Clone, Copy, Debug)]
pub struct RuleValues<'a> {
    /// The client; none when nobody knows the caller.
    pub client_id: Option<&'a str>,
    /// The address that counts as the caller's.
    pub client_ip: IpAddr,
    /// The name of the request.
    pub request_id: &'a str,
}

impl HeaderRules {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.edit.is_empty() && self.set.is_empty()
    }

    /// Hands what becomes of `lines` to `put`, line by line: those that came in their order, then those that are set.
    pub fn apply<'h>(
        &self,
        lines: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        values: &RuleValues<'_>,
        mut put: impl FnMut(&[u8], &[u8]),
    ) {
        let mut room = LONGEST;
        for (name, value) in lines {
            let is = |other: &HeaderName| other.as_str().as_bytes().eq_ignore_ascii_case(name);
            if self.remove.iter().any(is) || self.set.iter().any(|line| is(&line.name)) {
                continue;
            }
            let mut edits = self.edit.iter().filter(|edit| is(&edit.name));
            let edited = edits.try_fold(Cow::Borrowed(value), |value, edit| edit.apply(value, &mut room));
            if let Some(value) = edited {
                put(name, value.trim_ascii());
            }
        }
        let mut value = Vec::new();
        for line in &self.set {
            value.clear();
            if line.put(values, &mut value) {
                put(line.spelt.as_bytes(), &value);
            }
        }
    }
}

impl HeaderEdit {
    /// In lines of `name`, replaces what `from` matches by `to`, in which `$1` is the first group.
    ///
    /// # Errors
    /// When `to` names a group that is none.
    pub fn new(name: HeaderName, from: Regex, to: &str) -> Result<Self, RuleError> {
        let to = edit_parts(&from, to)?;
        Ok(HeaderEdit { name, from, to })
    }

    /// The value with everything replaced that matches; none when it is longer than there is `room` for.
    fn apply<'v>(&self, value: Cow<'v, [u8]>, room: &mut usize) -> Option<Cow<'v, [u8]>> {
        let mut matches = self.from.captures_iter(&value).peekable();
        if matches.peek().is_none() {
            drop(matches);
            return Some(value);
        }
        let (mut out, mut done) = (Vec::with_capacity(value.len()), 0);
        for groups in matches {
            let whole = groups.get_match();
            out.extend_from_slice(&value[done..whole.start()]);
            done = whole.end();
            for part in &self.to {
                match part {
                    EditPart::Text(text) => out.extend_from_slice(text),
                    EditPart::Group(number) => {
                        out.extend_from_slice(groups.get(*number).map_or(&b""[..], |group| group.as_bytes()));
                    }
                }
            }
            if out.len() > *room {
                return None;
            }
        }
        out.extend_from_slice(&value[done..]);
        *room = room.checked_sub(out.len())?;
        Some(Cow::Owned(out))
    }
}

impl PartialEq for HeaderEdit {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.from.as_str(), &self.to) == (&other.name, other.from.as_str(), &other.to)
    }
}

/// What `to` says, with the groups of `from` by their numbers. As the crate reads it: a name is as long as it can be.
fn edit_parts(from: &Regex, to: &str) -> Result<Vec<EditPart>, RuleError> {
    let (mut parts, mut rest) = (Vec::new(), to);
    while let Some((text, behind)) = rest.split_once('$') {
        parts.push(EditPart::Text(text.into()));
        if let Some(behind) = behind.strip_prefix('$') {
            parts.push(EditPart::Text(b"$".to_vec()));
            rest = behind;
            continue;
        }
        let (name, behind) = match behind.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or_else(|| RuleError::Group(format!("${behind}")))?,
            None => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                behind.split_at(behind.find(|c| !is_part(c)).unwrap_or(behind.len()))
            }
        };
        let number = match name.parse::<usize>() {
            Ok(number) => Some(number).filter(|number| *number < from.captures_len()),
            Err(_) => from.capture_names().position(|known| known.is_some_and(|known| known == name)),
        };
        parts.push(EditPart::Group(number.ok_or_else(|| RuleError::Group(format!("${name}")))?));
        rest = behind;
    }
    parts.push(EditPart::Text(rest.into()));
    parts.retain(|part| !matches!(part, EditPart::Text(text) if text.is_empty()));
    Ok(parts)
}

impl HeaderLine {
    /// The line `spelt: value`, of which `name` is the name in lower case.
    ///
    /// # Errors
    /// When the value has an unknown placeholder, or is no host where it has to be.
    pub fn new(name: HeaderName, spelt: String, value: &str) -> Result<Self, RuleError> {
        let value = line_parts(value)?;
        if name == HOST {
            let host = match &value[..] {
                [LinePart::Text(host)] => host.parse::<http::uri::Authority>().ok(),
                _ => None,
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
            host.filter(|host| host.as_str().chars().all(plain)).ok_or(RuleError::HostValue)?;
        }
        Ok(HeaderLine { name, spelt, value })
    }

    /// Its name in lower case.
    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// Appends what it says in a request of which `values` tell; whether it says anything.
    fn put(&self, values: &RuleValues<'_>, out: &mut Vec<u8>) -> bool {
        for part in &self.value {
            match part {
                LinePart::Text(text) => out.extend_from_slice(text.as_bytes()),
                LinePart::ClientIp => write!(out, "{}", values.client_ip).expect("a Vec takes every write"),
                LinePart::RequestId => out.extend_from_slice(values.request_id.as_bytes()),
                LinePart::ClientId => match values.client_id {
                    Some(id) => out.extend_from_slice(id.as_bytes()),
                    None => return false,
                },
            }
        }
        true
    }
}

/// What `value` says. A word in braces is a placeholder; other braces are themselves, as in JSON.
fn line_parts(value: &str) -> Result<Vec<LinePart>, RuleError> {
    let (mut parts, mut text, mut rest) = (Vec::new(), String::new(), value);
    while let Some((before, behind)) = rest.split_once('{') {
        text.push_str(before);
        let end = behind.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(behind.len());
        rest = match behind[end..].strip_prefix('}') {
            Some(rest) if end > 0 => {
                let part = match &behind[..end] {
                    "client_id" => LinePart::ClientId,
                    "client_ip" => LinePart::ClientIp,
                    "request_id" => LinePart::RequestId,
                    other => return Err(RuleError::Placeholder(other.to_owned())),
                };
                parts.extend([LinePart::Text(std::mem::take(&mut text)), part]);
                rest
            }
            _ => {
                text.push('{');
                behind
            }
        };
    }
    text.push_str(rest);
    parts.push(LinePart::Text(text));
    parts.retain(|part| !matches!(part, LinePart::Text(text) if text.is_empty()));
    Ok(parts)
}

#[cfg(test)]
mod tests;
