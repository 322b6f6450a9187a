//! Points in time as the logs write them.
//!
//! Both forms are UTC: a log that changes its offset twice a year sorts wrongly twice a year. A wall clock can be set
//! to anything, so times outside the years 1970 to 9999, which the forms cannot hold, are moved to the nearer end.

use std::fmt;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::decimal::put_three_digits;

/// `9999-12-31T23:59:59Z` in seconds since 1970.
const LAST_SECOND: u64 = 253_402_300_799;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `2026-11-21T19:41:28.123Z`, as RFC 3339 has it.
pub(crate) fn rfc3339(time: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch(time))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().min(Duration::from_secs(LAST_SECOND))
}

/// Writes as [`rfc3339`] does, and keeps the latest second as text: nearly all lines of a busy log are of the same one.
#[derive(Debug, Default)]
pub(super) struct SecondText {
    /// Seconds since 1970.
    latest: Option<u64>,
    /// `2026-11-21T19:41:28.`
    text: [u8; 20],
}

impl SecondText {
    /// Appends `time`.
    pub(super) fn put(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since_epoch = since_epoch(time);
        if self.latest != Some(since_epoch.as_secs()) {
            self.latest = Some(since_epoch.as_secs());
            // What does not fit, which are the milliseconds, is cut off.
            let _ = write!(&mut self.text[..], "{}", rfc3339(time));
        }
        out.extend_from_slice(&self.text);
        // Below 1000.
        put_three_digits(since_epoch.subsec_millis() as u16, out);
        out.push(b'Z');
    }
}

/// `21/Nov/2026:19:41:28 +0000`, as web servers have written it since NCSA's.
pub(super) struct CommonLog(pub(super) SystemTime);

impl fmt::Display for CommonLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The calendar is humantime's; its fields stand at fixed places.
        let mut buffer = [0; 24];
        write!(&mut buffer[..], "{}", rfc3339(self.0)).map_err(|_| fmt::Error)?;
        let text = std::str::from_utf8(&buffer).map_err(|_| fmt::Error)?;
        let month = text[5..7].parse().ok().and_then(|month: usize| MONTHS.get(month.wrapping_sub(1)));
        write!(f, "{}/{}/{}:{} +0000", &text[8..10], month.ok_or(fmt::Error)?, &text[..4], &text[11..19])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_of_a_second_changes_nothing(
            times in prop::collection::vec((-3_i64..3, 0_u32..1_000_000_000), 1..20),
            base in prop_oneof![Just(0), Just(LAST_SECOND), Just(1_795_290_088)],
        ) {
            let mut seconds = SecondText::default();
            for (offset, nanos) in times {
                let time = UNIX_EPOCH + Duration::new(base, nanos);
                let by = Duration::from_secs(offset.unsigned_abs());
                let time = if offset < 0 { time - by } else { time + by };
                let mut out = b"before ".to_vec();
                seconds.put(time, &mut out);
                prop_assert_eq!(String::from_utf8(out).unwrap(), format!("before {}", rfc3339(time)));
            }
        }
    }

    fn both(time: SystemTime) -> (String, String) {
        (rfc3339(time).to_string(), CommonLog(time).to_string())
    }

    #[test]
    fn the_two_forms_agree() {
        assert_eq!(
            both(UNIX_EPOCH + Duration::from_millis(1_795_290_088_123)),
            ("2026-11-21T19:41:28.123Z".into(), "21/Nov/2026:19:41:28 +0000".into())
        );
    }

    #[test]
    fn times_that_do_not_fit_are_moved_to_the_nearer_end() {
        assert_eq!(
            both(UNIX_EPOCH - Duration::from_secs(1)),
            ("1970-01-01T00:00:00.000Z".into(), "01/Jan/1970:00:00:00 +0000".into())
        );
        assert_eq!(
            both(UNIX_EPOCH + Duration::from_secs(LAST_SECOND + 1)),
            ("9999-12-31T23:59:59.000Z".into(), "31/Dec/9999:23:59:59 +0000".into())
        );
    }
}
