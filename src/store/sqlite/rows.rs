//! Rows to values and back. What is read is checked: a row that makes no sense is an error that names it, never a
//! panic.

use ipnet::IpNet;
use rusqlite::Row;
use rusqlite::types::{Value, ValueRef};

use super::super::{Action, Committed, HistoryEntry, Profile, Record, Saved, SavedOwed, StoreError, micros, plan};
use super::fault::words;
use super::more::More;
use crate::client::{ApiKey, ClientId, KeyDigest, Mode, Quota, Rate};
use crate::limit::{Bucket, Payer, PolicyId, Tokens};

/// Why something could not be read or written.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// SQLite says no.
    Sqlite(rusqlite::Error),
    /// A row makes no sense.
    Row(StoreError),
}

impl From<rusqlite::Error> for ReadFailure {
    fn from(error: rusqlite::Error) -> Self {
        ReadFailure::Sqlite(error)
    }
}

impl ReadFailure {
    /// In words.
    pub(super) fn words(self) -> String {
        match self {
            ReadFailure::Sqlite(error) => words(&error),
            ReadFailure::Row(error) => error.0,
        }
    }
}

/// How many columns a profile has.
pub(super) const PROFILE: usize = 7;

/// The columns of a record in `clients`.
pub(super) const RECORD: &str = "client_id, number, created_at, updated_at, version, \
     capacity, rate, mode, addresses, api_key, note, more";

/// Reads rows. Remembers the last quota, as most clients share a few, and checking one costs more than the rest of the
/// row.
#[derive(Debug, Default)]
pub(super) struct ClientReader {
    quota: Option<(i64, i64, Quota)>,
}

/// A part of a row that makes no sense: the column's name.
type Senseless = &'static str;

impl ClientReader {
    /// The record in a row of [`RECORD`].
    pub(super) fn record(&mut self, row: &Row<'_>) -> Result<Record, ReadFailure> {
        let mut record = || -> Result<Record, Senseless> {
            Ok(Record {
                id: id(row, 0)?,
                number: whole(row, 1).ok_or("number")?,
                created_at: plan::from_micros(integer(row, 2).ok_or("created_at")?),
                updated_at: plan::from_micros(integer(row, 3).ok_or("updated_at")?),
                version: whole(row, 4).ok_or("version")?,
                profile: self.profile(row, 5)?,
            })
        };
        record().map_err(|column| senseless("clients", row, column))
    }

    /// The profile in the columns from `first` on.
    fn profile(&mut self, row: &Row<'_>, first: usize) -> Result<Profile, Senseless> {
        let addresses = text(row, first + 3).ok_or("addresses")?;
        let more = match row.get_ref(first + 6) {
            Ok(ValueRef::Null) => More::default(),
            _ => text(row, first + 6).and_then(More::read).ok_or("more")?,
        };
        Ok(Profile {
            quota: self.quota(row, first)?,
            plan: more.plan()?,
            candidate: more.candidate()?,
            max_concurrent: more.max_concurrent,
            policies: more.policies()?,
            mode: text(row, first + 2).and_then(mode_named).ok_or("mode")?,
            addresses: addresses
                .split_terminator(' ')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map_err(|_| "addresses")?,
            api_keys: {
                let plain = match row.get_ref(first + 4) {
                    Ok(ValueRef::Null) => None,
                    Ok(ValueRef::Blob(bytes)) => Some(KeyDigest::from_bytes(bytes.try_into().map_err(|_| "api_key")?)),
                    _ => return Err("api_key"),
                };
                plain.map(ApiKey::primary).into_iter().chain(more.keys()?).collect()
            },
            note: text(row, first + 5).ok_or("note")?.to_owned(),
        })
    }

    /// The quota in two columns.
    fn quota(&mut self, row: &Row<'_>, first: usize) -> Result<Quota, Senseless> {
        let (capacity, rate) = (integer(row, first).ok_or("capacity")?, integer(row, first + 1).ok_or("rate")?);
        if let Some((known, at, quota)) = self.quota
            && (known, at) == (capacity, rate)
        {
            return Ok(quota);
        }
        let nanos = u64::try_from(rate).ok().and_then(Rate::from_nanos_per_sec).ok_or("rate")?;
        let quota = Quota::from_parts(u64::try_from(capacity).unwrap_or(0), nanos).map_err(|_| "capacity")?;
        self.quota = Some((capacity, rate, quota));
        Ok(quota)
    }

    /// The entry in a row of [`HISTORY`].
    pub(super) fn entry(&mut self, row: &Row<'_>) -> Result<HistoryEntry, ReadFailure> {
        let mut entry = || -> Result<HistoryEntry, Senseless> {
            Ok(HistoryEntry {
                version: whole(row, 2).ok_or("version")?,
                at: plan::from_micros(integer(row, 3).ok_or("changed_at")?),
                by: text(row, 4).ok_or("actor")?.to_owned(),
                action: text(row, 5).and_then(action_named).ok_or("action")?,
                before: self.optional(row, BEFORE)?,
                after: self.optional(row, AFTER)?,
            })
        };
        entry().map_err(|column| senseless("history", row, column))
    }

    /// The same, with the client's name.
    pub(super) fn named_entry(&mut self, row: &Row<'_>) -> Result<(ClientId, HistoryEntry), ReadFailure> {
        let id = id(row, 1).map_err(|column| senseless("history", row, column))?;
        Ok((id, self.entry(row)?))
    }

    /// The change that a row of [`HISTORY`] records.
    pub(super) fn committed(&mut self, row: &Row<'_>) -> Result<Committed, ReadFailure> {
        let HistoryEntry { version, at, action, before, after, .. } = self.entry(row)?;
        let records = || -> Result<Committed, Senseless> {
            let id = id(row, 1)?;
            let number = whole(row, 6).ok_or("number")?;
            let created_at = plan::from_micros(integer(row, 7).ok_or("created_at")?);
            let before = match before {
                None => None,
                Some(profile) => Some(Record {
                    number,
                    id: id.clone(),
                    profile,
                    created_at,
                    updated_at: plan::from_micros(integer(row, 8).ok_or("before_updated_at")?),
                    version: version.saturating_sub(1),
                }),
            };
            let after = after.map(|profile| Record { number, id, profile, created_at, updated_at: at, version });
            Ok(Committed { before, after, action: Some(action) })
        };
        records().map_err(|column| senseless("history", row, column))
    }

    /// The profile from `first` on, or none where there is none.
    fn optional(&mut self, row: &Row<'_>, first: usize) -> Result<Option<Profile>, Senseless> {
        match row.get_ref(first) {
            Ok(ValueRef::Null) => Ok(None),
            _ => self.profile(row, first).map(Some),
        }
    }

    /// The bucket in a row of [`BUCKET`], with its policy behind that.
    pub(super) fn bucket(&mut self, row: &Row<'_>) -> Result<Saved, ReadFailure> {
        let mut bucket = || -> Result<Saved, Senseless> {
            let tokens = integer(row, 2).and_then(|tokens| u32::try_from(tokens).ok()).ok_or("tokens")?;
            let fraction = whole(row, 3).ok_or("fraction")?;
            let at = integer(row, 4).ok_or("at")?.cast_unsigned();
            Ok(Saved {
                payer: payer(row)?,
                bucket: Bucket::resume(Tokens::from_parts(tokens, fraction), at),
                quota: self.quota(row, 5)?,
            })
        };
        bucket().map_err(|column| senseless("buckets", row, column))
    }

    /// What is owed in a row that has its columns where [`BUCKET`] has them.
    pub(super) fn owed(&mut self, row: &Row<'_>) -> Result<SavedOwed, ReadFailure> {
        let mut owed = || -> Result<SavedOwed, Senseless> {
            let tokens = integer(row, 2).ok_or("tokens")?.cast_unsigned();
            Ok(SavedOwed { payer: payer(row)?, tokens, quota: self.quota(row, 5)? })
        };
        owed().map_err(|column| senseless("fleet_owed", row, column))
    }
}

/// Who pays in a row of [`BUCKET`] with its policy behind that.
fn payer(row: &Row<'_>) -> Result<Payer, Senseless> {
    let kind = integer(row, 0).and_then(|kind| u8::try_from(kind).ok()).ok_or("kind")?;
    let payload = integer(row, 1).ok_or("payload")?.cast_unsigned();
    match integer(row, 7).map(|policy| PolicyId::from_bits(policy.cast_unsigned())) {
        None => Payer::from_parts(kind, payload),
        Some(policy) => Payer::from_parts_within(policy.ok_or("policy")?, kind, payload),
    }
    .ok_or("payload")
}

/// The columns of a change in `history`.
pub(super) const HISTORY: &str = "sequence, client_id, version, changed_at, actor, action, number, created_at, \
     before_updated_at, before_capacity, before_rate, before_mode, before_addresses, before_api_key, before_note, before_more, \
     after_capacity, after_rate, after_mode, after_addresses, after_api_key, after_note, \
     after_more";
/// Where the profile before the change begins in [`HISTORY`].
const BEFORE: usize = 9;
/// Where the profile after it begins.
const AFTER: usize = BEFORE + PROFILE;

/// The columns of a bucket.
pub(super) const BUCKET: &str = "kind, payload, tokens, fraction, at, capacity, rate";

/// The values of a profile's columns; all null when there is none.
pub(super) fn profile(profile: Option<&Profile>) -> [Value; PROFILE] {
    let Some(profile) = profile else { return [const { Value::Null }; PROFILE] };
    let addresses: Vec<_> = profile.addresses.iter().map(IpNet::to_string).collect();
    let plain = profile.api_keys.iter().find(|key| key.is_plain());
    let [capacity, rate] = quota(profile.quota);
    [
        Value::Integer(capacity),
        Value::Integer(rate),
        Value::Text(mode_name(profile.mode).to_owned()),
        Value::Text(addresses.join(" ")),
        plain.map_or(Value::Null, |key| Value::Blob(key.digest.as_bytes().to_vec())),
        Value::Text(profile.note.clone()),
        More::of(profile).written().map_or(Value::Null, Value::Text),
    ]
}

/// The values of a quota's columns.
pub(super) fn quota(quota: Quota) -> [i64; 2] {
    [i64::from(quota.capacity().get()), signed(quota.rate().nanos_per_sec())]
}

/// The values of a record's columns.
pub(super) fn record(record: &Record) -> [Value; 5 + PROFILE] {
    let [capacity, rate, mode, addresses, api_key, note, more] = profile(Some(&record.profile));
    [
        Value::Text(record.id.as_str().to_owned()),
        Value::Integer(signed(record.number)),
        Value::Integer(micros(record.created_at)),
        Value::Integer(micros(record.updated_at)),
        Value::Integer(signed(record.version)),
        capacity,
        rate,
        mode,
        addresses,
        api_key,
        note,
        more,
    ]
}

/// A count as SQLite keeps it. Counts never come near the bound.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Limit => "limit",
        Mode::Unlimited => "unlimited",
        Mode::Blocked => "blocked",
    }
}

fn mode_named(name: &str) -> Option<Mode> {
    [Mode::Limit, Mode::Unlimited, Mode::Blocked].into_iter().find(|mode| mode_name(*mode) == name)
}

fn action_named(name: &str) -> Option<Action> {
    let actions = [Action::Create, Action::Update, Action::Delete, Action::Rollback];
    actions.into_iter().find(|action| action.name() == name)
}

fn integer(row: &Row<'_>, column: usize) -> Option<i64> {
    row.get_ref(column).ok()?.as_i64().ok()
}

fn whole(row: &Row<'_>, column: usize) -> Option<u64> {
    integer(row, column).and_then(|value| u64::try_from(value).ok())
}

/// The text in a column, without a copy.
pub(super) fn text<'row>(row: &'row Row<'_>, column: usize) -> Option<&'row str> {
    row.get_ref(column).ok()?.as_str().ok()
}

fn id(row: &Row<'_>, column: usize) -> Result<ClientId, Senseless> {
    text(row, column).and_then(|text| ClientId::parse(text).ok()).ok_or("client_id")
}

/// The error for a row of `table` whose `column` makes no sense. The row is named by its first two columns.
fn senseless(table: &str, row: &Row<'_>, column: &str) -> ReadFailure {
    let shown = |at: usize| match row.get_ref(at) {
        Ok(ValueRef::Integer(value)) => value.to_string(),
        Ok(ValueRef::Text(text)) => format!("{:?}", String::from_utf8_lossy(text)),
        _ => "?".to_owned(),
    };
    let (first, second) = (shown(0), shown(1));
    ReadFailure::Row(StoreError(format!(
        "the row ({first}, {second}, …) of table {table} makes no sense in column {column}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_reads_back() {
        for typed in
            [1e-6, 0.7, 1.0 / 3.0, 4_194_304.123_456_78, 8_000_000.000_000_01, 12_345_678.9, 999_999_999.9, 1e9]
        {
            let rate = Rate::per_sec(typed).unwrap();
            assert_eq!(Rate::from_nanos_per_sec(rate.nanos_per_sec()), Some(rate), "{typed}");
        }
        assert_eq!((Rate::from_nanos_per_sec(1), Rate::from_nanos_per_sec(u64::MAX)), (None, None));
    }
}
