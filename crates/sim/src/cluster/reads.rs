//! The linearizable reads of a member and the rounds that they share: a mirror of `server/reads.rs`.

use super::plan::Time;
use super::requests::AfterRead;

/// The time after which a round counts as lost.
const LOST: Time = 500 * super::plan::MILLISECOND;

struct Round {
    id: u64,
    asked: Time,
    readers: Vec<AfterRead>,
}

/// Who waits for the round that is on its way, and who for the next.
#[derive(Default)]
pub(crate) struct Reads {
    next: u64,
    waiting: Vec<AfterRead>,
    round: Option<Round>,
    pause: bool,
}

impl Reads {
    pub(crate) fn join(&mut self, reader: AfterRead) {
        self.waiting.push(reader);
    }

    /// A round for all that wait, unless one is on its way.
    pub(crate) fn start(&mut self, now: Time) -> Option<u64> {
        if self.round.is_some() || self.pause || self.waiting.is_empty() {
            return None;
        }
        self.next += 1;
        self.round = Some(Round { id: self.next, asked: now, readers: std::mem::take(&mut self.waiting) });
        Some(self.next)
    }

    /// The end of a round: those who may read now.
    pub(crate) fn finish(&mut self, id: u64, confirmed: bool) -> Vec<AfterRead> {
        let Some(round) = self.round.take_if(|round| round.id == id) else { return Vec::new() };
        if confirmed {
            return round.readers;
        }
        self.waiting.splice(0..0, round.readers);
        self.pause = true;
        Vec::new()
    }

    /// Ends a pause, and gives up a round that is lost.
    pub(crate) fn sweep(&mut self, now: Time) {
        self.pause = false;
        if let Some(round) = self.round.take_if(|round| now - round.asked >= LOST) {
            self.waiting.splice(0..0, round.readers);
        }
    }

    /// The leader has changed: whatever was asked of the one before may never be answered.
    pub(crate) fn give_up(&mut self) {
        self.pause = false;
        if let Some(round) = self.round.take() {
            self.waiting.splice(0..0, round.readers);
        }
    }
}
