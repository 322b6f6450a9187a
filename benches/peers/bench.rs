//! One case: backends and proxies are started, and loaded in turns.
//!
//! Only one proxy is loaded at a time, on the last cores of the machine; backends and load have the others. Who goes
//! first rotates from round to round, so that what else the machine does falls on all of them alike.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::case::{Case, STEADY, Speech, Work};
use crate::contender::{Contender, Database, Running, Setting, write};
use crate::figures::{Beside, Round};
use crate::load::{H2load, Place, Wrk};
use crate::parse::Measured;
use crate::process::{Cores, Launch, Process};
use crate::stop::{Fallible, Stop, now};
use crate::template::fill;
use crate::{address, calls, clients, connect, idle, introduced, messages};

/// How many connections each proxy is told to be ready for: the idle ones, and what goes on beside them.
const MOST_CONNECTIONS: usize = 16_384;

/// What all cases share.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Whether to end.
    pub(crate) stop: Arc<Stop>,
    /// The cores of everything.
    pub(crate) cores: Cores,
    /// Who takes part. The first is the one the others are compared with.
    pub(crate) contenders: Vec<Contender>,
    /// The nginx that answers behind the proxies.
    pub(crate) backend: PathBuf,
    /// Where files go.
    pub(crate) directory: PathBuf,
    /// The length of a round, in seconds.
    pub(crate) seconds: u64,
    /// How many files a process may open.
    pub(crate) files: u64,
    /// Whether each round is told of.
    pub(crate) verbose: bool,
    /// How many clients are known in the case that has them.
    pub(crate) clients: usize,
}

/// A backend and where it listens.
struct Backend {
    process: Process,
    address: SocketAddr,
}

impl Bench {
    /// Runs `rounds` rounds of `case`: for each contender as many as there were.
    ///
    /// # Errors
    ///
    /// When a proxy or a load fails, or a signal came.
    pub(crate) fn run(&self, case: &Case, rounds: usize) -> Fallible<Vec<Vec<Round>>> {
        let (others, cores) = self.cores.split_last(case.cores)?;
        let directory = tempfile::Builder::new().prefix(case.name).tempdir_in(&self.directory)?;
        let place = Place { cores: others, directory: directory.path().to_owned() };
        let backends = if case.work == Work::Dying { 3 } else { 1 };
        let mut backends: Vec<_> =
            (0..backends).map(|number| self.backend(case.work, &place, number, backends)).collect::<Fallible<_>>()?;
        let setting = Setting {
            cores,
            access_log: case.access_log,
            streams: case.work.streams(),
            limit: case.limit,
            speech: case.work.speech(),
            introduced: case.work == Work::Introduced,
            backends: backends.iter().map(|backend| backend.address).collect(),
            database: Database::None,
            certificates: self.directory.clone(),
            connections: MOST_CONNECTIONS,
            files: self.files,
        };
        match case.work {
            // What these find hardly varies from round to round.
            Work::Idle { .. } => return self.idle(case, rounds.div_ceil(3), &setting, &place),
            Work::Dying => return self.dying_rounds(case, rounds.div_ceil(2), &setting, &place, &mut backends[0]),
            _ => (),
        }
        let mut measured = vec![Vec::new(); self.contenders.len()];
        let running = self.start_all(case, &setting, &place, "")?;
        for round in 0..rounds {
            for who in turns(running.len(), round) {
                let proxy = &running[who];
                let own = || self.round(proxy, setting.cores.count(), || self.load(case, proxy, &place, self.seconds));
                // Each of the two goes first as often.
                let (got, beside) = match round % 2 {
                    0 => (own()?, self.beside(case, proxy, &setting, &place)?),
                    _ => {
                        let beside = self.beside(case, proxy, &setting, &place)?;
                        (own()?, beside)
                    }
                };
                measured[who].push(got.beside(beside));
            }
        }
        Ok(measured)
    }

    /// Starts all contenders for a case, and warms them up for a second, all at the same time.
    fn start_all(&self, case: &Case, setting: &Setting, place: &Place, suffix: &str) -> Fallible<Vec<Running>> {
        let mut running = Vec::new();
        for contender in &self.contenders {
            let database = match case.work {
                Work::Clients => clients::prepare(self, contender, setting, &place.directory)?,
                _ => Database::None,
            };
            let setting = Setting { database, ..setting.clone() };
            let own = place.directory.join(format!("{}{suffix}", contender.name));
            running.push(contender.start(&self.stop, &setting, &own)?);
        }
        std::thread::scope(|scope| {
            let warm = |(proxy, contender): (&Running, &Contender)| -> Fallible<()> {
                let directory = place.directory.join(format!("{}{suffix}-load", contender.name));
                std::fs::create_dir_all(&directory)?;
                if case.work == Work::Calls {
                    calls::check(proxy.tls, &self.directory).map_err(|error| format!("{}: {error}", proxy.name))?;
                }
                self.load(case, proxy, &Place { directory, ..place.clone() }, 1).map(drop)
            };
            let threads: Vec<_> =
                running.iter().zip(&self.contenders).map(|pair| scope.spawn(move || warm(pair))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "warming up failed")?)
        })?;
        Ok(running)
    }

    /// Rounds of idle connections: each on proxies just started, since memory that is free again is not given back.
    fn idle(&self, case: &Case, rounds: usize, setting: &Setting, place: &Place) -> Fallible<Vec<Vec<Round>>> {
        let Work::Idle { spoken, tls } = case.work else { return Err("not a case of idle connections".into()) };
        let tls = tls.then(|| self.directory.join("cert.pem"));
        let mut measured = vec![Vec::new(); self.contenders.len()];
        for round in 0..rounds {
            let running = self.start_all(case, setting, place, &round.to_string())?;
            self.stop.pause(idle::SETTLE)?;
            for who in turns(running.len(), round) {
                measured[who].push(idle::round(&self.stop, &running[who], case.connections, (spoken, tls.as_deref()))?);
            }
        }
        Ok(measured)
    }

    /// Rounds in which a backend dies: each on a proxy just started, which has not seen one die yet.
    fn dying_rounds(
        &self,
        case: &Case,
        rounds: usize,
        setting: &Setting,
        place: &Place,
        victim: &mut Backend,
    ) -> Fallible<Vec<Vec<Round>>> {
        let mut measured = vec![Vec::new(); self.contenders.len()];
        for round in 0..rounds {
            for who in turns(self.contenders.len(), round) {
                let contender = &self.contenders[who];
                let own = place.directory.join(format!("{}{round}", contender.name));
                let proxy = contender.start(&self.stop, setting, &own)?;
                self.load(case, &proxy, place, 1)?;
                measured[who].push(self.dying(case, &proxy, setting, place, &mut victim.process)?);
                victim.process = self.serve(case.work, place, (0, 1), victim.address)?;
            }
        }
        Ok(measured)
    }

    fn dying(
        &self,
        case: &Case,
        proxy: &Running,
        setting: &Setting,
        place: &Place,
        victim: &mut Process,
    ) -> Fallible<Round> {
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let waited = self.stop.pause(Duration::from_millis(self.seconds * 500));
                victim.kill();
                waited
            });
            let got = self.round(proxy, setting.cores.count(), || self.load(case, proxy, place, self.seconds));
            killer.join().map_err(|_| "the killer of a backend failed")??;
            got
        })
    }

    fn round(&self, proxy: &Running, cores: usize, load: impl FnOnce() -> Fallible<Measured>) -> Fallible<Round> {
        let (before, started) = (proxy.process.cpu()?, now());
        let measured = load()?;
        let elapsed = started.elapsed();
        let cpu = proxy.process.cpu()?.saturating_sub(before).as_secs_f64();
        let busy = cpu / (elapsed.as_secs_f64() * cores as f64);
        if self.verbose {
            eprintln!("  {} on {}: {cpu:.2} s of CPU, {measured:?}", proxy.name, proxy.plain);
        }
        Ok(Round::Load { measured, cpu, busy, resident: proxy.process.resident()?, beside: None })
    }

    /// The same without what a case is about, if it is measured beside that: its seconds for a message, or its CPU
    /// seconds for a request.
    fn beside(&self, case: &Case, proxy: &Running, setting: &Setting, place: &Place) -> Fallible<Option<Beside>> {
        match case.work {
            Work::Stream { up } => {
                let measured = calls::run(&self.stop, place, setting.backends[0], up, self.seconds)?;
                Ok(Some(Beside::Time(measured.seconds / measured.requests.max(1) as f64)))
            }
            Work::Introduced => {
                let way = (proxy.plain, false);
                let load = || introduced::run(&self.stop, place, way, case.connections, self.seconds);
                let round = self.round(proxy, setting.cores.count(), load)?;
                Ok(Some(Beside::Cost(round.cost())))
            }
            _ => Ok(None),
        }
    }

    /// The load of a case, for some seconds.
    fn load(&self, case: &Case, proxy: &Running, place: &Place, seconds: u64) -> Fallible<Measured> {
        let (plain, tls) = (format!("http://{}", proxy.plain), format!("https://{}", proxy.tls));
        let connections = if matches!(case.work, Work::Idle { .. }) { 64 } else { case.connections };
        let wrk = Wrk { connections, seconds, script: String::new() };
        let body = Bytes::new();
        let h2load = H2load { connections, streams: 1, http1: true, rate: Some(STEADY), seconds, body, calls: false };
        let http2 = H2load { http1: false, rate: None, ..h2load.clone() };
        match case.work {
            Work::Get(path) => wrk.run(&self.stop, place, &format!("{plain}{path}")),
            Work::Dying | Work::Apart | Work::TlsBackend | Work::Idle { .. } => wrk.run(&self.stop, place, &plain),
            Work::Steady => h2load.run(&self.stop, place, &plain),
            Work::Post { bytes, chunked } => {
                let values = [("bytes", bytes.to_string()), ("chunked", chunked.to_string())];
                Wrk { script: fill(include_str!("conf/post.lua"), &values)?, ..wrk }.run(&self.stop, place, &plain)
            }
            Work::Http2Post(length) => {
                let body = vec![b'x'; length].into();
                H2load { body, ..http2 }.run(&self.stop, place, &format!("{tls}/post"))
            }
            Work::Messages => messages::run(&self.stop, place, proxy.plain, connections, seconds),
            Work::Reconnect => connect::run(&self.stop, place, proxy.plain, None, connections, seconds),
            Work::Tls => wrk.run(&self.stop, place, &tls),
            Work::Handshake => connect::run(&self.stop, place, proxy.tls, Some(&self.directory), connections, seconds),
            Work::Http2 | Work::Http2Backend => H2load { streams: 10, ..http2 }.run(&self.stop, place, &tls),
            Work::Calls => {
                let (body, calls) = (calls::call(), true);
                H2load { streams: 10, body, calls, ..http2 }.run(&self.stop, place, &format!("{tls}{}", calls::ECHO))
            }
            Work::Stream { up } => calls::run(&self.stop, place, proxy.h2c, up, seconds),
            Work::Introduced => introduced::run(&self.stop, place, (proxy.introduced, true), connections, seconds),
            Work::Clients => {
                let script = fill(include_str!("conf/clients.lua"), &[("count", self.clients.to_string())])?;
                Wrk { script, ..wrk }.run(&self.stop, place, &plain)
            }
        }
    }

    /// Starts backend `number` of `count`.
    fn backend(&self, work: Work, place: &Place, number: usize, count: usize) -> Fallible<Backend> {
        let [address] = address::free()?;
        let workers = if count == 1 { 2 } else { 1 };
        Ok(Backend { process: self.serve(work, place, (number, workers), address)?, address })
    }

    fn serve(
        &self,
        work: Work,
        place: &Place,
        (number, workers): (usize, usize),
        address: SocketAddr,
    ) -> Fallible<Process> {
        let directory = place.directory.join(format!("backend{number}"));
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("large"), "x".repeat(100_000))?;
        let cores = place.cores.first(workers);
        let values = [
            ("workers", cores.count().to_string()),
            ("affinity", cores.masks()),
            ("files", self.files.to_string()),
            ("directory", directory.display().to_string()),
            ("address", address.to_string()),
            ("certificate", self.directory.join("cert.pem").display().to_string()),
            ("key", self.directory.join("key.pem").display().to_string()),
            (
                "speech",
                match work.speech() {
                    Speech::Plain | Speech::Grpc => "",
                    Speech::Tls => " ssl",
                    Speech::Http2 => " http2",
                }
                .to_owned(),
            ),
        ];
        let own = if work.speech() == Speech::Grpc { calls::BACKEND } else { messages::BACKEND };
        let file = write(&directory, "backend.conf", include_str!("conf/backend.conf"), &values)?;
        let stderr = directory.join("stderr");
        let launch = match work.has_own_backend() {
            true => Launch::new(std::env::current_exe()?, &cores, stderr).arg(own).arg(address.to_string()),
            false => Launch::new(&self.backend, &cores, stderr).arg("-p").arg(&directory).arg("-c").arg(&file),
        };
        let mut process = launch.start()?;
        self.stop.until("the backend to serve", Duration::from_secs(10), || match process.ended()? {
            Some(_) => Err(process.said("ended")),
            // Somebody listens there.
            None => Ok(TcpStream::connect(address).ok().map(drop)),
        })?;
        Ok(process)
    }
}

/// Who has their turn when in a round.
fn turns(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}
