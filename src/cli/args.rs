//! What may be typed.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;

use super::backup::BackupArgs;
use super::clients::ClientsArgs;
use super::endpoint::EndpointArgs;
use super::environment::{list, one, token_to_ask_for};
use super::failure::Failure;
use super::fleet::FleetArgs;
use super::top::TopArgs;
use crate::config::{BackendOverride, Overrides, parse_admin, parse_database, parse_fleet, parse_listen};
use crate::process::ListenAddress;
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
    /// Replace the running proxy by this program and its configuration, without losing a request
    ///
    /// Starts a new process in the background with the same flags as `run`, has the running one hand over to it, and
    /// waits until the new one has served for 5 s. The running process is the one that holds pingora.pid_file. On
    /// failure the old one goes on serving, and the exit code is 1, or 2 when the configuration is wrong.
    #[command(mut_arg("daemon", |flag| flag.hide(true)), mut_arg("upgrade", |flag| flag.hide(true)))]
    Upgrade(RunArgs),
    /// Check a configuration file: print one line and exit 0, or print every problem and exit 2
    Check {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        conf: PathBuf,
    },
    /// List and edit clients, over the admin API of a running proxy
    Clients(ClientsArgs),
    /// Bring a stopped node with clients of its own into a fleet
    Fleet(FleetArgs),
    /// Copy the database of clients and buckets into a file, while the proxy runs
    ///
    /// The copy is of one moment, whatever is written meanwhile; the file gets the mode 0600 and its name once it is whole, and
    /// nothing is overwritten.
    Backup(BackupArgs),
    /// Show live in a terminal what a running proxy does: requests, backends, who asks most and is limited most
    ///
    /// Once a second, over the admin API. Tab or the arrows left and right turn to the next list, up and down scroll it, q, Esc
    /// and Ctrl-C quit.
    Top(TopArgs),
    /// Exit 0 when a running proxy is ready, and 1 when it is not
    Healthcheck(EndpointArgs),
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

#[derive(Debug, Default, ClapArgs)]
pub(super) struct RunArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(super) conf: Option<PathBuf>,
    /// Run in the background: the command returns once the proxy accepts connections
    #[arg(short, long, overrides_with = "daemon")]
    pub(super) daemon: bool,
    /// Take over from the running process, which hands over on SIGQUIT (`tollgate upgrade` does both)
    #[arg(short, long, overrides_with = "upgrade")]
    pub(super) upgrade: bool,
    /// Check the configuration and exit
    #[arg(short, long)]
    pub(super) test: bool,
    /// An address to listen on, in place of the file's listeners; may be repeated [env: TOLLGATE_LISTEN]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', value_parser = parse_listen)]
    pub(super) listen: Vec<SocketAddr>,
    /// A backend of a pool named `default`, in place of the file's upstreams; may be repeated [env: TOLLGATE_BACKENDS]
    #[arg(long, value_name = "ADDR[=WEIGHT]", value_delimiter = ',')]
    pub(super) backend: Vec<BackendOverride>,
    #[arg(long, value_name = "NAME", help = balance_help())]
    pub(super) balance: Option<Balance>,
    /// Where the admin API listens [default: 127.0.0.1:9901] [env: TOLLGATE_ADMIN]
    #[arg(long, value_name = "ADDR", value_parser = parse_admin)]
    pub(super) admin: Option<ListenAddress>,
    /// The SQLite file of clients and buckets [default: data/tollgate.db] [env: TOLLGATE_DATABASE]
    #[arg(long, value_name = "PATH", value_parser = parse_database)]
    pub(super) database: Option<PathBuf>,
}

fn balance_help() -> String {
    let names: Vec<_> = Balance::names().collect();
    let (last, first) = names.split_last().unwrap_or((&"", &[]));
    format!("The balancing rule of every pool: {} or {last} [env: TOLLGATE_BALANCE]", first.join(", "))
}

impl RunArgs {
    /// With this file, and nothing else typed.
    pub(super) fn of_file(conf: PathBuf) -> Self {
        RunArgs { conf: Some(conf), ..RunArgs::default() }
    }

    /// What flags and the environment say instead of the file; a flag counts before its variable.
    ///
    /// # Errors
    /// Names the variable and what it must be.
    pub(super) fn overrides(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Overrides, Failure> {
        let mut overrides = Overrides {
            listen: self.listen.clone(),
            backends: self.backend.clone(),
            balance: self.balance,
            admin: self.admin.clone(),
            admin_token: token_to_ask_for(&variable)?,
            database: self.database.clone(),
            fleet: one("TOLLGATE_FLEET", &variable, parse_fleet)?,
            directory: None,
            variables: Vec::new(),
        };
        if overrides.listen.is_empty() {
            overrides.listen = list("TOLLGATE_LISTEN", &variable, parse_listen)?;
            overrides.variables.push("TOLLGATE_LISTEN");
        }
        if overrides.backends.is_empty() {
            overrides.backends = list("TOLLGATE_BACKENDS", &variable, str::parse)?;
            overrides.variables.push("TOLLGATE_BACKENDS");
        }
        if overrides.balance.is_none() {
            overrides.balance = list("TOLLGATE_BALANCE", &variable, str::parse)?.pop();
        }
        if overrides.admin.is_none() {
            overrides.admin = one("TOLLGATE_ADMIN", &variable, parse_admin)?;
            overrides.variables.push("TOLLGATE_ADMIN");
        }
        if overrides.database.is_none() {
            overrides.database = one("TOLLGATE_DATABASE", &variable, parse_database)?;
        }
        Ok(overrides)
    }
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
        assert_eq!((bare.run.backend.len(), bare.run.balance), (2, "random".parse().ok()));
    }

    #[test]
    fn flags_count_before_variables_and_empty_ones_are_none() {
        let bare = Args::try_parse_from(["tollgate"]).unwrap().run;
        let variables = |name: &str| {
            Some(OsString::from(match name {
                "TOLLGATE_LISTEN" => "127.0.0.1:1, 127.0.0.1:2",
                "TOLLGATE_BACKENDS" => " ",
                "TOLLGATE_BALANCE" => "random",
                "TOLLGATE_ADMIN" => "127.0.0.1:4",
                "TOLLGATE_ADMIN_TOKEN" => " 0123456789abcdef\n",
                "TOLLGATE_DATABASE" => "variable.db",
                "TOLLGATE_FLEET" => "redis://edge@10.0.0.5",
                name => panic!("{name} is asked for"),
            }))
        };
        let overrides = bare.overrides(variables).unwrap();
        assert_eq!(
            (overrides.listen.len(), overrides.backends.len(), overrides.balance),
            (2, 0, "random".parse().ok())
        );
        assert_eq!(
            (overrides.admin, overrides.database),
            (Some("127.0.0.1:4".parse().unwrap()), Some("variable.db".into()))
        );
        assert_eq!(overrides.fleet.map(|store| store.to_string()).as_deref(), Some("redis://edge@10.0.0.5:6379"));
        assert_eq!(overrides.admin_token.map(|token| token.secret).as_deref(), Some("0123456789abcdef"));
        let named = ["TOLLGATE_LISTEN", "TOLLGATE_BACKENDS", "TOLLGATE_ADMIN"];
        assert_eq!(overrides.variables, named);
        let flags = ["--listen", "127.0.0.1:3", "--balance", "round_robin", "--admin", "[::1]:5", "--database", "1"];
        let flags = Args::try_parse_from(["tollgate"].into_iter().chain(flags)).unwrap();
        let overrides = flags.run.overrides(variables).unwrap();
        assert_eq!((overrides.listen[0].port(), overrides.balance), (3, "round_robin".parse().ok()));
        assert_eq!((overrides.admin.unwrap().to_string().as_str(), overrides.database), ("[::1]:5", Some("1".into())));
        let wrong = bare.overrides(|name| (name == "TOLLGATE_BALANCE").then(|| "fastest".into()));
        assert!(wrong.unwrap_err().to_string().starts_with("TOLLGATE_BALANCE: must be round_robin"));
        let wrong = bare.overrides(|name| (name == "TOLLGATE_ADMIN_TOKEN").then(|| "hunter2".into()));
        let wrong = wrong.unwrap_err().to_string();
        assert!(wrong.starts_with("TOLLGATE_ADMIN_TOKEN: a token must be") && !wrong.contains("hunter2"), "{wrong}");
    }

    #[test]
    fn flags_of_one_name_belong_to_their_command() {
        for line in [
            "clients --admin edge.internal:1 -c a.yaml get user1 --json",
            "clients get user1 --admin edge.internal:1 --conf a.yaml",
            "clients set 10.0.0.0/8 --rate 0.5 --clear-key --clear-addresses --note ''",
            "clients add a --capacity 1 --rate 1e3 --address ::1,10.0.0.1 --address 10.0.0.2 --api-key -",
            "clients apply - --dry-run --prune --token-file t",
            "healthcheck --admin localhost:1 -c a.yaml",
        ] {
            let args = Args::try_parse_from(["tollgate"].into_iter().chain(line.split(' ')));
            assert!(matches!(args.unwrap().command, Some(Command::Clients(_) | Command::Healthcheck(_))), "{line}");
        }
        for line in [
            "clients",
            "clients get",
            "clients get ''",
            "clients get a=b",
            "clients add a --capacity 1",
            "clients add a --capacity 1.5 --rate 1",
            "clients add a --capacity -1 --rate 1",
            "clients add a --capacity 1 --rate NaN",
            "clients add a --capacity 1 --rate 1e400",
            "clients add a --capacity 1 --rate 1 --clear-key",
            "clients set a --mode off",
            "clients set a --api-key k --generate-key",
            "clients set a --api-key k --clear-key",
            "clients set a --generate-key --clear-key",
            "clients set a --address ::1 --clear-addresses",
            "clients list --admin nowhere",
            "--admin 127.0.0.1:1 clients list",
        ] {
            assert!(Args::try_parse_from(["tollgate"].into_iter().chain(line.split(' '))).is_err(), "{line}");
        }
    }

    #[test]
    fn forgetting_a_key_is_told_to_leave_the_name_as_one() {
        let mut command = Args::command();
        let set = ["clients", "set"].iter().fold(&mut command, |at, name| at.find_subcommand_mut(name).unwrap());
        let flag = set.get_arguments().find(|flag| flag.get_long() == Some("clear-key")).unwrap();
        let help = flag.get_help().unwrap().to_string();
        assert!(help.contains("known by its name") && help.contains("no secret"), "{help}");
    }

    #[test]
    fn what_belongs_to_nothing_is_refused() {
        for line in [
            "run --listen nowhere",
            "run --backend a=0",
            "run --balance fastest",
            "check --upgrade",
            "upgrade -d extra",
            "serve",
            "echo",
            "run --admin here:1",
            "run --database d/",
        ] {
            assert!(Args::try_parse_from(["tollgate"].into_iter().chain(line.split(' '))).is_err(), "{line}");
        }
    }
}
