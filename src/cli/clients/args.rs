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
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole, required_unless_present = "plan")]
        capacity: Option<u64>,
        /// Requests a second in the long run: 0.000001 to 1000000000
        #[arg(long, value_name = "R", allow_negative_numbers = true, value_parser = number, required_unless_present = "plan")]
        rate: Option<serde_json::Number>,
        #[command(flatten)]
        fields: ClientFlags,
    },
    /// Change a client: only what is given
    Set {
        #[command(flatten)]
        name: Name,
        /// The most requests at once, after a rest: 1 to 1000000000
        #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole)]
        capacity: Option<u64>,
        /// Requests a second in the long run: 0.000001 to 1000000000
        #[arg(long, value_name = "R", allow_negative_numbers = true, value_parser = number)]
        rate: Option<serde_json::Number>,
        #[command(flatten)]
        fields: ClientFlags,
        #[command(flatten)]
        cleared: ClearFlags,
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
    /// Add tokens to a client's bucket once, above its capacity if need be
    Grant {
        #[command(flatten)]
        name: Name,
        /// How many: 1 to 1000000000
        #[arg(allow_negative_numbers = true, value_parser = whole)]
        tokens: u64,
    },
    /// Put the limit on trial of a client in force
    Promote {
        #[command(flatten)]
        name: Name,
    },
    /// Show the smallest limit that would have refused nothing of what was recorded of a client
    Recommend {
        #[command(flatten)]
        name: Name,
        /// Of how long: up to 1h
        #[arg(long, value_name = "DURATION")]
        window: Option<String>,
    },
    /// Make a further API key for a client, and show it, once
    AddKey {
        #[command(flatten)]
        name: Name,
        /// From when on it is nobody's, as in 2027-01-31T00:00:00Z
        #[arg(long, value_name = "MOMENT")]
        expires_at: Option<String>,
    },
    /// Take an API key from a client
    RemoveKey {
        #[command(flatten)]
        name: Name,
        /// The key's id, which `get` shows among `api_keys`
        key_id: String,
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
    /// A plan of the configuration, whose limit it has
    #[arg(long, value_name = "NAME")]
    pub(super) plan: Option<String>,
    /// How many of its requests may run at once: 1 to 1000000
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole)]
    pub(super) max_concurrent: Option<u64>,
    /// A limit on trial, capacity and rate, as in 100/10: counted, never refused
    #[arg(long, value_name = "N/R", allow_hyphen_values = true, value_parser = OwnQuota::parse)]
    pub(super) candidate: Option<OwnQuota>,
    /// What it may spend of its own in a policy, as in writes=50/5; `writes=` takes that away; may be repeated
    #[arg(long, value_name = "NAME=N/R", value_parser = own_policy)]
    pub(super) policy: Vec<(String, Option<OwnQuota>)>,
}

/// What a client is to have no more.
#[derive(Debug, Args)]
pub(super) struct ClearFlags {
    /// Forget its addresses
    #[arg(long, conflicts_with = "address")]
    clear_addresses: bool,
    /// Forget its API key; without addresses it is then known by its name, sent as a key, which is no secret
    #[arg(long, conflicts_with_all = ["api_key", "generate_key"])]
    clear_key: bool,
    /// Take it out of its plan, whose limit it keeps as its own
    #[arg(long, conflicts_with = "plan")]
    clear_plan: bool,
    /// Forget the limit on trial
    #[arg(long, conflicts_with = "candidate")]
    clear_candidate: bool,
    /// Forget its own bound on requests that run at once
    #[arg(long, conflicts_with = "max_concurrent")]
    clear_max_concurrent: bool,
}

impl ClearFlags {
    /// The fields that become null.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("addresses", self.clear_addresses),
            ("api_key", self.clear_key),
            ("plan", self.clear_plan),
            ("candidate", self.clear_candidate),
            ("max_concurrent", self.clear_max_concurrent),
        ];
        all.into_iter().filter_map(|(name, is)| is.then_some(name))
    }
}

/// A capacity and a rate. What they may be is for the API to say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OwnQuota {
    pub(super) capacity: u64,
    pub(super) rate: serde_json::Number,
}

impl OwnQuota {
    fn parse(text: &str) -> Result<Self, String> {
        let (capacity, rate) = text.split_once('/').ok_or("must be a capacity and a rate, such as 100/10")?;
        Ok(OwnQuota { capacity: whole(capacity)?, rate: number(rate)? })
    }
}

fn own_policy(text: &str) -> Result<(String, Option<OwnQuota>), String> {
    let (name, quota) = text.split_once('=').ok_or("must be a policy and its limit, such as writes=50/5")?;
    Ok((name.to_owned(), (!quota.is_empty()).then(|| OwnQuota::parse(quota)).transpose()?))
}

fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "must be a whole number, such as 100".to_owned())
}

/// Reads a number as JSON has it.
fn number(text: &str) -> Result<serde_json::Number, String> {
    let number = text.parse().ok().and_then(serde_json::Number::from_f64);
    number.ok_or_else(|| "must be a number, such as 10 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        clients: ClientsArgs,
    }

    #[test]
    fn a_number_below_zero_is_a_number_and_no_flag() {
        for (flag, value) in [("--capacity", "-5"), ("--max-concurrent", "-1"), ("--candidate", "-5/1")] {
            let refused = Typed::try_parse_from(["clients", "set", "a", flag, value]).unwrap_err().to_string();
            assert!(
                refused.contains(&format!("invalid value '{value}'")) && refused.contains("must be a whole"),
                "{refused}"
            );
        }
        // What a rate may be is for the API to say.
        assert!(Typed::try_parse_from(["clients", "set", "a", "--rate", "-0.5"]).is_ok());
    }
}
