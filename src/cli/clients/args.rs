//! What may be typed behind `tollgate clients`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::endpoint::EndpointArgs;
use crate::client::ClientId;

#[derive(Debug, Args)]
pub(in crate::cli) struct ClientsArgs {
    #[command(flatten)]
    pub(super) endpoint: EndpointArgs,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) action: ClientsCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientsCommand {
    /// List all clients
    List {
        /// Only those whose name or note holds this text
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Show one client with its tokens
    Get {
        #[command(flatten)]
        name: Name,
    },
    /// Add a client
    Add {
        #[command(flatten)]
        name: Name,
        /// The most requests at once, after a rest: 1 to 1000000000
        #[arg(long, value_name = "N", value_parser = whole)]
        capacity: u64,
        /// Requests a second in the long run: 0.000001 to 1000000000
        #[arg(long, value_name = "R", value_parser = number)]
        rate: serde_json::Number,
        #[command(flatten)]
        fields: ClientFlags,
    },
    /// Change a client: only what is given
    Set {
        #[command(flatten)]
        name: Name,
        /// The most requests at once, after a rest: 1 to 1000000000
        #[arg(long, value_name = "N", value_parser = whole)]
        capacity: Option<u64>,
        /// Requests a second in the long run: 0.000001 to 1000000000
        #[arg(long, value_name = "R", value_parser = number)]
        rate: Option<serde_json::Number>,
        #[command(flatten)]
        fields: ClientFlags,
        /// Forget its addresses
        #[arg(long, conflicts_with = "address")]
        clear_addresses: bool,
        /// Forget its API key; without addresses it is then known by its name, sent as a key, which is no secret
        #[arg(long, conflicts_with_all = ["api_key", "generate_key"])]
        clear_key: bool,
    },
    /// Remove a client
    Remove {
        #[command(flatten)]
        name: Name,
    },
    /// Fill a client's bucket
    Reset {
        #[command(flatten)]
        name: Name,
    },
    /// Make the clients what a file says, all or nothing; prints the difference
    Apply {
        /// A JSON array or one JSON object a line, as `export` prints them; `-` is standard input
        file: PathBuf,
        /// Only print the difference
        #[arg(long)]
        dry_run: bool,
        /// Remove clients that are not in the file
        #[arg(long)]
        prune: bool,
    },
    /// Print all clients, one JSON object a line, as `apply` takes them
    Export,
}

/// Which client.
#[derive(Debug, Args)]
pub(super) struct Name {
    /// The client's name: 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ / -
    #[arg(value_parser = ClientId::parse)]
    pub(super) id: ClientId,
}

/// What a client may have beside its quota.
#[derive(Debug, Default, Args)]
pub(super) struct ClientFlags {
    /// What is done with its requests
    #[arg(long, value_parser = ["limit", "unlimited", "blocked"])]
    pub(super) mode: Option<String>,
    /// An address or a network that it is known by, in place of any it had; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(super) address: Vec<String>,
    /// The API key that it is known by; `-` reads it from standard input, where no list of processes shows it
    #[arg(long, value_name = "KEY")]
    pub(super) api_key: Option<String>,
    /// Make an API key and show it, once
    #[arg(long, conflicts_with = "api_key")]
    pub(super) generate_key: bool,
    /// A note for people
    #[arg(long, value_name = "TEXT")]
    pub(super) note: Option<String>,
}

fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "must be a whole number, such as 100".to_owned())
}

/// Reads a number as JSON has it.
fn number(text: &str) -> Result<serde_json::Number, String> {
    let number = text.parse().ok().and_then(serde_json::Number::from_f64);
    number.ok_or_else(|| "must be a number, such as 10 or 0.5".to_owned())
}
