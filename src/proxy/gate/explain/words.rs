//! What is told of where a request comes from, of its bucket and of a store that is away.

use std::net::IpAddr;

use http::HeaderMap;

use crate::limit::{Reach, Standing};
use crate::proxy::gate::headers::X_FORWARDED_FOR;
use crate::proxy::gate::identify::Walk;

/// How many bytes of `X-Forwarded-For` are shown.
const SHOWN: usize = 256;

/// What is done while the fleet's store is away, if it is.
pub(super) fn without_store((reach, nodes): (Reach, u32)) -> Option<String> {
    let rule = match reach {
        Reach::Joined => return None,
        Reach::Share if nodes == 1 => "share: this node, the only one, gives all of every limit".to_owned(),
        Reach::Share => format!(
            "share: this node gives one of {nodes} parts of every limit, or all of one that is too small to divide and its own"
        ),
        Reach::Refuse => "refuse: nobody is let in who has a limit".to_owned(),
        Reach::Allow => "allow: everybody is let in".to_owned(),
    };
    Some(format!("the fleet's store is away, and fleet.when_unreachable is {rule}"))
}

/// The steps to the caller's address.
pub(super) fn whence(headers: &HeaderMap, peer: IpAddr, address: IpAddr, walk: Option<Walk>) -> Vec<String> {
    let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.as_bytes()).collect();
    let list = (!lines.is_empty()).then(|| end(&lines.join(&b", "[..])));
    let Some(walk) = walk else {
        let ignored = list.map_or("", |_| ", so its X-Forwarded-For is ignored");
        return vec![format!("the connection comes from {peer}, which is not a trusted proxy{ignored}")];
    };
    let reached = match (list, walk) {
        (None, _) => format!("there is no X-Forwarded-For, so {address} counts as the caller's address"),
        (Some(list), Walk::Untrusted) => {
            format!("X-Forwarded-For: {list} → {address} is the rightmost untrusted address")
        }
        (Some(list), Walk::End) => {
            format!("X-Forwarded-For: {list} → all are trusted proxies, so the leftmost counts, {address}")
        }
        (Some(list), Walk::Broken) => {
            format!("X-Forwarded-For: {list} → ends, from the right, at what is no address; {address} before it counts")
        }
    };
    vec![format!("the connection comes from {peer}, which is a trusted proxy"), reached]
}

/// The end of a list as text, as far as it is worth showing: the walk begins there.
fn end(list: &[u8]) -> String {
    let (ellipsis, shown) = match list.len().checked_sub(SHOWN) {
        None | Some(0) => ("", list),
        Some(start) => ("…", &list[start..]),
    };
    format!("{ellipsis}{}", String::from_utf8_lossy(shown))
}

/// How a bucket stands, and whose it is: that of the first of these addresses, or a client's.
pub(super) fn bucket(anonymous: Option<IpAddr>, ipv6_prefix: u8, standing: &Standing) -> String {
    let whose = match anonymous {
        None => "mode limit".to_owned(),
        Some(IpAddr::V4(address)) => format!("the default limit, for {address}"),
        Some(IpAddr::V6(first)) => format!("the default limit, for {first}/{ipv6_prefix}"),
    };
    let quota = standing.quota();
    let (capacity, rate) = (quota.capacity(), quota.rate().to_f64());
    // Cut off, not rounded: 0.9999 tokens are not one.
    let tokens = (standing.tokens().to_f64() * 1000.0).floor() / 1000.0;
    let shared = if standing.is_overflow() { ", shared with others for want of room" } else { "" };
    format!("{whose}: capacity {capacity}, {rate} tokens a second, {tokens} tokens now{shared}")
}
