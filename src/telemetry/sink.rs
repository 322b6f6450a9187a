//! Whole lines into a target that may fail at any byte.
//!
//! Lines are gathered and written in one go. When a write stops in the middle of a line (a disk that fills up), what is
//! left of that line is kept and goes out before anything else, however much later; all other lines of the failed write
//! are dropped. So a target that recovers never holds half a line followed by another.

use std::io::{self, Write};
use std::mem;

/// Gathers lines and writes them.
pub(super) struct LineSink {
    /// Not buffered: what it took is written.
    out: Box<dyn Write + Send>,
    /// Whole lines, after the rest of a torn one if there is one.
    batch: Vec<u8>,
    /// Line ends in the batch.
    lines: u64,
    /// The batch starts with the rest of a line whose beginning is written.
    torn: bool,
}

/// What became of the gathered lines.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    /// Lines whose last byte was written.
    pub(super) written: u64,
    /// Lines given up.
    pub(super) dropped: u64,
    /// Why writing stopped before the end.
    pub(super) failure: Option<io::Error>,
}

impl LineSink {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        LineSink { out, batch: Vec::new(), lines: 0, torn: false }
    }

    /// Bytes gathered.
    pub(super) fn size(&self) -> usize {
        self.batch.len()
    }

    /// Gathers a line, which ends in the only line end that it holds.
    pub(super) fn push(&mut self, line: &[u8]) {
        self.batch.extend_from_slice(line);
        self.lines += 1;
    }

    /// Writes what is gathered. Afterwards nothing is, but the rest of a torn line.
    pub(super) fn flush(&mut self) -> Flushed {
        let (done, result) = write_all(&mut self.out, &self.batch);
        if result.is_ok() {
            self.torn = false;
            self.batch.clear();
            return Flushed { written: mem::take(&mut self.lines), ..Flushed::default() };
        }
        if done > 0 {
            self.torn = self.batch[done - 1] != b'\n';
        }
        let written = count_lines(&self.batch[..done]);
        self.batch.drain(..done);
        // Of a torn line the rest is kept.
        let line_end = self.batch.iter().position(|byte| *byte == b'\n');
        let keep = if self.torn { line_end.map_or(0, |at| at + 1) } else { 0 };
        let dropped = count_lines(&self.batch[keep..]);
        self.batch.truncate(keep);
        self.lines = u64::from(keep > 0);
        Flushed { written, dropped, failure: result.err() }
    }

    /// Gives up what is gathered: says how many lines that loses.
    pub(super) fn give_up(&mut self) -> u64 {
        self.torn = false;
        self.batch.clear();
        mem::take(&mut self.lines)
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// As [`Write::write_all`], but says how far it came.
fn write_all(out: &mut dyn Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while done < bytes.len() {
        match out.write(&bytes[done..]) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;

    /// A disk with room for so many bytes.
    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        pub(in crate::telemetry) fn make_room(&self, bytes: usize) {
            self.0.lock().0 += bytes;
        }

        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().1.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, content) = &mut *self.0.lock();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= count;
            content.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_torn_line_is_finished_before_the_next() {
        let disk = Disk::default();
        let mut sink = LineSink::new(Box::new(disk.clone()));
        disk.make_room(6);
        sink.push(b"one\n");
        sink.push(b"two\n");
        sink.push(b"three\n");
        let flushed = sink.flush();
        assert_eq!((flushed.written, flushed.dropped, flushed.failure.is_some()), (1, 1, true));
        assert_eq!(disk.text(), "one\ntw");

        sink.push(b"four\n");
        let flushed = sink.flush();
        assert_eq!((flushed.written, flushed.dropped, flushed.failure.is_some()), (0, 1, true));

        disk.make_room(100);
        sink.push(b"five\n");
        let flushed = sink.flush();
        assert_eq!((flushed.written, flushed.dropped, flushed.failure.is_some()), (2, 0, false));
        assert_eq!(disk.text(), "one\ntwo\nfive\n");
    }

    #[test]
    fn what_is_given_up_is_counted_and_not_written_later() {
        let disk = Disk::default();
        let mut sink = LineSink::new(Box::new(disk.clone()));
        disk.make_room(2);
        sink.push(b"one\n");
        assert_eq!(sink.flush().dropped, 0);
        sink.push(b"two\n");
        assert_eq!(sink.give_up(), 2);
        disk.make_room(100);
        assert_eq!((sink.flush().written, disk.text().as_str()), (0, "on"));
    }

    proptest! {
        /// However the room comes and goes, the disk holds whole lines in order, and every line is accounted for.
        #[test]
        fn lines_stay_whole(steps in prop::collection::vec((0usize..30, 0usize..6), 1..40)) {
            let disk = Disk::default();
            let mut sink = LineSink::new(Box::new(disk.clone()));
            let (mut pushed, mut written, mut dropped) = (0, 0, 0);
            for (room, lines) in steps.into_iter().chain([(1_000_000, 0)]) {
                disk.make_room(room);
                for _ in 0..lines {
                    sink.push(format!("line {pushed}\n").as_bytes());
                    pushed += 1;
                }
                let flushed = sink.flush();
                written += flushed.written;
                dropped += flushed.dropped;
            }
            prop_assert_eq!(written + dropped, pushed);
            let text = disk.text();
            prop_assert!(text.is_empty() || text.ends_with('\n'));
            let numbers: Vec<u64> = text.lines().map(|l| l.strip_prefix("line ").unwrap().parse().unwrap()).collect();
            prop_assert_eq!(numbers.len() as u64, written);
            prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{:?}", numbers);
        }
    }
}
