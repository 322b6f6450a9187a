//! The arguments.

use std::path::PathBuf;

use crate::stop::Fallible;

/// The tables that can be named.
const TABLES: [&str; 5] = ["backends", "clients", "routes", "connections", "start"];

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How often each column is measured.
    pub(crate) rounds: usize,
    /// For how long.
    pub(crate) seconds: u64,
    /// The binary.
    pub(crate) tollgate: PathBuf,
    /// Whether the largest are left out.
    pub(crate) quick: bool,
    /// The tables by name; all when there is none.
    tables: Vec<String>,
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// When one is not known or has no value.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Fallible<Self> {
        let tollgate = PathBuf::from(env!("CARGO_BIN_EXE_tollgate"));
        let mut options = Options { rounds: 5, seconds: 2, tollgate, quick: false, tables: Vec::new() };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--tollgate" => options.tollgate = value()?.into(),
                "--quick" => options.quick = true,
                table if TABLES.contains(&table) => options.tables.push(argument),
                _ => return Err(format!("{argument}: neither an option nor one of {}", TABLES.join(", ")).into()),
            }
        }
        Ok(options)
    }

    /// Whether this table is to be made.
    pub(crate) fn wants(&self, table: &str) -> bool {
        self.tables.is_empty() || self.tables.iter().any(|wanted| wanted == table)
    }
}
