//! How far a tool is, for whoever sits in front of a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use tools::{Phase, Tell};

use super::print::human;

/// How often the line is written anew.
const REDRAW: Duration = Duration::from_millis(100);

/// The last line of standard error, if that is a terminal.
pub(super) struct Terminal {
    drawn: Option<Instant>,
}

impl Terminal {
    /// Does `work`, and shows how far it is; nothing of that stays.
    pub(super) fn show<T>(work: impl FnOnce(Tell<'_>) -> T) -> T {
        if !io::stderr().is_terminal() {
            return work(&mut |_, _, _| {});
        }
        let mut terminal = Terminal { drawn: None };
        work(&mut |phase, done, total| terminal.draw(phase, done, total))
    }

    fn draw(&mut self, phase: Phase, done: u64, total: u64) {
        let due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW);
        if due || done == 0 {
            self.drawn = Some(Instant::now());
            eprint!("\r\x1b[K{}", line(phase, done, total));
            // A terminal that is gone shows nothing.
            let _ = io::stderr().flush();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(phase: Phase, done: u64, total: u64) -> String {
    let what = match phase {
        Phase::Checking => "checking",
        Phase::Reading => "reading",
        Phase::Opening => "opening",
    };
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
    format!("{what}: {} of {} ({percent} %)", human(done), human(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_how_far_and_of_how_much() {
        assert_eq!(line(Phase::Reading, 500_000, 2_000_000), "reading: 500 kB of 2.0 MB (25 %)");
        assert_eq!(line(Phase::Opening, 0, 0), "opening: 0 B of 0 B (100 %)");
    }
}
