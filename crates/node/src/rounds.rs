//! Reads that wait, and the rounds that they share.
//!
//! Reads that arrive while a round is on its way wait for the next one: only a round that starts
//! after a read arrived may confirm it (R3). A round that came to nothing, or that got lost on its way
//! to the leader, is asked for again, under another number, with whoever still waits (R4).

use std::time::Duration;

use raft::ReadId;

/// A round that is on its way.
#[derive(Debug)]
struct Round<R> {
    number: u64,
    asked: Duration,
    readers: Vec<(Duration, R)>,
}

/// Who waits for the round that is on its way, and who for the next. `R` is who to tell; times are of
/// one clock that never goes back.
#[derive(Debug)]
pub struct Rounds<R> {
    last: u64,
    waiting: Vec<(Duration, R)>,
    round: Option<Round<R>>,
    /// Set where a round came to nothing: the next one is not asked for at once.
    pause: bool,
}

impl<R> Default for Rounds<R> {
    fn default() -> Self {
        Rounds { last: 0, waiting: Vec::new(), round: None, pause: false }
    }
}

impl<R> Rounds<R> {
    /// The time after which a round counts as lost (etcd's figure).
    pub const LOST: Duration = Duration::from_millis(500);

    /// A read that arrives now.
    pub fn join(&mut self, reader: R, now: Duration) {
        self.waiting.push((now, reader));
    }

    /// How many wait for the next round.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is a round to begin.
    pub fn waits(&self) -> bool {
        self.round.is_none() && !self.pause && !self.waiting.is_empty()
    }

    /// A round for all that wait, unless one is on its way. `asker` is the low 8 bits of its id, so that
    /// several may ask one node.
    pub fn start(&mut self, asker: u8, now: Duration) -> Option<ReadId> {
        if !self.waits() {
            return None;
        }
        self.last += 1;
        let number = self.last << 8 | u64::from(asker);
        self.round = Some(Round { number, asked: now, readers: std::mem::take(&mut self.waiting) });
        Some(ReadId(number))
    }

    /// The end of a round: who may read now, if it was confirmed. One that is not on its way any more ends
    /// nothing.
    pub fn finish(&mut self, id: ReadId, confirmed: bool) -> impl Iterator<Item = R> + use<R> {
        let round = self.round.take_if(|round| round.number == id.0);
        let mut readers = round.map(|round| round.readers).unwrap_or_default();
        if !confirmed && !readers.is_empty() {
            // No leader just now.
            self.ask_again(std::mem::take(&mut readers));
            self.pause = true;
        }
        readers.into_iter().map(|(_, reader)| reader)
    }

    /// Gives up the round that is on its way, if it was asked for `patience` ago or longer.
    pub fn give_up(&mut self, now: Duration, patience: Duration) {
        let lost = |round: &mut Round<R>| now.saturating_sub(round.asked) >= patience;
        if let Some(round) = self.round.take_if(lost) {
            self.ask_again(round.readers);
        }
    }

    /// Before those that came later.
    fn ask_again(&mut self, readers: Vec<(Duration, R)>) {
        self.waiting.splice(0..0, readers);
    }

    /// Ends the pause after a round that came to nothing; whether there was one.
    pub fn resume(&mut self) -> bool {
        std::mem::take(&mut self.pause)
    }

    /// Forgets those for whom `goes` is true, given when they came; and a round that nobody waits for any
    /// more, which must not hold up the next.
    pub fn forget(&mut self, mut goes: impl FnMut(Duration, &mut R) -> bool) -> Vec<R> {
        let mut goes = |(since, reader): &mut (Duration, R)| goes(*since, reader);
        let mut gone: Vec<(Duration, R)> = self.waiting.extract_if(.., &mut goes).collect();
        if let Some(round) = &mut self.round {
            gone.extend(round.readers.extract_if(.., goes));
            if round.readers.is_empty() {
                self.round = None;
            }
        }
        gone.into_iter().map(|(_, reader)| reader).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const AT: fn(u64) -> Duration = Duration::from_secs;

    fn told(rounds: &mut Rounds<char>, id: ReadId, confirmed: bool) -> String {
        rounds.finish(id, confirmed).collect()
    }

    #[test]
    fn a_round_confirms_only_reads_that_came_before_it() {
        let mut rounds = Rounds::default();
        rounds.join('a', AT(0));
        let first = rounds.start(3, AT(0)).unwrap();
        assert_eq!(first.0 & 0xff, 3);
        rounds.join('b', AT(0));
        assert_eq!(rounds.start(3, AT(0)), None, "one round at a time");
        assert_eq!(told(&mut rounds, first, true), "a");
        let second = rounds.start(3, AT(0)).unwrap();
        assert!(second > first);
        assert_eq!(told(&mut rounds, first, true), "", "an answer to an old round is no answer");
        assert_eq!(told(&mut rounds, second, true), "b");
        assert_eq!(rounds.start(3, AT(0)), None, "nobody waits");
    }

    #[test]
    fn a_round_that_came_to_nothing_is_asked_again_under_another_number() {
        let mut rounds = Rounds::default();
        rounds.join('a', AT(0));
        let first = rounds.start(0, AT(0)).unwrap();
        rounds.join('b', AT(0));
        assert_eq!(told(&mut rounds, first, false), "");
        assert_eq!(rounds.start(0, AT(0)), None, "not at once");
        assert!(rounds.resume() && !rounds.resume());
        let second = rounds.start(0, AT(0)).unwrap();
        assert_eq!(told(&mut rounds, first, true), "");
        assert_eq!(told(&mut rounds, second, true), "ab", "in the order they came in");
    }

    #[test]
    fn a_round_that_got_lost_is_asked_again_under_another_number() {
        const LOST: Duration = Rounds::<char>::LOST;
        let mut rounds = Rounds::default();
        rounds.join('a', AT(0));
        let first = rounds.start(0, AT(0)).unwrap();
        rounds.give_up(AT(0), LOST);
        assert!(!rounds.waits(), "not yet");
        rounds.join('b', AT(0));
        rounds.give_up(LOST, LOST);
        let second = rounds.start(0, LOST).unwrap();
        assert_eq!(told(&mut rounds, first, true), "", "it came too late");
        assert_eq!(told(&mut rounds, second, true), "ab");
    }

    #[test]
    fn a_round_that_nobody_waits_for_holds_nobody_up() {
        let mut rounds = Rounds::default();
        rounds.join('a', AT(0));
        let lost = rounds.start(0, AT(0)).unwrap();
        rounds.join('b', AT(6));
        assert_eq!(rounds.forget(|since, _| since < AT(3)), ['a']);
        let next = rounds.start(0, AT(6)).unwrap();
        assert_eq!(told(&mut rounds, lost, true), "");
        assert_eq!(told(&mut rounds, next, true), "b");
    }
}
