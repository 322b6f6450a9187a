//! Who listens on an address that is taken, as far as the kernel lets us see.
//!
//! `/proc/net/tcp` and `tcp6` name the inode of each listening socket, `/proc/PID/fd` the inodes that a process has
//! open. Only root sees other users' processes; whoever sees nothing gets the command to ask with. The format is in
//! proc(5).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The process that listens where nobody else can listen on `address`, as `name (pid N)`.
pub(crate) fn of(address: SocketAddr) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inodes: Vec<_> = tables.iter().flat_map(|table| listening(table, address)).collect();
    let sockets: Vec<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    };
    let pid = pids.find(|pid| !sockets.is_empty() && holds(pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

/// The inodes of the sockets in `table` that listen where `address` is.
fn listening(table: &str, address: SocketAddr) -> Vec<&str> {
    // All connections are in there, too, which may be hundreds of thousands.
    let port = format!(":{:04X} ", address.port());
    let lines = table.lines().skip(1).filter(|line| line.contains(&port));
    let lines = lines.map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let taken = lines.filter_map(|words| Some((socket_address(words.get(1)?)?, *words.get(3)?, *words.get(9)?)));
    taken.filter(|(taken, state, _)| *state == LISTEN && collide(*taken, address)).map(|(.., inode)| inode).collect()
}

/// Whether one process cannot listen on both: they are the same, or one of them stands for every address. That of IPv6
/// stands for IPv4, too.
pub(crate) fn collide(taken: SocketAddr, wanted: SocketAddr) -> bool {
    let (a, b) = (taken.ip().to_canonical(), wanted.ip().to_canonical());
    let covers = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    taken.port() == wanted.port() && (a == b || covers(a, b) || covers(b, a))
}

/// Reads `0100007F:1F90`: words of four bytes in the machine's order, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    if !matches!(ip.len(), 8 | 32) {
        return None;
    }
    let words: Vec<_> = ip.as_bytes().chunks(8).map(|word| std::str::from_utf8(word).ok()).collect::<Option<_>>()?;
    let words: Vec<_> = words.iter().map(|word| u32::from_str_radix(word, 16).ok()).collect::<Option<_>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_of_this_process_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let address = listener.local_addr().unwrap();
            let owner = of(address).unwrap();
            assert!(owner.ends_with(&format!("(pid {})", std::process::id())), "{owner}");
            assert_eq!(
                of(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port())).is_some(),
                address.is_ipv4()
            );
            drop(listener);
            assert_eq!(of(address), None);
        }
    }

    #[test]
    fn an_address_in_the_table_is_read_in_the_machines_order() {
        let loopback = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(socket_address(&format!("{loopback:08X}:1F90")), "127.0.0.1:8080".parse().ok());
        let last = u32::from_ne_bytes([0, 0, 0, 1]);
        assert_eq!(socket_address(&format!("{:024}{last:08X}:0050", 0)), "[::1]:80".parse().ok());
        for wrong in ["", ":", "0:", "0100007F", "xx:1F90", "010000:1F90", "0100007F:123456"] {
            assert_eq!(socket_address(wrong), None, "{wrong}");
        }
    }
}
