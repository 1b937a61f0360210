//! Commit indexes that wait for company.
//!
//! A leader that has committed something tells its followers at once, with an append that has no entries
//! if there is nothing else to send. Under load there is something a moment later, and the append that
//! goes then says the same: for every write alone in its batch that saves each follower a message, and
//! the leader its answer. So an append without entries waits up to [`PATIENCE`], but only where
//!
//! - the last two appends with entries came as close after each other: a follower of a cluster with
//!   nothing to do hears of a commit without delay, and so do the watchers there;
//! - the peer does not wait for it itself: what it has proposed is not among what is committed newly
//!   ([`Company::proposes`]), and no read of its has to see that.
//!
//! Raft does not notice: messages are late, and those that say nothing new are lost, all the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use raft::{Body, Index, Message, Term};

/// How long one waits at the most, beside how late its timer is.
pub(crate) const PATIENCE: Duration = Duration::from_millis(2);

/// What is known about the appends to one peer.
#[derive(Debug, Default)]
pub(crate) struct Company {
    waiting: Option<(Instant, Message)>,
    /// When the last append with entries came, and how long after the one before it.
    entries: Option<Instant>,
    apart: Option<Duration>,
    /// The peer has proposed something that has not been sent to it as an entry yet.
    proposes: bool,
    /// Commit indexes that the peer waits for, in order.
    awaited: VecDeque<Index>,
    /// The highest commit index that was sent. It may have been lost.
    known: Index,
}

/// What is to be sent now, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Now(pub(crate) Option<Message>, pub(crate) Option<Message>);

impl Company {
    /// Takes a message that is to be sent. Nothing comes back if it waits.
    pub(crate) fn admit(&mut self, message: Message, now: Instant) -> Now {
        let goes = self.sort(message, now);
        for message in [&goes.0, &goes.1].into_iter().flatten() {
            self.told(message);
        }
        goes
    }

    fn sort(&mut self, message: Message, now: Instant) -> Now {
        if let Body::ReadIndexResponse { index, .. } = message.body {
            return Now(self.reads_at(index), Some(message));
        }
        let Some((commit, last)) = tells(&message) else { return Now(None, Some(message)) };
        let first = self.waiting.take().map(|(_, waiting)| waiting);
        let first = first.filter(|waiting| says_more(waiting, message.term, commit));
        if let Some(last) = last {
            self.apart = self.entries.map(|before| now.saturating_duration_since(before));
            self.entries = Some(now);
            // Its own are among them, unless these were on their way already: then it hears a moment later.
            if std::mem::take(&mut self.proposes) {
                self.awaited.push_back(last);
            }
        } else if self.expects_company(commit) && matches!(message.body, Body::Append { .. }) {
            self.waiting = Some((now, message));
            return Now(first, None);
        }
        Now(first, Some(message))
    }

    /// The peer has proposed something, and somebody waits there.
    pub(crate) fn proposes(&mut self) {
        self.proposes = true;
    }

    /// A read of the peer waits until it has applied what is committed up to `index`.
    fn reads_at(&mut self, index: Index) -> Option<Message> {
        let says_so = |(_, waiting): &mut (Instant, Message)| tells(waiting).is_some_and(|(c, _)| c >= index);
        let waiting = self.waiting.take_if(says_so);
        if waiting.is_none() && self.known < index && self.awaited.back().is_none_or(|last| *last < index) {
            self.awaited.push_back(index);
        }
        waiting.map(|(_, message)| message)
    }

    fn told(&mut self, message: &Message) {
        let Some((commit, _)) = tells(message) else { return };
        self.known = self.known.max(commit);
        while self.awaited.front().is_some_and(|index| *index <= commit) {
            self.awaited.pop_front();
        }
    }

    /// Whether something waits.
    pub(crate) fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// Gives back what has waited for long enough.
    pub(crate) fn release(&mut self, now: Instant) -> Option<Message> {
        let over = |(since, _): &mut (Instant, Message)| now.saturating_duration_since(*since) >= PATIENCE;
        let (_, message) = self.waiting.take_if(over)?;
        self.told(&message);
        Some(message)
    }

    fn expects_company(&self, commit: Index) -> bool {
        let awaited = self.awaited.front().is_some_and(|index| *index <= commit);
        !awaited && self.apart.is_some_and(|apart| apart <= PATIENCE)
    }
}

/// The commit index that a message of a leader tells, and the last entry that it brings.
fn tells(message: &Message) -> Option<(Index, Option<Index>)> {
    match &message.body {
        Body::Append { commit, entries, .. } => Some((*commit, entries.last().map(|entry| entry.index))),
        Body::Heartbeat { commit, .. } => Some((*commit, None)),
        _ => None,
    }
}

/// Whether a waiting append tells more than what goes now.
fn says_more(waiting: &Message, term: Term, commit: Index) -> bool {
    term < waiting.term || tells(waiting).is_some_and(|(waiting, _)| waiting > commit)
}

#[cfg(test)]
mod tests {
    use raft::{Entry, EntryKind, NodeId};

    use super::*;

    fn message(body: Body) -> Message {
        Message { to: NodeId(1), from: NodeId(2), term: Term(1), body }
    }

    fn append(last: u64, commit: u64, entries: u64) -> Message {
        let entry =
            |index| Entry { term: Term(1), index: Index(index), kind: EntryKind::Normal, data: [].into() };
        let entries: Vec<_> = (last - entries + 1..=last).map(entry).collect();
        let prev_index = Index(last - entries.len() as u64);
        message(Body::Append { prev_index, prev_term: Term(1), entries, commit: Index(commit) })
    }

    fn heartbeat(commit: u64) -> Message {
        message(Body::Heartbeat { commit: Index(commit), context: [].into() })
    }

    fn sent(message: Message) -> Now {
        Now(None, Some(message))
    }

    /// Two appends with entries 500 us apart, at index 1 and 2, and the time after them.
    fn busy() -> (Company, Instant) {
        let (mut company, start) = (Company::default(), Instant::now());
        assert_eq!(company.admit(append(1, 0, 1), start), sent(append(1, 0, 1)));
        let now = start + Duration::from_micros(500);
        assert_eq!(company.admit(append(2, 0, 1), now), sent(append(2, 0, 1)));
        (company, now)
    }

    #[test]
    fn a_commit_goes_with_the_entries_that_follow() {
        let (mut company, now) = busy();
        assert_eq!(company.admit(append(2, 2, 0), now), Now(None, None));
        assert!(company.waits());
        assert_eq!(company.release(now + PATIENCE / 2), None, "not yet");
        assert_eq!(company.admit(append(3, 2, 1), now), sent(append(3, 2, 1)));
        assert!(!company.waits(), "all is said");
    }

    #[test]
    fn a_commit_waits_no_longer_than_it_may() {
        let (mut company, now) = busy();
        assert_eq!(company.admit(append(2, 1, 0), now), Now(None, None));
        let later = now + PATIENCE / 2;
        assert_eq!(company.admit(append(2, 2, 0), later), Now(None, None), "the newer one stands for both");
        assert_eq!(company.release(later + PATIENCE), Some(append(2, 2, 0)));
        assert!(!company.waits());
    }

    #[test]
    fn a_heartbeat_says_it_too() {
        let (mut company, now) = busy();
        company.admit(append(2, 2, 0), now);
        assert_eq!(company.admit(heartbeat(2), now), sent(heartbeat(2)));
        assert!(!company.waits());
    }

    #[test]
    fn what_says_less_does_not_stand_for_it() {
        let (mut company, now) = busy();
        company.admit(append(2, 2, 0), now);
        let now_both = company.admit(heartbeat(1), now);
        assert_eq!(now_both, Now(Some(append(2, 2, 0)), Some(heartbeat(1))));
        company.admit(append(2, 2, 0), now);
        let old = Message { term: Term(0), ..append(3, 2, 1) };
        assert_eq!(company.admit(old.clone(), now), Now(Some(append(2, 2, 0)), Some(old)));
    }

    #[test]
    fn with_little_to_do_nothing_waits() {
        let (mut company, now) = busy();
        let now = now + 2 * PATIENCE;
        assert_eq!(company.admit(append(3, 2, 1), now), sent(append(3, 2, 1)));
        assert_eq!(company.admit(append(3, 3, 0), now), sent(append(3, 3, 0)), "the last two were far apart");
    }

    #[test]
    fn a_commit_that_the_peer_waits_for_does_not_wait() {
        let (mut company, now) = busy();
        company.proposes();
        assert_eq!(company.admit(append(2, 2, 0), now), Now(None, None), "this is not what it proposed");
        assert_eq!(company.admit(append(3, 2, 1), now), sent(append(3, 2, 1)), "this is");
        assert_eq!(company.admit(append(4, 2, 1), now), sent(append(4, 2, 1)));
        assert_eq!(company.admit(append(4, 3, 0), now), sent(append(4, 3, 0)));
        assert_eq!(company.admit(append(4, 4, 0), now), Now(None, None), "it has heard of its own");
    }

    #[test]
    fn a_commit_that_a_read_must_see_does_not_wait() {
        let (mut company, now) = busy();
        let answer = |index| {
            let context = [].into();
            message(Body::ReadIndexResponse { index: Index(index), context })
        };
        assert_eq!(company.admit(append(2, 2, 0), now), Now(None, None));
        assert_eq!(company.admit(answer(2), now), Now(Some(append(2, 2, 0)), Some(answer(2))));
        // It is on its way.
        assert_eq!(company.admit(answer(2), now), sent(answer(2)));
        // The commit comes after the answer.
        assert_eq!(company.admit(answer(3), now), sent(answer(3)));
        assert_eq!(company.admit(append(4, 3, 0), now), sent(append(4, 3, 0)));
        assert_eq!(company.admit(append(4, 4, 0), now), Now(None, None));
    }

    #[test]
    fn other_messages_pass() {
        let (mut company, now) = busy();
        company.admit(append(2, 2, 0), now);
        let other = message(Body::TimeoutNow);
        assert_eq!(company.admit(other.clone(), now), sent(other));
        assert!(company.waits());
    }
}
