//! A long way: a relay that passes every byte on so much later, as many at once as come.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::ports::free_address;
use super::{dawdle, now};

/// Where a relay to `target` listens that takes `delay` in each direction. It ends with the process.
#[track_caller]
pub(crate) fn to(target: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = (0..3).find_map(|_| TcpListener::bind(free_address()).ok()).expect("a free port");
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            let Ok(far) = TcpStream::connect(target) else { continue };
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            pass(near.try_clone().unwrap(), far.try_clone().unwrap(), delay);
            pass(far, near, delay);
        }
    });
    address
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
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
            if part.is_empty() || to.write_all(&part).is_err() {
                // The peer may be gone, which is as good.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
        }
    });
}
