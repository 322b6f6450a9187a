//! Who has which key and which address: two tables beside the clients, so that none has two owners.

use ipnet::IpNet;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension};

use super::super::{Committed, Record, WriteError, credentials, plan};
use super::rows::{ReadFailure, text};
use crate::client::{ClientId, KeyDigest};
use crate::store::StoreError;

/// A key or an address that a client is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Credential {
    /// A key, by its digest.
    Key([u8; 32]),
    /// An address or a network.
    Network(IpNet),
}

impl ToSql for Credential {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Credential::Key(digest) => ToSqlOutput::Borrowed(ValueRef::Blob(digest)),
            Credential::Network(network) => network.to_string().into(),
        })
    }
}

impl Credential {
    /// The name of the client that has it.
    pub(super) fn owner(&self, connection: &Connection) -> Result<Option<ClientId>, ReadFailure> {
        let sql = match self {
            Credential::Key(_) => "SELECT client_id FROM keys WHERE digest = ?1",
            Credential::Network(_) => "SELECT client_id FROM networks WHERE network = ?1",
        };
        let mut find = connection.prepare_cached(sql)?;
        let owner =
            find.query_row([self], |row| Ok(text(row, 0).and_then(|text| ClientId::parse(text).ok()))).optional()?;
        let senseless = || ReadFailure::Row(StoreError(format!("the owner of the {} makes no sense", self.kind())));
        owner.map(|owner| owner.ok_or_else(senseless)).transpose()
    }

    /// Takes it from whoever has it.
    pub(super) fn release(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = match self {
            Credential::Key(_) => "DELETE FROM keys WHERE digest = ?1",
            Credential::Network(_) => "DELETE FROM networks WHERE network = ?1",
        };
        connection.prepare_cached(sql)?.execute([self])?;
        Ok(())
    }

    /// Takes it from `id`, if that has it.
    pub(super) fn release_of(&self, connection: &Connection, id: &ClientId) -> rusqlite::Result<()> {
        let sql = match self {
            Credential::Key(_) => "DELETE FROM keys WHERE digest = ?1 AND client_id = ?2",
            Credential::Network(_) => "DELETE FROM networks WHERE network = ?1 AND client_id = ?2",
        };
        connection.prepare_cached(sql)?.execute((self, id.as_str()))?;
        Ok(())
    }

    /// Gives it to `id`; false when a client has it already.
    pub(super) fn claim(&self, connection: &Connection, id: &ClientId) -> rusqlite::Result<bool> {
        let sql = match self {
            Credential::Key(_) => "INSERT OR IGNORE INTO keys (digest, client_id) VALUES (?1, ?2)",
            Credential::Network(_) => "INSERT OR IGNORE INTO networks (network, client_id) VALUES (?1, ?2)",
        };
        Ok(connection.prepare_cached(sql)?.execute((self, id.as_str()))? == 1)
    }

    /// The refusal to give to `id` what `other` has.
    pub(super) fn taken(&self, id: &ClientId, other: ClientId) -> WriteError {
        let network = match self {
            Credential::Key(_) => None,
            Credential::Network(network) => Some(*network),
        };
        plan::taken(id, other, network).into()
    }

    fn kind(&self) -> String {
        match self {
            Credential::Key(_) => "API key".to_owned(),
            Credential::Network(network) => format!("address {network}"),
        }
    }
}

/// The credentials of what a client was, and of what it is.
pub(super) fn credentials_of(committed: &Committed) -> (Vec<Credential>, Vec<Credential>) {
    let all = |record: &Option<Record>| -> Vec<Credential> {
        let Some(record) = record else { return Vec::new() };
        let (keys, networks) = credentials(&record.id, &record.profile);
        let keys = keys.iter().map(KeyDigest::as_bytes).copied().map(Credential::Key);
        keys.chain(networks.into_iter().map(Credential::Network)).collect()
    };
    (all(&committed.before), all(&committed.after))
}
