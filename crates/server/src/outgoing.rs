//! Which states are on their way to which members: one at a time for each of them.
//!
//! ```text
//! raft wants one ── Making ──▶ Made ── raft sends its message ──▶ Sending ──▶ over
//!                     ▲                                              │
//!            a body as good as new need not be made again     raft is told
//! ```
//!
//! A body is written once for all who need one at that time: it is kept as long as one of them is on its
//! way, and each gets a name of its own for the same file. Raft may want another one meanwhile: it has lost
//! patience, or the receiver has said that it has this one, and the log does not go on from there any more.
//! That wish is not kept. Raft hears when the one under way is over, and asks again if it still has to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use raft::{Index, NodeId, Snapshot};

/// Members that are sent a state at once; each has its own file if worst comes to worst, as large as the
/// store. Who has to wait for one asks again.
const MOST: usize = 4;

/// How long one that was made may wait for raft, which takes it at once if it still wants it.
const WANTED: Duration = Duration::from_secs(10);

/// What is under way. It touches no file: what it lets go of is in `dropped`, for the caller to remove.
#[derive(Default)]
pub(crate) struct Outgoing {
    stages: BTreeMap<NodeId, Stage>,
    waiting: VecDeque<NodeId>,
    /// Whether a thread is at work on those that wait.
    making: bool,
    last: Option<Last>,
    dropped: Vec<PathBuf>,
}

enum Stage {
    Making,
    /// Waits for raft to send for it.
    Made {
        index: Index,
        path: PathBuf,
        since: Instant,
    },
    Sending,
}

/// The body made last.
struct Last {
    snapshot: Snapshot,
    path: PathBuf,
    /// Who has been sent it.
    sent_to: BTreeSet<NodeId>,
}

/// What a wish for a state comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It will be seen to; a thread has to be started that does.
    Begin,
    /// One will be made, or is on its way: raft will hear of that.
    Noted,
    /// Too many are under way.
    Refused,
}

impl Outgoing {
    /// Raft wants a state for `to`.
    pub(crate) fn want(&mut self, to: NodeId) -> Wish {
        let is_full = self.stages.len() >= MOST;
        match self.stages.get(&to) {
            Some(Stage::Making | Stage::Sending) => return Wish::Noted,
            // Raft has not sent for it, or it would not ask.
            Some(Stage::Made { .. }) => self.forget(to),
            None if is_full => return Wish::Refused,
            None => {}
        }
        self.stages.insert(to, Stage::Making);
        self.waiting.push_back(to);
        if std::mem::replace(&mut self.making, true) { Wish::Noted } else { Wish::Begin }
    }

    /// Whom to make one for next; with none, the thread that does ends.
    pub(crate) fn next(&mut self) -> Option<NodeId> {
        let next = self.waiting.pop_front();
        self.making = next.is_some();
        next
    }

    /// The body made last, if it is as good for `to` as one made now: it holds that member, has not
    /// been sent there before, and ends no more than `reach` entries before `applied`, so that the log
    /// goes on from it.
    pub(crate) fn reusable(&self, to: NodeId, applied: Index, reach: u64) -> Option<(Snapshot, PathBuf)> {
        let last = self.last.as_ref()?;
        let meta = &last.snapshot.meta;
        let is_near = applied.0.saturating_sub(meta.index.0) <= reach;
        let fits = is_near && meta.conf_state.contains(to) && !last.sent_to.contains(&to);
        fits.then(|| (last.snapshot.clone(), last.path.clone()))
    }

    /// A new body that others may use too.
    pub(crate) fn set_last(&mut self, snapshot: Snapshot, path: PathBuf) {
        self.drop_last();
        self.last = Some(Last { snapshot, path, sent_to: BTreeSet::new() });
    }

    /// The body for `to` lies at `path`.
    pub(crate) fn made(&mut self, to: NodeId, index: Index, path: &Path, now: Instant) {
        let made = Stage::Made { index, path: path.to_owned(), since: now };
        self.stages.insert(to, made);
    }

    /// One for `to` has been sent, or could not be, or there is none.
    pub(crate) fn over(&mut self, to: NodeId) {
        self.forget(to);
        self.end();
    }

    /// Raft sends the state at `index`: its body, which is the caller's from now on; none if there is no
    /// such body.
    pub(crate) fn send(&mut self, to: NodeId, index: Index) -> Option<PathBuf> {
        match self.stages.get(&to) {
            Some(Stage::Made { index: made, path, .. }) if *made == index => {
                let path = path.clone();
                if let Some(last) = self.last.as_mut().filter(|last| last.snapshot.meta.index == index) {
                    last.sent_to.insert(to);
                }
                self.stages.insert(to, Stage::Sending);
                Some(path)
            }
            Some(Stage::Made { .. }) => {
                self.over(to);
                None
            }
            _ => None,
        }
    }

    /// Lets go of those that raft wanted once and has not sent: the log has brought their receivers up to
    /// date, or another member leads.
    pub(crate) fn tidy(&mut self, now: Instant) {
        let is_old =
            |stage: &Stage| matches!(stage, Stage::Made { since, .. } if now.duration_since(*since) > WANTED);
        let old: Vec<NodeId> =
            self.stages.iter().filter(|(_, stage)| is_old(stage)).map(|(to, _)| *to).collect();
        for to in old {
            self.over(to);
        }
    }

    /// The files that nobody needs any more.
    pub(crate) fn take_dropped(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.dropped)
    }

    fn forget(&mut self, to: NodeId) {
        if let Some(Stage::Made { path, .. }) = self.stages.remove(&to) {
            self.dropped.push(path);
        }
    }

    fn end(&mut self) {
        if self.stages.is_empty() {
            self.drop_last();
        }
    }

    fn drop_last(&mut self) {
        self.dropped.extend(self.last.take().map(|last| last.path));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raft::{ConfState, SnapshotMeta, Term};

    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    fn body(index: u64, members: &[NodeId]) -> Snapshot {
        let conf_state = ConfState { voters: members.to_vec(), ..ConfState::default() };
        let meta = SnapshotMeta { conf_state, index: Index(index), term: Term(1) };
        Snapshot { meta, data: Arc::from([]) }
    }

    fn path(name: &str) -> PathBuf {
        PathBuf::from(name)
    }

    /// As far as `Sending`, as the maker's thread and raft bring it there.
    fn send(outgoing: &mut Outgoing, to: NodeId, index: u64, name: &str) {
        assert_ne!(outgoing.want(to), Wish::Refused);
        assert_eq!(outgoing.next(), Some(to));
        outgoing.set_last(body(index, &[A, B]), path("last"));
        outgoing.made(to, Index(index), &path(name), Instant::now());
        assert_eq!(outgoing.next(), None);
        assert_eq!(outgoing.send(to, Index(index)), Some(path(name)));
    }

    #[test]
    fn a_member_is_sent_one_at_a_time() {
        let mut outgoing = Outgoing::default();
        assert_eq!(outgoing.want(A), Wish::Begin);
        assert_eq!(outgoing.want(A), Wish::Noted, "one is being made");
        assert_eq!(outgoing.next(), Some(A));
        assert_eq!(outgoing.next(), None, "and no other one after it");
        outgoing.made(A, Index(7), &path("a"), Instant::now());
        assert_eq!(outgoing.send(A, Index(7)), Some(path("a")));
        assert_eq!(outgoing.want(A), Wish::Noted, "one is on its way");
        assert_eq!(outgoing.next(), None);
        outgoing.over(A);
        assert_eq!(outgoing.want(A), Wish::Begin, "that one is over");
    }

    #[test]
    fn a_body_made_just_now_is_used_for_another_member() {
        let mut outgoing = Outgoing::default();
        send(&mut outgoing, A, 7, "a");
        let last = |outgoing: &Outgoing, to, applied, reach| {
            outgoing.reusable(to, Index(applied), reach).map(|(_, path)| path)
        };
        assert_eq!(last(&outgoing, B, 9, 2), Some(path("last")));
        assert_eq!(last(&outgoing, B, 10, 2), None, "the log might not go on from it");
        assert_eq!(last(&outgoing, A, 9, 2), None, "it has been there");
        assert_eq!(last(&outgoing, C, 9, 2), None, "that member is not in it");
        assert!(outgoing.take_dropped().is_empty());
        outgoing.over(A);
        assert_eq!(outgoing.take_dropped(), [path("last")], "nothing is kept for nobody");
        assert_eq!(last(&outgoing, B, 9, 2), None);
    }

    #[test]
    fn there_are_never_too_many() {
        let mut outgoing = Outgoing::default();
        for id in 1..=MOST as u64 {
            assert_ne!(outgoing.want(NodeId(id)), Wish::Refused);
        }
        assert_eq!(outgoing.want(NodeId(99)), Wish::Refused);
        outgoing.over(A);
        assert_eq!(outgoing.want(NodeId(99)), Wish::Noted);
    }

    #[test]
    fn what_raft_does_not_send_for_is_let_go() {
        let mut outgoing = Outgoing::default();
        let start = Instant::now();
        outgoing.want(A);
        outgoing.next();
        outgoing.made(A, Index(7), &path("a"), start);
        outgoing.tidy(start + WANTED);
        assert!(outgoing.take_dropped().is_empty());
        outgoing.tidy(start + WANTED + Duration::from_secs(1));
        assert_eq!(outgoing.take_dropped(), [path("a")]);
        // It sends another one than was made.
        outgoing.want(A);
        outgoing.next();
        outgoing.made(A, Index(7), &path("b"), start);
        assert_eq!(outgoing.send(A, Index(8)), None);
        assert_eq!(outgoing.take_dropped(), [path("b")]);
    }
}
