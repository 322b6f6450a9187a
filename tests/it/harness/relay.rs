//! A long way: a relay that passes every byte on so much later, as many at once as come; one on which nothing gets
//! through at times; and one that loses segments.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::ports::free_address;
use super::{dawdle, now};

/// Where a relay to `target` listens that takes `delay` in each direction. It ends with the process.
#[track_caller]
pub(crate) fn to(target: SocketAddr, delay: Duration) -> SocketAddr {
    Relay::start(target, delay).address
}

/// A relay, which ends with the process.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Until when nothing gets through.
    stands_still: Arc<Mutex<Instant>>,
}

impl Relay {
    /// One to `target` that takes `delay` in each direction.
    #[track_caller]
    pub(crate) fn start(target: SocketAddr, delay: Duration) -> Self {
        let listener = (0..3).find_map(|_| TcpListener::bind(free_address()).ok()).expect("a free port");
        let (address, stands_still) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(now())));
        let until = Arc::clone(&stands_still);
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(target) else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                pass(near.try_clone().unwrap(), far.try_clone().unwrap(), delay, Arc::clone(&until));
                pass(far, near, delay, Arc::clone(&until));
            }
        });
        Relay { address, stands_still }
    }

    /// Lets nothing through for so long, from now on, and then all that came.
    pub(crate) fn stall(&self, time: Duration) {
        *self.stands_still.lock().unwrap() = now() + time;
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration, until: Arc<Mutex<Instant>>) {
    let (sender, parts) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 256 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            if sender.send((now() + delay, bytes[..read].to_vec())).is_err() {
                return;
            }
        }
        // With the sender the other half ends, in its time.
        let _ = sender.send((now() + delay, Vec::new()));
    });
    std::thread::spawn(move || {
        for (due, part) in parts {
            dawdle(due.saturating_duration_since(now()));
            let until = *until.lock().unwrap();
            dawdle(until.saturating_duration_since(now()));
            if part.is_empty() || to.write_all(&part).is_err() {
                // The peer may be gone, which is as good.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    });
}

/// One in a hundred segments to and from a port on loopback is lost, as long as this is there.
#[derive(Debug)]
pub(crate) struct Loss(Child);

impl Loss {
    /// Nothing, when this user cannot have the kernel lose any.
    pub(crate) fn at(port: u16) -> Option<Self> {
        // The rules go when its input ends, which is also when this process is killed. Lost on its way in: the sender
        // would be told of what is lost on its way out.
        const RULES: &str = r#"trap '' INT TERM HUP
            rule() { iptables -w "$1" INPUT -i lo -p tcp "--$2" "$0" -m statistic --mode random --probability 0.01 -j DROP; }
            rule -I dport && rule -I sport && echo there && cat >/dev/null
            rule -D dport; rule -D sport"#;
        let mut command = Command::new("sh");
        command.args(["-c", RULES, &port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        let mut loss = Loss(command.stderr(Stdio::null()).spawn().ok()?);
        let mut said = [0; 6];
        loss.0.stdout.as_mut()?.read_exact(&mut said).ok().map(|()| loss)
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
