//! Real servers for tests: Redis and Valkey, each in a directory of its own, ended when it is dropped.
//!
//! Stands alone, so that the end-to-end tests read the same file.

#![allow(dead_code, unreachable_pub, reason = "each kind of test uses some of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What speaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Debian's `redis-server`.
    Redis,
    /// `valkey-server`: what `VALKEY_SERVER` names, or `make setup-tests` has installed, or the system has.
    Valkey,
}

impl Engine {
    /// Those that are installed.
    pub fn all() -> Vec<Engine> {
        let installed = |engine: &Engine| {
            Command::new(engine.program()).arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success())
        };
        let engines: Vec<Engine> = [Engine::Redis, Engine::Valkey].into_iter().filter(installed).collect();
        assert!(!engines.is_empty(), "neither redis-server nor valkey-server is installed");
        engines
    }

    fn program(self) -> String {
        match self {
            Engine::Redis => "redis-server".to_owned(),
            Engine::Valkey => std::env::var("VALKEY_SERVER").unwrap_or_else(|_| {
                // Where `make setup-tests` puts it.
                let place = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tmp/valkey/valkey-server");
                if Path::new(place).exists() { place } else { "valkey-server" }.to_owned()
            }),
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct StoreServer {
    engine: Engine,
    child: Child,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    dir: tempfile::TempDir,
    args: Vec<String>,
}

impl StoreServer {
    /// Starts one with nothing in it, which saves nothing.
    pub fn start(engine: Engine) -> Self {
        Self::start_with(engine, &["--save", ""])
    }

    /// Starts one with further arguments.
    pub fn start_with(engine: Engine, args: &[&str]) -> Self {
        Self::start_below(engine, args, &std::env::temp_dir())
    }

    fn start_below(engine: Engine, args: &[&str], place: &Path) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        // Another test may take a port that was free a moment ago.
        for _ in 0..20 {
            let (dir, port) = (tempfile::tempdir_in(place).expect("a directory"), free_port());
            let child = spawn(engine, port, dir.path(), &args);
            let mut server = StoreServer { engine, child, port, dir, args: args.clone() };
            if server.answers() {
                return server;
            }
        }
        panic!("no server starts: {args:?}");
    }

    /// Starts a sentinel that watches `main` on that port. In memory: it writes down each step of a failover before it is
    /// taken, and when that takes two seconds, on a disk that others keep busy, it does nothing for half a minute.
    pub fn sentinel(engine: Engine, primary: u16) -> Self {
        let conf = format!(
            "sentinel monitor main 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds main 300\n\
             sentinel failover-timeout main 3000\n"
        );
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        Self::start_below(engine, &["--sentinel", &conf], &place)
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stands still, as a machine that is away.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Goes on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Ends at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts again, on the same port and with what it saved.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.engine, self.port, self.dir.path(), &self.args);
        assert!(self.answers(), "does not start again");
    }

    /// One command in plain text, as a line; the answer as it came.
    pub fn command(&self, line: &str) -> String {
        let said = self.say(line).expect("an answer");
        String::from_utf8_lossy(&said).into_owned()
    }

    fn say(&self, line: &str) -> std::io::Result<Vec<u8>> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(format!("{line}\r\n").as_bytes())?;
        // A sentinel knows no QUIT.
        socket.shutdown(std::net::Shutdown::Write)?;
        let mut said = Vec::new();
        socket.read_to_end(&mut said)?;
        Ok(said)
    }

    /// Whether it is there before it ends, within some seconds.
    fn answers(&mut self) -> bool {
        for _ in 0..1000 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                // Not another one's that has the port.
                return self.child.try_wait().is_ok_and(|ended| ended.is_none());
            }
            if !self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
                return false;
            }
            pause();
        }
        false
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot send {name}");
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// Three primaries of a Cluster, and the ids by which they know each other.
pub fn cluster(engine: Engine) -> (Vec<StoreServer>, Vec<String>) {
    let args = ["--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", "{bus}"];
    let servers: Vec<StoreServer> = (0..3).map(|_| StoreServer::start_with(engine, &args)).collect();
    let line = |said: String, line: usize| said.lines().nth(line).expect("an answer").to_owned();
    let ids = servers.iter().map(|server| line(server.command("CLUSTER MYID"), 1)).collect();
    for (server, slots) in servers.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        server.command(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        let bus = line(server.command("CONFIG GET cluster-port"), 4);
        servers[0].command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", server.port));
    }
    wait("no cluster", || {
        servers.iter().all(|server| {
            let said = server.command("CLUSTER INFO");
            said.contains("cluster_state:ok") && said.contains("cluster_known_nodes:3")
        })
    });
    (servers, ids)
}

/// A replica of the one of these primaries of a Cluster that has that id; all of them know of it.
pub fn cluster_replica(engine: Engine, servers: &[StoreServer], id: &str) -> StoreServer {
    let args = ["--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", "{bus}"];
    let replica = StoreServer::start_with(engine, &args);
    let bus = replica.command("CONFIG GET cluster-port").lines().nth(4).expect("an answer").to_owned();
    servers[0].command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", replica.port));
    wait("the replica is not taken", || replica.command(&format!("CLUSTER REPLICATE {id}")).starts_with("+OK"));
    wait("the replica does not follow", || replica.command("INFO replication").contains("master_link_status:up"));
    let knows = |server: &StoreServer| server.command(&format!("CLUSTER REPLICAS {id}")).contains("slave");
    wait("not all know of the replica", || servers.iter().all(knows));
    replica
}

/// Polls until `there` says so.
pub fn wait(what: &str, mut there: impl FnMut() -> bool) {
    let mut tries = 0;
    while !there() {
        tries += 1;
        assert!(tries < 1500, "{what}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "between two looks at a process, which nothing tells of")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

fn spawn(engine: Engine, port: u16, dir: &Path, args: &[String]) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("a log");
    let mut command = Command::new(engine.program());
    if let [sentinel, conf] = args
        && sentinel == "--sentinel"
    {
        // A sentinel writes into its file.
        let file = dir.join("sentinel.conf");
        if !file.exists() {
            let place = format!("bind 127.0.0.1\nport {port}\ndir {}\n", dir.display());
            std::fs::write(&file, place + conf).expect("a file");
        }
        command.arg(file).arg("--sentinel");
    } else {
        let port = port.to_string();
        command
            .args(["--port", &port, "--bind", "127.0.0.1", "--unixsocket", "", "--daemonize", "no", "--dir"])
            .arg(dir)
            .args(args.iter().map(|arg| arg.replace("{port}", &port).replace("{bus}", &free_port().to_string())));
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("a server")
}
