//! The linearizable reads of one runtime thread, and the rounds that they share.
//!
//! Reads that arrive while a round is on its way wait for the next one: only a round that starts
//! after a read arrived may confirm it (R3). A round that came to nothing, or that got lost on its way
//! to the leader, is asked for again, under another number, with whoever still waits (R4).

use std::time::{Duration, Instant};

use node::ReadId;
use tokio::sync::oneshot;

use crate::error::Error;

/// What a reader waits for.
type Confirmed = Result<(), Error>;

/// Since when a read waits, and whom to tell.
type Reader = (Instant, oneshot::Sender<Confirmed>);

/// The time after which a round counts as lost (etcd's figure).
pub(crate) const LOST: Duration = Duration::from_millis(500);

struct Round {
    id: ReadId,
    asked: Instant,
    readers: Vec<Reader>,
}

/// Who waits for the round that is on its way, and who for the next.
#[derive(Default)]
pub(crate) struct Reads {
    next_round: u64,
    waiting: Vec<Reader>,
    round: Option<Round>,
    /// Set where a round came to nothing: the next one is not asked for at once.
    pause: bool,
}

impl Reads {
    /// A read that arrives now.
    pub(crate) fn join(&mut self, now: Instant) -> oneshot::Receiver<Confirmed> {
        let (done, receiver) = oneshot::channel();
        self.waiting.push((now, done));
        receiver
    }

    /// Whether there may be a round to begin.
    pub(crate) fn waits(&self) -> bool {
        self.round.is_none() && !self.pause && !self.waiting.is_empty()
    }

    /// A round for all that wait, unless one is on its way; its id names the shard in the low 8 bits.
    pub(crate) fn start(&mut self, shard: usize, now: Instant) -> Option<ReadId> {
        if !self.waits() {
            return None;
        }
        self.next_round += 1;
        let id = ReadId(self.next_round << 8 | shard as u64);
        self.round = Some(Round { id, asked: now, readers: std::mem::take(&mut self.waiting) });
        Some(id)
    }

    /// The end of a round; one that is not on its way any more ends nothing.
    pub(crate) fn finish(&mut self, id: u64, result: Confirmed) {
        let Some(round) = self.round.take_if(|round| round.id.0 == id) else { return };
        match result {
            Ok(()) => {
                for (_, reader) in round.readers {
                    let _ = reader.send(Ok(()));
                }
            }
            Err(_) => {
                // No leader just now.
                self.ask_again(round.readers);
                self.pause = true;
            }
        }
    }

    /// Gives up the round that is on its way, if it was asked for `patience` ago or longer; whether
    /// there is one to be asked for in its place.
    pub(crate) fn give_up(&mut self, now: Instant, patience: Duration) -> bool {
        let lost = |round: &mut Round| now.duration_since(round.asked) >= patience;
        let Some(round) = self.round.take_if(lost) else { return false };
        self.ask_again(round.readers);
        !self.waiting.is_empty()
    }

    /// Those that still wait ask again, before those that came later.
    fn ask_again(&mut self, readers: Vec<Reader>) {
        let readers = readers.into_iter().filter(|(_, reader)| !reader.is_closed());
        self.waiting.splice(0..0, readers);
    }

    /// Ends the pause after a round that came to nothing; whether there was one.
    pub(crate) fn resume(&mut self) -> bool {
        std::mem::take(&mut self.pause)
    }

    /// Lets those go that have waited longer than `limit`.
    pub(crate) fn expire(&mut self, now: Instant, limit: Duration) {
        let let_go = |readers: &mut Vec<Reader>| {
            for (_, reader) in readers.extract_if(.., |(since, _)| now.duration_since(*since) > limit) {
                let _ = reader.send(Err(Error::Timeout));
            }
        };
        let_go(&mut self.waiting);
        if let Some(round) = &mut self.round {
            let_go(&mut round.readers);
            // A round that nobody waits for must not hold up the next.
            if round.readers.is_empty() {
                self.round = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(7);

    #[test]
    fn a_round_confirms_only_reads_that_came_before_it() {
        let (mut reads, now) = (Reads::default(), Instant::now());
        let mut early = reads.join(now);
        let first = reads.start(3, now).unwrap();
        assert_eq!(first.0 & 0xff, 3);
        let mut late = reads.join(now);
        assert_eq!(reads.start(3, now), None, "one round at a time");
        reads.finish(first.0, Ok(()));
        assert_eq!(early.try_recv(), Ok(Ok(())));
        assert_eq!(late.try_recv(), Err(TryRecvError::Empty));
        let second = reads.start(3, now).unwrap();
        assert!(second > first);
        reads.finish(first.0, Ok(()));
        assert_eq!(late.try_recv(), Err(TryRecvError::Empty), "an answer to an old round is no answer");
        reads.finish(second.0, Ok(()));
        assert_eq!(late.try_recv(), Ok(Ok(())));
        assert_eq!(reads.start(3, now), None, "nobody waits");
    }

    #[test]
    fn a_round_that_came_to_nothing_is_asked_again_under_another_number() {
        let (mut reads, now) = (Reads::default(), Instant::now());
        let mut patient = reads.join(now);
        drop(reads.join(now));
        let first = reads.start(0, now).unwrap();
        reads.finish(first.0, Err(Error::NoLeader));
        assert_eq!(reads.start(0, now), None, "not at once");
        assert!(reads.resume() && !reads.resume());
        assert_eq!(reads.waiting.len(), 1, "whose client went away does not ask again");
        let second = reads.start(0, now).unwrap();
        reads.finish(first.0, Ok(()));
        assert_eq!(patient.try_recv(), Err(TryRecvError::Empty));
        reads.finish(second.0, Ok(()));
        assert_eq!(patient.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn each_read_waits_for_as_long_as_it_may_and_no_longer() {
        let (mut reads, began) = (Reads::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut first = reads.join(began);
        let mut second = reads.join(after(3));
        let lost = reads.start(0, began).unwrap();
        let mut third = reads.join(after(6));
        reads.expire(after(8), LIMIT);
        assert_eq!(first.try_recv(), Ok(Err(Error::Timeout)));
        assert_eq!(second.try_recv(), Err(TryRecvError::Empty));
        reads.expire(after(11), LIMIT);
        assert_eq!(second.try_recv(), Ok(Err(Error::Timeout)));
        let next = reads.start(0, began).expect("a round that nobody waits for holds nobody up");
        reads.finish(lost.0, Ok(()));
        assert_eq!(third.try_recv(), Err(TryRecvError::Empty));
        reads.finish(next.0, Ok(()));
        assert_eq!(third.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_round_that_got_lost_is_asked_again_under_another_number() {
        let (mut reads, now) = (Reads::default(), Instant::now());
        let mut patient = reads.join(now);
        let first = reads.start(0, now).unwrap();
        assert!(!reads.give_up(now, LOST), "not yet");
        let mut late = reads.join(now);
        assert!(reads.give_up(now + LOST, LOST));
        let second = reads.start(0, now + LOST).unwrap();
        reads.finish(first.0, Ok(()));
        assert_eq!(patient.try_recv(), Err(TryRecvError::Empty), "it came too late");
        reads.finish(second.0, Ok(()));
        assert_eq!((patient.try_recv(), late.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
        assert!(!reads.give_up(now + 2 * LOST, LOST), "nothing is on its way");
    }
}
