//! Who leads: what changes with it here, how it is handed over, and what it has to do with a request
//! that was not answered in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use node::{NodeId, RoleKind, Status};
use parking_lot::Mutex;
use raft::{Body, Message, Term};
use tokio::sync::watch;

use crate::error::Error;
use crate::leases;
use crate::member::Member;

/// How often a leader that is about to stop looks whether somebody has taken over.
const LOOK: Duration = Duration::from_millis(2);

/// What this member remembers of leaders.
pub(crate) struct Leadership {
    leader: watch::Sender<u64>,
    /// When this member began to lead last.
    elected: Mutex<Option<Instant>>,
    /// When this member last heard of another leader than the one before.
    changed: Mutex<Option<Instant>>,
    reign: AtomicU64,
    /// When the last heartbeats were sent, by receiver.
    heartbeats: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Default for Leadership {
    fn default() -> Self {
        Self {
            leader: watch::Sender::new(0),
            elected: Mutex::default(),
            changed: Mutex::default(),
            reign: AtomicU64::new(0),
            heartbeats: Mutex::default(),
        }
    }
}

impl Leadership {
    /// When the leader known last became known.
    pub(crate) fn changed(&self) -> Option<Instant> {
        *self.changed.lock()
    }

    pub(crate) fn reign(&self) -> Term {
        Term(self.reign.load(Ordering::Acquire))
    }

    pub(crate) fn set_reign(&self, term: Term) {
        self.reign.store(term.0, Ordering::Release);
    }
}

impl Member {
    /// Asks raft to hand leadership over; whether it does is to be seen. It gives up after an election
    /// timeout.
    pub fn transfer_leader(self: &Arc<Self>, to: u64) {
        self.inbox().transfer(NodeId(to));
        self.drive();
    }

    /// Waits until somebody leads.
    pub(crate) async fn led(&self) {
        // The sender lives as long as `self`.
        let _ = self.leadership().leader.subscribe().wait_for(|leader| *leader != 0).await;
    }

    /// Raft has another term, leader or role. Called by whoever turns raft.
    pub(crate) fn leadership_changed(&self, term: Term, leader: Option<NodeId>, leading: bool) {
        let leader = leader.map_or(0, |leader| leader.0);
        let before = (self.raft().term(), self.raft().leader(), self.raft().is_leader());
        let changed = self.raft().set_leader(term.0, leader, leading);
        let anew = before.0 != term.0;
        if before.2 && (!leading || anew) {
            leases::leads_no_more(self);
        }
        if leading && (!before.2 || anew) {
            *self.leadership().elected.lock() = Some(Instant::now());
        }
        if leader != 0 && before.1 != leader {
            *self.leadership().changed.lock() = Some(Instant::now());
        }
        if !leading {
            self.leadership().heartbeats.lock().clear();
        }
        self.leadership().leader.send_replace(leader);
        if changed {
            // Whatever was asked of the leader before may never be answered.
            for mailbox in self.mailboxes() {
                mailbox.post_leader();
            }
        }
        if before.1 != leader {
            tracing::info!(
                "local-member-id" = format!("{:x}", self.id()),
                "previous-leader-member-id" = format!("{:x}", before.1),
                "leader-member-id" = format!("{leader:x}"),
                term = term.0,
                leading,
                "raft leadership changed"
            );
        }
    }

    /// Looks whether the heartbeats of a leader leave in time: they do not where raft is kept waiting.
    pub(crate) fn heartbeats(&self, messages: &[Message]) {
        let is_heartbeat = |message: &&Message| matches!(message.body, Body::Heartbeat { .. });
        let mut heartbeats = messages.iter().filter(is_heartbeat).peekable();
        if heartbeats.peek().is_none() {
            return;
        }
        let now = Instant::now();
        let limit = 2 * self.config().heartbeat;
        let mut sent = self.leadership().heartbeats.lock();
        for heartbeat in heartbeats {
            let before = sent.insert(heartbeat.to, now);
            let late = before.map_or(Duration::ZERO, |before| now.duration_since(before));
            if late > limit {
                self.metrics().heartbeat_failures.inc();
                tracing::warn!(
                    "to" = format!("{:x}", heartbeat.to.0),
                    "heartbeat-interval" = ?self.config().heartbeat,
                    "exceeded-duration" = ?(late - limit),
                    "leader failed to send out heartbeat on time; took too long, leader is overloaded likely \
                     from slow disk"
                );
            }
        }
    }

    /// What a request is told that was proposed at `since` and is not answered by now.
    pub(crate) fn timeout(&self, since: Instant) -> Error {
        let connected = |id: u64| self.active_since(id).is_some_and(|active| active < since);
        let lost = match self.raft().leader() {
            0 => false,
            leader if leader == self.id() => {
                let cluster = self.cluster();
                let others = cluster.members.keys().filter(|id| **id != self.id());
                let reached = 1 + others.filter(|id| connected(**id)).count();
                reached < cluster.members.len() / 2 + 1
            }
            leader => !connected(leader),
        };
        let elected = *self.leadership().elected.lock();
        why_late(since, elected, self.config().election_timeout, lost)
    }

    /// Hands leadership over before this member stops, so that nobody has to find out that it is gone.
    /// Takes as long as that takes, and an election timeout at the most.
    pub(crate) fn hand_over(self: &Arc<Self>) {
        if !self.raft().is_leader() || self.raft().is_alone() {
            return;
        }
        let Some(to) = successor(&self.raft_picture()) else {
            tracing::warn!("nobody is there to take over the leadership");
            return;
        };
        let began = Instant::now();
        self.transfer_leader(to.0);
        while self.raft().is_leader() || self.raft().leader() == 0 {
            if began.elapsed() > self.config().election_timeout {
                tracing::warn!(
                    "local-member-id" = format!("{:x}", self.id()),
                    "transferee-member-id" = format!("{to:x}", to = to.0),
                    "leadership transfer failed"
                );
                return;
            }
            std::thread::sleep(LOOK);
        }
        tracing::info!(
            "local-member-id" = format!("{:x}", self.id()),
            "new-leader-member-id" = format!("{:x}", self.raft().leader()),
            took = ?began.elapsed(),
            "leadership transfer finished"
        );
    }
}

/// The voter that is there and has most of the log.
fn successor(status: &Status) -> Option<NodeId> {
    if status.role != RoleKind::Leader {
        return None;
    }
    let voters = status.peers.iter().filter(|peer| peer.active && !peer.learner);
    voters.max_by_key(|peer| peer.matched).map(|peer| peer.id)
}

/// Why a request of `since` is late: this member was `elected` not long after it, so that it may have been lost
/// with the leader before; or whom it takes is `lost` from sight; or nobody knows.
fn why_late(since: Instant, elected: Option<Instant>, election_timeout: Duration, lost: bool) -> Error {
    let failed = elected.is_some_and(|elected| {
        let before = elected.checked_sub(2 * election_timeout);
        since < elected && before.is_none_or(|before| since > before)
    });
    match (failed, lost) {
        (true, _) => Error::TimeoutLeaderFail,
        (false, true) => Error::TimeoutConnectionLost,
        (false, false) => Error::Timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_request_is_told_why() {
        let (timeout, elected) = (Duration::from_secs(1), Instant::now() + Duration::from_secs(9));
        let why = |before_election: u64, lost| {
            let since = elected.checked_sub(Duration::from_millis(before_election)).expect("a time");
            why_late(since, Some(elected), timeout, lost)
        };
        for lost in [false, true] {
            assert_eq!(why(1, lost), Error::TimeoutLeaderFail);
            assert_eq!(why(1_999, lost), Error::TimeoutLeaderFail, "the leader before may have had it");
        }
        // Long before it, or after: the election has nothing to do with it.
        for before in [0, 2_001] {
            assert_eq!(why(before, true), Error::TimeoutConnectionLost);
            assert_eq!(why(before, false), Error::Timeout);
        }
        assert_eq!(why_late(elected, None, timeout, false), Error::Timeout);
    }
}
