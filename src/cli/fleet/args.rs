//! What may be typed behind `tollgate fleet`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

/// The commands about fleets.
#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct FleetArgs {
    #[command(subcommand)]
    pub(super) action: FleetCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum FleetCommand {
    /// Bring this node, which is stopped and has clients of its own, into a fleet that has others
    ///
    /// Its database is moved aside, to a name that ends on `.before-fleet`, and a new one takes in the fleet's clients.
    ///
    /// Exits with 1 when some of its clients were not added, which are listed: the node is one of the fleet all the same, and the
    /// command can be given again once they are settled.
    Join(JoinArgs),
}

#[derive(Debug, ClapArgs)]
pub(super) struct JoinArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(super) conf: PathBuf,
    #[command(flatten)]
    pub(super) own: OwnClientsArgs,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(super) struct OwnClientsArgs {
    /// Add its clients to the fleet's; those that are in the way of others are listed, and stay out
    #[arg(long)]
    pub(super) import: bool,
    /// Give its clients up, and have the fleet's
    #[arg(long)]
    pub(super) replace: bool,
}
