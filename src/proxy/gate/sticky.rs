//! The cookie by which a client comes back to its backend (`sticky`).
//!
//! It is set as HAProxy's `cookie NAME insert indirect` has it: by the answer of the backend that served the request,
//! only to a client who has none or one that leads elsewhere, and no backend ever sees it. Whatever is no [token] of a
//! backend that is up and not drained counts as none: the request is balanced anew and its client told anew.
//!
//! It ends with the browser's session, counts for the whole host (`Path=/`), is not to be had by scripts (`HttpOnly`),
//! goes with links from other sites but not with their forms and frames (`SameSite=Lax`), and over TLS, ours or a
//! trusted proxy's that says so, with nothing else (`Secure`). Nothing is said of caching, as HAProxy says nothing
//! without `nocache`: a cache that shares answers with cookies is not one to be before a site that has any. An answer
//! of our own sets none, nor does a 101.
//!
//! [token]: crate::upstream::StickyToken

use std::sync::Arc;

use crate::proxy::gate::affinity::named;
use crate::proxy::wire::lines::{is, line};
use crate::proxy::wire::order::{behind_first_line, lines};
use crate::upstream::StickyToken;

/// The cookie, in one request.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct StickyCookie {
    /// Its name.
    pub(in crate::proxy) name: Arc<str>,
    /// Whether the client speaks TLS.
    pub(in crate::proxy) secure: bool,
    /// What the client is to be told; none when it knows already.
    pub(in crate::proxy) set: Option<StickyToken>,
}

impl StickyCookie {
    /// Takes it out of a request's header section.
    pub(in crate::proxy) fn take_away(&self, head: &mut Vec<u8>) {
        let is_ours = |pair: &[u8]| named(pair).is_some_and(|(name, _)| name == self.name.as_bytes());
        let has_it = |value: &[u8]| value.split(|byte| *byte == b';').any(is_ours);
        if !lines(behind_first_line(head)).any(|(name, value)| is(name, b"cookie") && has_it(value)) {
            return;
        }
        let first = head.len() - behind_first_line(head).len();
        let mut out = Vec::with_capacity(head.len());
        out.extend_from_slice(&head[..first]);
        for (name, value) in lines(behind_first_line(head)) {
            if !(is(name, b"cookie") && has_it(value)) {
                line(&mut out, name, value);
                continue;
            }
            let others = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let others: Vec<_> = others.filter(|pair| !pair.is_empty() && !is_ours(pair)).collect();
            if !others.is_empty() {
                line(&mut out, name, &others.join(&b"; "[..]));
            }
        }
        out.extend_from_slice(b"\r\n");
        *head = out;
    }

    /// What the answer says of it.
    pub(in crate::proxy) fn line(&self) -> Option<Vec<u8>> {
        let secure: &[u8] = if self.secure { b"; Secure" } else { b"" };
        let token = self.set.as_ref()?.as_bytes();
        Some([self.name.as_bytes(), b"=", token, b"; Path=/; HttpOnly; SameSite=Lax", secure].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(secure: bool) -> StickyCookie {
        StickyCookie { name: "tg".into(), secure, set: StickyToken::parse(b"abcdefghijklmnopqrstuv") }
    }

    #[test]
    fn no_backend_sees_it_and_every_other_cookie() {
        for (came, goes) in [
            ("Cookie: tg=1\r\n", ""),
            ("Cookie: a=b; tg=1;c=\"d\"\r\n", "Cookie: a=b; c=\"d\"\r\n"),
            ("cookie: tg=1\r\nX: tg=1\r\ncookie: TG=2; xtg=3; tg\r\n", "X: tg=1\r\ncookie: TG=2; xtg=3; tg\r\n"),
            ("Cookie: a=b;  c=d\r\n", "Cookie: a=b;  c=d\r\n"),
        ] {
            let mut head = format!("GET / HTTP/1.1\r\nHost: a\r\n{came}\r\n").into_bytes();
            cookie(false).take_away(&mut head);
            assert_eq!(String::from_utf8(head).unwrap(), format!("GET / HTTP/1.1\r\nHost: a\r\n{goes}\r\n"));
        }
    }

    #[test]
    fn it_is_for_the_whole_host_and_not_for_scripts() {
        let said = |secure| String::from_utf8(cookie(secure).line().unwrap()).unwrap();
        let plain = "tg=abcdefghijklmnopqrstuv; Path=/; HttpOnly; SameSite=Lax";
        assert_eq!((said(false).as_str(), said(true)), (plain, format!("{plain}; Secure")));
        assert_eq!(StickyCookie { set: None, ..cookie(true) }.line(), None);
    }
}
