//! Bringing every other log to the leader's: what is sent, and what the answers mean.
//!
//! Nothing is sent when it becomes known, but once per [`Raft::ready`], for all that has become
//! known until then: a hundred proposals are one append, and the commit index rides along.

use super::Role;
use crate::message::{Body, Rejection};
use crate::progress::{Flow, Progress, WindowLimit};
use crate::raft::Raft;
use crate::ready::LogRead;
use crate::types::{Entry, Index, NodeId, Snapshot, Term};

impl Raft {
    /// Sends everyone what they may be sent.
    pub(crate) fn replicate(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let (me, term, log) = (self.config.id, self.term, &self.log);
        let limits = &self.config.limits;
        let window = WindowLimit { messages: limits.window_messages, bytes: limits.window_bytes };
        for (id, progress) in &mut leader.progress {
            while progress.has_room(window) || progress.wants_empty(log.commit()) {
                let prev_index = progress.next.prev();
                let Some(prev_term) = log.term(prev_index) else {
                    // What was sent last seems lost, and is not here to be asked about.
                    if matches!(progress.flow, Flow::Replicate { nudge: true, .. }) {
                        progress.probe();
                    }
                    // Behind what is in memory; perhaps the disk has it. Nobody is there to take
                    // it unless heard of lately.
                    if progress.active && progress.has_room(window) && progress.reading.is_none() {
                        progress.reading = Some(prev_index);
                        let (upto, bytes) = (log.begin(), limits.append_bytes);
                        self.out.log_reads.push(LogRead { to: *id, after: prev_index, upto, bytes });
                    }
                    break;
                };
                let entries = match progress.has_room(window) {
                    true => log.slice(progress.next, limits.append_bytes),
                    false => Vec::new(),
                };
                if entries.is_empty() && !progress.wants_empty(log.commit()) {
                    break;
                }
                let bytes = entries.iter().map(crate::Entry::size).sum();
                progress.sent(entries.len(), bytes, log.commit());
                let body = Body::Append { prev_index, prev_term, entries, commit: log.commit() };
                self.out.messages.push(crate::Message { to: *id, from: me, term, body });
            }
        }
    }

    /// Speaks up to everyone, with the read round under way. The commit index sent is one that the
    /// receiver is known to have: what else it has may be something else.
    pub(crate) fn broadcast_heartbeat(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let (me, term) = (self.config.id, self.term);
        let context = match leader.reads.context() {
            Some(round) => round.to_be_bytes().as_slice().into(),
            None => [].into(),
        };
        for (id, progress) in &mut leader.progress {
            // R10, planted: commit-beyond-match.
            let known = if planted::is("commit-beyond-match") { self.log.last() } else { progress.matched };
            let commit = self.log.commit().min(known);
            progress.commit_sent = progress.commit_sent.max(commit);
            let body = Body::Heartbeat { commit, context: std::sync::Arc::clone(&context) };
            self.out.messages.push(crate::Message { to: *id, from: me, term, body });
        }
    }

    pub(crate) fn step_leader(&mut self, from: NodeId, body: Body) {
        assert!(
            !body.is_from_leader(),
            "two leaders in term {}: {:x} and {:x}",
            self.term,
            self.config.id.0,
            from.0
        );
        let Role::Leader(leader) = &mut self.role else { return };
        // Not a member, or no longer.
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        match body {
            Body::AppendResponse { index, reject: None } => {
                // An acknowledgement of what was never sent is not one.
                if index > self.log.last() {
                    return;
                }
                progress.active = true;
                if progress.acknowledge(index, self.log.begin()) {
                    self.advance_commit();
                    self.advance_transfer();
                }
            }
            Body::AppendResponse { index, reject: Some(Rejection { hint, hint_term }) } => {
                progress.active = true;
                // Where the follower has a lower term than this log, nothing matches until this
                // log's term is no higher than that.
                let hint = match hint_term.0 {
                    0 => hint,
                    _ => self.log.last_not_above(hint, hint_term).0,
                };
                progress.reject(index, hint);
            }
            Body::HeartbeatResponse { context } => {
                progress.heartbeat_echoed(self.log.last());
                if let Ok(round) = <[u8; 8]>::try_from(&context[..]) {
                    let round = u64::from_be_bytes(round);
                    // R3, planted: late-echo-confirms.
                    let round = if planted::is("late-echo-confirms") { leader.reads.newest() } else { round };
                    progress.round = progress.round.max(round);
                }
                self.advance_transfer();
            }
            _ => {}
        }
    }

    pub(crate) fn peer_unreachable(&mut self, id: NodeId) {
        // What was sent optimistically is probably lost.
        if let Some(progress) = self.progress(id)
            && matches!(progress.flow, Flow::Replicate { .. })
        {
            progress.probe();
        }
    }

    /// Sends what was read from the disk, if it is still what is wanted. If the disk has nothing, a
    /// snapshot must do.
    pub(crate) fn send_log(&mut self, to: NodeId, prev: (Index, Term), entries: Vec<Entry>) {
        let (me, term, commit) = (self.config.id, self.term, self.log.commit());
        let known = self.log.term(prev.0).is_some();
        let limits = &self.config.limits;
        let window = WindowLimit { messages: limits.window_messages, bytes: limits.window_bytes };
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        if progress.reading.take_if(|after| *after == prev.0).is_none() {
            return;
        }
        // Meanwhile it may have turned out that something else is needed.
        if progress.next.prev() != prev.0 || known || !progress.has_room(window) {
            return;
        }
        if entries.is_empty() {
            progress.flow = Flow::Snapshot { sent: None, ticks: 0 };
            return self.out.snapshots_wanted.push(to);
        }
        let follows = (prev.0.0 + 1..).zip(&entries).all(|(index, entry)| entry.index.0 == index);
        assert!(follows, "what was read after entry {} for member {to} does not follow it", prev.0);
        progress.sent(entries.len(), entries.iter().map(Entry::size).sum(), commit);
        let body = Body::Append { prev_index: prev.0, prev_term: prev.1, entries, commit };
        self.out.messages.push(crate::Message { to, from: me, term, body });
    }

    pub(crate) fn send_snapshot(&mut self, to: NodeId, snapshot: Snapshot) {
        let commit = self.log.commit();
        let (index, term) = (snapshot.meta.index, snapshot.meta.term);
        // The machine may be ahead of what it has reported as applied, but not of this.
        assert!(index <= commit, "a snapshot at {index}, but only {commit} is committed");
        let known = self.log.term(index);
        let Some(progress) = self.progress(to) else { return };
        let Flow::Snapshot { sent, ticks } = &mut progress.flow else { return };
        if sent.is_some() {
            return;
        }
        // One in which the receiver would not find itself does not help. One that ends before the log in
        // memory begins does: the log on disk goes on from there, and under load none might ever be
        // made in time for memory.
        if !snapshot.meta.conf_state.contains(to) {
            return progress.snapshot_lost();
        }
        assert!(known.is_none_or(|known| known == term), "the snapshot at {index} is of another log");
        (*sent, *ticks) = (Some(index), 0);
        progress.next = index.next();
        self.send(to, Body::Snapshot(snapshot));
    }

    pub(crate) fn peer_snapshot(&mut self, id: NodeId, arrived: bool) {
        if let Some(progress) = self.progress(id)
            && let Flow::Snapshot { sent, .. } = progress.flow
        {
            match sent {
                Some(index) if arrived => progress.snapshot_arrived(index),
                _ => progress.snapshot_lost(),
            }
        }
    }

    /// A snapshot of which nothing is heard for too long is lost.
    pub(crate) fn tick_snapshots(&mut self) {
        let limit = self.config.limits.snapshot_ticks;
        let Role::Leader(leader) = &mut self.role else { return };
        for progress in leader.progress.values_mut() {
            if let Flow::Snapshot { ticks, .. } = &mut progress.flow {
                *ticks += 1;
                // R12, planted: wait-for-snapshot-forever.
                if *ticks >= limit && !planted::is("wait-for-snapshot-forever") {
                    progress.snapshot_lost();
                }
            }
        }
    }

    fn progress(&mut self, id: NodeId) -> Option<&mut Progress> {
        let Role::Leader(leader) = &mut self.role else { return None };
        leader.progress.get_mut(&id)
    }
}
