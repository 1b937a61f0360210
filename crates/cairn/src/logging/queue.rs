//! Lines on their way out.
//!
//! Whoever logs only appends to a queue; one thread writes. When the reader of the log is slow, lines wait up
//! to a bound in bytes. Past it new lines are dropped and counted, and the count is written in their place once
//! there is room: a server that stands still because nobody reads its log would be the worse failure. At the
//! end of the process [`Queue::drain`] waits for what is left.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Format;
use super::line::Line;
use crate::note::Level;

/// How long [`Queue::drain`] waits while not a single line gets written.
const PATIENCE: Duration = Duration::from_secs(3);

/// The writing end of the log.
pub(crate) struct Queue {
    shared: Arc<Shared>,
    limit: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    /// Bytes in `lines`.
    bytes: usize,
    /// Lines that found no room since the writer last looked.
    dropped: u64,
    /// Lines handed to `push`, and lines that left the writer's hands: equal when nothing is on its way.
    pushed: u64,
    written: u64,
}

impl Queue {
    /// Starts the thread that writes every line to every output. At most `limit` bytes wait.
    pub(crate) fn start(outputs: Vec<Box<dyn Write + Send>>, limit: usize) -> Queue {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let write = move || theirs.write(outputs);
        // Without a thread there is no log; the queue fills and drops, and the server still serves.
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(write);
        Queue { shared, limit }
    }

    /// Hands over a line. Never waits.
    pub(crate) fn push(&self, line: String) {
        let mut state = self.shared.lock();
        if state.bytes + line.len() > self.limit {
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        state.pushed += 1;
        state.lines.push_back(line);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until everything handed over so far is written, but no longer than some seconds without progress.
    pub(crate) fn drain(&self) {
        let mut state = self.shared.lock();
        let until = state.pushed;
        let (mut seen, mut since) = (state.written, Instant::now());
        while state.written < until && since.elapsed() < PATIENCE {
            let waited = self.shared.changed.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.written != seen {
                (seen, since) = (state.written, Instant::now());
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut outputs: Vec<Box<dyn Write + Send>>) {
        let mut state = self.lock();
        loop {
            while state.lines.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            // Everything that waits goes out in one write; a burst costs one system call.
            let taken = state.lines.len() as u64;
            let mut text: String = state.lines.drain(..).collect();
            state.bytes = 0;
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            if dropped > 0 {
                let mut line = Line::new(Format::Json, Level::Warn, SystemTime::now(), file!(), line!());
                line.message("log lines were dropped: the reader of the log is too slow");
                line.field("dropped", dropped.into());
                text += &line.end();
            }
            for output in &mut outputs {
                // A log that cannot be written has nowhere to say so.
                let _ = output.write_all(text.as_bytes());
                let _ = output.flush();
            }
            state = self.lock();
            state.written += taken;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io;
    use std::sync::mpsc;

    use super::*;

    /// An output that takes a write only when it is let, and keeps what it got.
    struct Gate {
        open: mpsc::Receiver<()>,
        got: Arc<Mutex<String>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the sender is gone the gate stays open.
            let _ = self.open.recv();
            self.got.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated(limit: usize) -> (Queue, mpsc::Sender<()>, Arc<Mutex<String>>) {
        let (sender, open) = mpsc::channel();
        let got = Arc::new(Mutex::new(String::new()));
        let gate = Gate { open, got: Arc::clone(&got) };
        (Queue::start(vec![Box::new(gate)], limit), sender, got)
    }

    #[test]
    fn lines_arrive_in_order_and_none_is_lost_at_the_end() {
        let (queue, gate, got) = gated(1 << 20);
        drop(gate);
        let expected: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        for line in expected.lines() {
            queue.push(format!("{line}\n"));
        }
        queue.drain();
        assert_eq!(*got.lock().unwrap(), expected);
    }

    #[test]
    fn a_blocked_output_stops_nobody_and_the_loss_is_counted() {
        let (queue, gate, got) = gated(100);
        // The output takes nothing yet, so at most the first line is on its way and the rest must wait: 100
        // bytes of them at most, and what is beyond is dropped at once.
        for n in 0..1000 {
            queue.push(format!("line {n:04}\n"));
        }
        drop(gate);
        queue.drain();
        // One more, so that the writer comes round to telling the loss.
        queue.push("last\n".to_owned());
        queue.drain();
        let got = got.lock().unwrap();
        let lines = got.lines().filter(|line| line.starts_with("line ")).count();
        let dropped: usize = got
            .lines()
            .filter_map(|line| line.split("\"dropped\":").nth(1))
            .map(|rest| rest.trim_end_matches('}').parse::<usize>().unwrap())
            .sum();
        assert_eq!(lines + dropped, 1000, "{got}");
        assert!(dropped > 900, "{dropped} were dropped");
        assert!(got.contains("last\n"));
    }
}
