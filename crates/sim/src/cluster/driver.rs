//! What becomes of a node's effects: a mirror of `server/raft_driver.rs` and `server/leadership.rs`.

use std::sync::Arc;
use std::time::Duration;

use node::{Effect, Input, NodeId, RoleKind};
use raft::{Body, DropReason, Index, Message, Term};

use super::checks::ensure;
use super::member::{ApplyJob, Context, Done, Local, Member, WalJob, What};
use super::plan::MILLISECOND;
use super::requests::Told;

impl Member {
    /// Lets raft have what waits for it, now or, as when threads are slow, in a moment.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) -> Done {
        if self.turn_is_due {
            return Ok(());
        }
        if cx.random.one_in(8) {
            self.turn_is_due = true;
            let delay = cx.random.below(300);
            self.after(cx, delay, Local::Turn);
            return Ok(());
        }
        self.turn(cx)
    }

    /// Hands over all that waits, and carries out what raft wants, until nothing is left.
    pub(crate) fn turn(&mut self, cx: &mut Context<'_>) -> Done {
        self.turn_is_due = false;
        loop {
            ensure!(self.letters.propose(&mut self.outbox), "more waits for raft than clients can ask for");
            let now = self.now(cx);
            if let Some(round) = self.reads.start(0, now) {
                self.letters.read(round);
            }
            if self.letters.is_empty() {
                return Ok(());
            }
            let mut effects = std::mem::take(&mut self.effects);
            self.pump.turn(&mut self.letters, now, &mut effects);
            for effect in effects.drain(..) {
                self.carry_out(effect, cx)?;
            }
            self.effects = effects;
            self.has_committed()?;
        }
    }

    /// A leader commits by counting entries of its own term, and nothing else (5.4.2).
    fn has_committed(&mut self) -> Done {
        let commit = self.pump.node().hard_state().commit.0;
        if self.leading && commit > self.committed && self.committed > 0 {
            let term = self.log.term(commit);
            ensure!(
                term == Some(self.term),
                "member {} leads in term {} and commits up to entry {commit} of term {term:?}",
                self.id,
                self.term
            );
        }
        self.committed = commit;
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect, cx: &mut Context<'_>) -> Done {
        match effect {
            Effect::Persist(persist) => {
                cx.checks.writes(self.id, &self.log, &persist)?;
                self.log.write(&persist);
                cx.note(&[2, self.id, persist.id.0, self.log.last()]);
                self.wal_queue.push(WalJob::Persist(persist));
                self.begin_to_write(cx)?;
            }
            Effect::Send(messages) => messages.into_iter().for_each(|message| self.send(message, cx)),
            Effect::Install(snapshot) => {
                self.apply_queue.push_back(ApplyJob::Install(snapshot));
                self.begin_to_apply(cx);
            }
            Effect::Apply(entries) => {
                self.apply_queue.push_back(ApplyJob::Entries(entries.into()));
                self.begin_to_apply(cx);
            }
            Effect::ReadReady { id, index } => self.confirm_read(id, index, cx)?,
            Effect::ReadDropped { id } => drop(self.reads.finish(id, false)),
            Effect::Dropped { id, reason } => self.dropped(id, reason, cx),
            Effect::ReadLog(read) => {
                let delay = cx.random.below(2 * MILLISECOND) + cx.slow_disk;
                self.after(cx, delay, Local::ReadLog(read));
            }
            Effect::MakeSnapshot { to } => {
                let delay = cx.random.below(50 * MILLISECOND);
                self.after(cx, delay, Local::MakeSnapshot(to));
            }
            Effect::SoftState { leader, role, term } => {
                self.leadership_changed(term, leader, role, cx)?;
            }
            Effect::Configured(_) => {}
        }
        Ok(())
    }

    /// Puts a message on its way; a snapshot takes its body along.
    fn send(&mut self, message: Message, cx: &mut Context<'_>) {
        let to = message.to;
        let Some(&slot) = cx.machines.get(&to.0) else { return };
        cx.note(&[3, self.id, to.0, message.term.0]);
        let life = cx.starts[slot];
        if let Body::Snapshot(snapshot) = &message.body {
            let made = self.bodies.remove(&to.0).filter(|(index, _)| *index == snapshot.meta.index);
            let Some((_, body)) = made else {
                let news = Input::SnapshotSent { to, arrived: false };
                return self.letters.of_peer(news);
            };
            let [first, _] = cx.network.send(self.who.0, slot, cx.now(), cx.random);
            let slow = cx.random.below(200 * MILLISECOND);
            match first {
                Some(at) => {
                    let local = Local::SnapshotBody(Box::new(message), body);
                    cx.queue.at(at + slow, What::At((slot, life), local));
                    // The sender hears of it, if the way back is open by then.
                    let back = cx.network.send(slot, self.who.0, at + slow, cx.random)[0];
                    let arrived = back.is_some();
                    let at = back.unwrap_or(at + slow + 1000 * MILLISECOND);
                    cx.queue.at(at, What::At(self.who, Local::SnapshotSent(to, arrived)));
                }
                None => self.after(cx, slow, Local::SnapshotSent(to, false)),
            }
            return;
        }
        let [first, second] = cx.network.send(self.who.0, slot, cx.now(), cx.random);
        // A transport may deliver twice what raft takes for old news the second time. A proposal is
        // news every time: the streams never send one again.
        if let Some(at) = second.filter(|_| !matches!(message.body, Body::Propose { .. })) {
            cx.queue.at(at, What::At((slot, life), Local::Message(Box::new(message.clone()))));
        }
        match first {
            Some(at) => cx.queue.at(at, What::At((slot, life), Local::Message(Box::new(message)))),
            // The stream breaks now and then, and then the sender knows.
            None if cx.random.one_in(20) => self.after(cx, MILLISECOND, Local::Unreachable(to)),
            None => {}
        }
    }

    fn dropped(&mut self, id: u64, reason: DropReason, cx: &mut Context<'_>) {
        match reason {
            // In nobody's log, and will be when there is a leader again, or the change before it is over.
            DropReason::NoLeader
            | DropReason::Transferring
            | DropReason::NotMember
            | DropReason::ConfChangePending => {
                if self.waiters.contains_key(&id) {
                    self.postponed.push(id);
                }
            }
            DropReason::Backlog | DropReason::ConfChangeInvalid => {
                if let Some(waiter) = self.waiters.remove(&id) {
                    self.answer(waiter.token, Told::Refused, cx);
                }
            }
            DropReason::OtherTerm => {}
        }
    }

    /// Raft has another term, leader or role.
    fn leadership_changed(
        &mut self,
        term: Term,
        leader: Option<NodeId>,
        role: RoleKind,
        cx: &mut Context<'_>,
    ) -> Done {
        let leader = leader.map_or(0, |leader| leader.0);
        let leading = role == RoleKind::Leader;
        cx.note(&[4, self.id, term.0, leader]);
        let anew = self.term != term.0;
        let changed = self.leader != leader;
        if leading && (!self.leading || anew) {
            cx.checks.leads(self.id, term.0, &self.log)?;
        }
        if self.leading && (!leading || anew) {
            self.shared.lessor.lock().demote();
        }
        (self.term, self.leader, self.leading) = (term.0, leader, leading);
        if changed && leader != 0 {
            self.ask_again(cx);
        }
        Ok(())
    }

    /// Proposes again what entered nobody's log (A9: only such), and asks again for a round of reads.
    pub(crate) fn ask_again(&mut self, cx: &Context<'_>) {
        self.reads.resume();
        self.reads.give_up(self.now(cx), Duration::ZERO);
        // A9, planted: proposed-twice.
        if planted::is("proposed-twice") {
            self.postponed = self.waiters.keys().copied().collect();
        }
        for id in std::mem::take(&mut self.postponed) {
            self.outbox.extend(self.waiters.get(&id).map(|waiter| waiter.proposal.clone()));
        }
    }

    /// A message has come.
    pub(crate) fn receive(&mut self, message: Message, cx: &mut Context<'_>) -> Done {
        let from = message.from.0;
        if self.shared.cluster.get().removed.contains(&from) && !matches!(message.body, Body::TransferLeader)
        {
            // Whoever was removed is told so, and ends for good.
            if let Some(&slot) = cx.machines.get(&from) {
                let life = cx.starts[slot];
                cx.queue.after(MILLISECOND, What::At((slot, life), Local::Leave));
            }
            return Ok(());
        }
        self.letters.receive([message]);
        self.drive(cx)
    }

    /// A snapshot has come: it is on disk and looked through before raft may know of it.
    pub(crate) fn receive_snapshot(
        &mut self,
        message: Message,
        body: &Arc<Vec<u8>>,
        cx: &mut Context<'_>,
    ) -> Done {
        let Body::Snapshot(snapshot) = &message.body else { return Ok(()) };
        let index = snapshot.meta.index;
        if index > Index(self.machine.applied().0.0) {
            let path = super::member::body_path(index);
            let written = self.disk.write_whole(&path, body);
            written.map_err(|error| super::member::Halt::Stopped(error.to_string()))?;
            apply::snapshot::check(std::io::Cursor::new(&**body), &snapshot.meta).map_err(|error| {
                super::checks::Violation(format!("member {} was sent a bad snapshot: {error}", self.id))
            })?;
            cx.checks.carries(self.id, index.0, &snapshot.meta.conf_state)?;
        }
        self.receive(message, cx)
    }
}
