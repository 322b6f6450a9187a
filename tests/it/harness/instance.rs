//! A server that is stopped, killed and started again over the same database, on the same addresses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::client::{Body, Client, Request, Response};
use super::ports::free_address;
use super::process::{Finished, Process};
use super::server::command;
use super::{PATIENCE, eventually};

/// One `tollgate run`, again and again.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) process: Process,
    file: PathBuf,
    /// The part of the file that names addresses and the database.
    head: String,
    /// The directory, when it is this one's own.
    _dir: Option<TempDir>,
}

impl Instance {
    /// Starts over a fresh database, in front of `backend`. `more` are further lines of the file.
    #[track_caller]
    pub(crate) fn start(backend: SocketAddr, more: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let database = dir.path().join("data/tollgate.db");
        let mut instance = Self::over(&database, backend, more);
        instance._dir = Some(dir);
        instance
    }

    /// Starts over this database. The configuration stands beside it.
    #[track_caller]
    pub(crate) fn over(database: &Path, backend: SocketAddr, more: &str) -> Self {
        let mut instance = Self::launch(database, backend, more);
        instance.wait_until_it_serves();
        instance
    }

    /// The same, without waiting for anything.
    #[track_caller]
    pub(crate) fn launch(database: &Path, backend: SocketAddr, more: &str) -> Self {
        let (address, admin) = (free_address(), free_address());
        let file = std::env::temp_dir().join(format!("tollgate-{}-{}.yaml", std::process::id(), address.port()));
        let database = database.display();
        let head =
            format!("listeners: [{{address: \"{address}\"}}]\nadmin: {{address: \"{admin}\"}}\ndatabase: {database}\n");
        let upstreams = format!(
            "upstreams:\n  - {{name: app, backends: [{{address: \"{backend}\"}}], health_check: {{type: none}}}}"
        );
        std::fs::write(&file, format!("{head}access_log: {{path: null}}\n{upstreams}\n{more}\n")).unwrap();
        let process = run(command(), &file);
        Instance { address, admin, process, file, head, _dir: None }
    }

    /// Its configuration file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The part of the file that names addresses and the database.
    pub(crate) fn head(&self) -> &str {
        &self.head
    }

    /// Writes the file anew: the addresses and the database as they are, and then `rest`.
    pub(crate) fn configure(&self, rest: &str) {
        std::fs::write(&self.file, format!("{}{rest}\n", self.head)).unwrap();
    }

    /// Starts it anew with a listener that takes HTTP/2 by prior knowledge, too.
    #[track_caller]
    pub(crate) fn take_h2c(&mut self) {
        self.stop();
        let with = |text: &str| text.replacen("\"}]", "\", h2c: true}]", 1);
        self.head = with(&self.head);
        let whole = std::fs::read_to_string(&self.file).unwrap();
        std::fs::write(&self.file, with(&whole)).unwrap();
        self.start_again();
    }

    #[track_caller]
    fn wait_until_it_serves(&mut self) {
        let (admin, process) = (self.admin, &mut self.process);
        let serves = eventually(PATIENCE, || !process.is_running() || is_ready(admin));
        assert!(serves && process.is_running(), "it does not serve: {}", process.err.text());
    }

    /// Starts it again after it has ended, and waits until it serves.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.start_again_as(command());
    }

    /// The same with another command.
    #[track_caller]
    pub(crate) fn start_again_as(&mut self, command: Command) {
        self.process = run(command, &self.file);
        self.wait_until_it_serves();
    }

    /// Has a successor take over, with the socket that its file names as `pingora.upgrade_sock`.
    ///
    /// In the foreground, unlike a daemon: that would be a session of its own, which a kernel with autogroups runs
    /// seldom beside a test that is all others on a busy machine.
    #[track_caller]
    pub(crate) fn upgrade(&mut self, socket: &Path) {
        let finished = self.succeed(socket).wait_exit(PATIENCE);
        assert_eq!(finished.code, Some(0), "{finished:?}\n{}", self.process.err.text());
        self.wait_until_it_serves();
    }

    /// The same, but for the end of the old process, which is returned: it may have requests still.
    #[track_caller]
    pub(crate) fn succeed(&mut self, socket: &Path) -> Process {
        let successor = Process::start(command().args(["run", "-u", "-c"]).arg(&self.file));
        assert!(eventually(PATIENCE, || socket.exists()), "{}", successor.err.text());
        self.process.signal("QUIT");
        std::mem::replace(&mut self.process, successor)
    }

    /// Stops it as an operator does.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> Finished {
        self.process.signal("TERM");
        let finished = self.process.wait_exit(PATIENCE);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished
    }

    /// Ends it with no warning.
    #[track_caller]
    pub(crate) fn kill(&mut self) -> Finished {
        self.process.signal("KILL");
        self.process.wait_exit(PATIENCE)
    }

    /// Asks the admin API.
    #[track_caller]
    pub(crate) fn admin(&self, method: &str, target: &str, body: &str) -> Response {
        self.try_admin(method, target, body).unwrap()
    }

    /// The same; an error when there is no answer.
    pub(crate) fn try_admin(&self, method: &str, target: &str, body: &str) -> std::io::Result<Response> {
        ask(&mut Client::try_connect(self.admin)?, method, target, body)
    }

    /// A client's live tokens.
    #[track_caller]
    pub(crate) fn tokens(&self, id: &str) -> f64 {
        let answer = self.admin("GET", &format!("/clients/{id}"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["tokens"].as_f64().unwrap()
    }

    /// Makes a client.
    #[track_caller]
    pub(crate) fn create(&self, id: &str, capacity: u64, rate: f64) -> Value {
        let body = format!(r#"{{"client_id":"{id}","capacity":{capacity},"rate_per_sec":{rate}}}"#);
        let answer = self.admin("POST", "/clients", &body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    /// The status of a request with this key.
    #[track_caller]
    pub(crate) fn call(&self, key: &str) -> u16 {
        let headers = [("X-Api-Key", key)];
        Client::connect(self.address).call(&Request::new("GET", "/").headers(&headers)).unwrap().status
    }

    /// How many of `count` requests with this key are let in.
    #[track_caller]
    pub(crate) fn allowed(&self, key: &str, count: usize) -> usize {
        let mut client = Client::connect(self.address);
        let headers = [("X-Api-Key", key)];
        let request = Request::new("GET", "/").headers(&headers);
        (0..count).filter(|_| client.call_again(&request).unwrap().status == 200).count()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

fn run(mut command: Command, file: &Path) -> Process {
    Process::start(command.args(["run", "-c"]).arg(file))
}

/// Whether the server with its admin API there says that it is ready. Its listeners take connections a little earlier.
pub(crate) fn is_ready(admin: SocketAddr) -> bool {
    let answer = Client::try_connect(admin).and_then(|mut client| ask(&mut client, "GET", "/readyz", ""));
    answer.is_ok_and(|answer| answer.status == 200)
}

/// Sends one request to an admin API over `client`.
pub(crate) fn ask(client: &mut Client, method: &str, target: &str, body: &str) -> std::io::Result<Response> {
    let request = Request::new(method, target).host("localhost");
    client.call(&if body.is_empty() { request } else { request.body(Body::Length(body.as_bytes())) })
}
