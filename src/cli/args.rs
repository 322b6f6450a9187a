//! What may be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{BackendOverride, parse_listen};
use crate::upstream::Balance;

/// An HTTP edge proxy that balances load over health-checked backends.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

const AFTER_HELP: &str = "Without a command, tollgate runs the proxy.

Flags beat environment variables, which beat the file, which beats the defaults.
TOLLGATE_LOG (or RUST_LOG) sets which events are logged, for example `warn` or `tollgate=debug`.

Exit codes: 0 stopped as asked, 1 failed while running, 2 wrong usage or configuration.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the proxy
    Run(RunArgs),
    /// Check a configuration file: print one line and exit 0, or print every problem and exit 2
    Check {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        conf: PathBuf,
    },
    /// Run the proxy on 127.0.0.1:8080 over three built-in sample backends, and print what to try
    Demo,
    /// Run a sample backend that answers with what it saw of each request
    Echo {
        /// The address to listen on
        #[arg(long, value_name = "ADDR")]
        listen: SocketAddr,
        /// What it calls itself, in its answers and in the header X-Backend [default: its address]
        #[arg(long)]
        name: Option<String>,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print a script that completes tollgate's arguments in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct RunArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(super) conf: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(short, long)]
    pub(super) test: bool,
    /// An address to listen on, in place of the file's listeners; may be repeated
    #[arg(long, value_name = "ADDR", env = "TOLLGATE_LISTEN", value_delimiter = ',', value_parser = parse_listen)]
    pub(super) listen: Vec<SocketAddr>,
    /// A backend of a pool named `default`, in place of the file's upstreams; may be repeated
    #[arg(long, value_name = "ADDR[=WEIGHT]", env = "TOLLGATE_BACKENDS", value_delimiter = ',')]
    pub(super) backend: Vec<BackendOverride>,
    /// The balancing rule of every pool: round_robin, random or least_connections
    #[arg(long, value_name = "NAME", env = "TOLLGATE_BALANCE")]
    pub(super) balance: Option<Balance>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn without_a_command_the_flags_are_those_of_run() {
        let flags = ["--listen", "127.0.0.1:8080", "--backend", "127.0.0.1:9001=5,app:80", "--balance", "random"];
        let bare = Args::try_parse_from(["tollgate"].into_iter().chain(flags)).unwrap();
        let named = Args::try_parse_from(["tollgate", "run"].into_iter().chain(flags)).unwrap();
        let Some(Command::Run(named)) = named.command else { panic!("not run") };
        assert_eq!((&bare.run.listen, &bare.run.backend), (&named.listen, &named.backend));
        assert_eq!((bare.run.backend.len(), bare.run.balance), (2, Some(Balance::Random)));
    }

    #[test]
    fn what_belongs_to_nothing_is_refused() {
        for line in ["run --listen nowhere", "run --backend a=0", "run --balance fastest", "--upgrade", "serve", "echo"]
        {
            assert!(Args::try_parse_from(["tollgate"].into_iter().chain(line.split(' '))).is_err(), "{line}");
        }
    }
}
