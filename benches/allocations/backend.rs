//! The backend: a thread for each connection, answers made beforehand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crate::cases::LARGE;

/// Starts it, on a port that was free.
pub(crate) fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let answers = Arc::new([answer(100), answer(100_000)]);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            std::thread::spawn(move || serve(stream, &answers));
        }
    });
    address
}

/// What an ordinary backend says beside the body.
fn answer(length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\n\
         Content-Length: {length}\r\nConnection: keep-alive\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

/// Answers until the connection ends.
fn serve(mut stream: TcpStream, answers: &[Vec<u8>; 2]) {
    stream.set_nodelay(true).ok();
    let mut read = Vec::new();
    while let Some((head, body)) = request(&mut stream, &mut read) {
        let large = read[..head].windows(LARGE.len()).any(|part| part == LARGE.as_bytes());
        read.drain(..head + body);
        if stream.write_all(&answers[usize::from(large)]).is_err() {
            return;
        }
    }
}

/// Reads until a whole request is there: how long its head and its body are.
fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<(usize, usize)> {
    let mut buffer = [0; 64 << 10];
    loop {
        if let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") {
            let body = content_length(&read[..end]);
            if read.len() >= end + 4 + body {
                return Some((end + 4, body));
            }
        }
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        read.extend_from_slice(&buffer[..count]);
    }
}

/// The length of the body that a head announces; 0 when it says nothing.
pub(crate) fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}
