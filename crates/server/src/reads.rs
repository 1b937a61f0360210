//! The linearizable reads of one runtime thread: who waits for the rounds of [`node::Rounds`].

use std::time::{Duration, Instant};

use node::{ReadId, Rounds};
use tokio::sync::oneshot;

use crate::error::Error;

/// What a reader waits for.
type Confirmed = Result<(), Error>;

/// The time after which a round counts as lost.
pub(crate) const LOST: Duration = Rounds::<oneshot::Sender<Confirmed>>::LOST;

/// For how long a round is put off while more reads arrive.
const GATHER: Duration = Duration::from_millis(2);

/// Who waits for the round that is on its way, and who for the next.
pub(crate) struct Reads {
    began: Instant,
    rounds: Rounds<oneshot::Sender<Confirmed>>,
    /// While a round is put off: since when, and how many waited for it when that was last asked.
    gathering: Option<(Instant, usize)>,
}

impl Default for Reads {
    fn default() -> Self {
        Self { began: Instant::now(), rounds: Rounds::default(), gathering: None }
    }
}

impl Reads {
    /// A read that arrives now.
    pub(crate) fn join(&mut self, now: Instant) -> oneshot::Receiver<Confirmed> {
        let (done, receiver) = oneshot::channel();
        self.rounds.join(done, now.duration_since(self.began));
        receiver
    }

    /// Whether there may be a round to begin.
    pub(crate) fn waits(&self) -> bool {
        self.rounds.waits()
    }

    /// Whether the round had better begin a turn of this thread later: more reads have joined it since the
    /// last time this was asked, so more may be about to. Where other members have to confirm it, a round
    /// costs as much as several reads. Asked once a turn, and never true for a read that is alone.
    pub(crate) fn gathers(&mut self, now: Instant) -> bool {
        let waiting = self.rounds.waiting();
        let (since, before) = self.gathering.unwrap_or((now, 1));
        let goes_on = waiting > before && now.duration_since(since) < GATHER;
        self.gathering = goes_on.then_some((since, waiting));
        goes_on
    }

    /// A round for all that wait, unless one is on its way; its id names the shard in the low 8 bits.
    pub(crate) fn start(&mut self, shard: usize, now: Instant) -> Option<ReadId> {
        self.rounds.start(shard as u8, now.duration_since(self.began))
    }

    /// The end of a round; one that is not on its way any more ends nothing.
    pub(crate) fn finish(&mut self, id: u64, result: Confirmed) {
        for reader in self.rounds.finish(ReadId(id), result.is_ok()) {
            let _ = reader.send(Ok(()));
        }
        if result.is_err() {
            self.forget_the_gone();
        }
    }

    /// Gives up the round that is on its way, if it was asked for `patience` ago or longer; whether
    /// there is one to be asked for.
    pub(crate) fn give_up(&mut self, now: Instant, patience: Duration) -> bool {
        self.rounds.give_up(now.duration_since(self.began), patience);
        self.forget_the_gone();
        self.rounds.waits()
    }

    /// Whose client went away does not ask again.
    fn forget_the_gone(&mut self) {
        self.rounds.forget(|_, reader| reader.is_closed());
    }

    /// Ends the pause after a round that came to nothing; whether there was one.
    pub(crate) fn resume(&mut self) -> bool {
        self.rounds.resume()
    }

    /// Lets those go that have waited longer than `limit`, the last change of leaders being at `changed`.
    ///
    /// etcd answers a read with `leader changed` at each change, for its client to ask again. Here it is
    /// asked again by the member, which promises no less; only who has come to nothing by that is told.
    pub(crate) fn expire(&mut self, now: Instant, limit: Duration, changed: Option<Instant>) {
        let now = now.duration_since(self.began);
        let changed = changed.map(|changed| changed.duration_since(self.began));
        for error in [Error::LeaderChanged, Error::Timeout] {
            let goes = |since: Duration| {
                let is_due = error == Error::Timeout || changed.is_some_and(|changed| changed > since);
                is_due && now.saturating_sub(since) > limit
            };
            for reader in self.rounds.forget(|since, _| goes(since)) {
                let _ = reader.send(Err(error));
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
    fn whose_client_went_away_does_not_ask_again() {
        let (mut reads, now) = (Reads::default(), Instant::now());
        let mut patient = reads.join(now);
        drop(reads.join(now));
        let first = reads.start(0, now).unwrap();
        reads.finish(first.0, Err(Error::NoLeader));
        assert_eq!(reads.start(0, now), None, "not at once");
        assert!(reads.resume() && reads.waits());
        let second = reads.start(0, now).unwrap();
        reads.finish(first.0, Ok(()));
        assert_eq!(patient.try_recv(), Err(TryRecvError::Empty));
        reads.finish(second.0, Ok(()));
        assert_eq!(patient.try_recv(), Ok(Ok(())));
        // A round for nobody is not asked for again either.
        drop(reads.join(now));
        assert!(reads.start(0, now).is_some());
        assert!(!reads.give_up(now + LOST, LOST) && !reads.waits());
    }

    #[test]
    fn a_round_is_put_off_while_more_reads_join_it_but_not_for_long() {
        let (mut reads, now, mut readers) = (Reads::default(), Instant::now(), Vec::new());
        let mut join = |reads: &mut Reads, count| readers.extend((0..count).map(|_| reads.join(now)));
        join(&mut reads, 1);
        assert!(!reads.gathers(now), "one alone does not wait");
        join(&mut reads, 1);
        assert!(reads.gathers(now));
        join(&mut reads, 5);
        assert!(reads.gathers(now));
        assert!(!reads.gathers(now), "no more have come");
        assert!(reads.gathers(now));
        join(&mut reads, 1);
        assert!(!reads.gathers(now + GATHER), "it has waited for long enough");
    }

    #[test]
    fn each_read_waits_for_as_long_as_it_may_and_no_longer() {
        let (mut reads, began) = (Reads::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut first = reads.join(began);
        let mut second = reads.join(after(3));
        let lost = reads.start(0, began).unwrap();
        let mut third = reads.join(after(6));
        reads.expire(after(8), LIMIT, None);
        assert_eq!(first.try_recv(), Ok(Err(Error::Timeout)));
        assert_eq!(second.try_recv(), Err(TryRecvError::Empty));
        reads.expire(after(11), LIMIT, Some(after(2)));
        assert_eq!(second.try_recv(), Ok(Err(Error::Timeout)), "the leader is the one that it asked first");
        let next = reads.start(0, began).expect("a round that nobody waits for holds nobody up");
        reads.finish(lost.0, Ok(()));
        assert_eq!(third.try_recv(), Err(TryRecvError::Empty));
        reads.finish(next.0, Ok(()));
        assert_eq!(third.try_recv(), Ok(Ok(())));
        let mut fourth = reads.join(after(12));
        reads.expire(after(20), LIMIT, Some(after(13)));
        assert_eq!(fourth.try_recv(), Ok(Err(Error::LeaderChanged)));
    }
}
