//! What the server's threads do, in the same order of effects: a mirror of `wal_thread.rs`,
//! `apply_thread.rs`, `flusher.rs`, `compactor.rs`, `clock_thread.rs`, `leases.rs`, `log_reader.rs` and
//! `snapshots.rs`.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use api::raft_request::{self, Command};
use node::{Input, NodeId, Proposal, Rounds};
use raft::{ConfChangeV2, Entry, EntryKind, Index, LogRead, Snapshot, SnapshotMeta, Term};
use watch::Batch;

use super::checks::ensure;
use super::member::{ApplyJob, Context, Done, Local, Member, WalJob, Writing, body_path, target};
use super::plan::{Fault, MILLISECOND, Time};
use super::requests::{AfterRead, Told};

/// How often the flusher looks.
const LOOK: Time = 500 * MILLISECOND;

impl Member {
    /// What is set going with the member itself.
    pub(crate) fn run(&mut self, cx: &mut Context<'_>) -> Done {
        let (tick, look) = (cx.random.below(cx.plan.tick), cx.random.below(LOOK));
        self.after(cx, tick, Local::Tick);
        self.after(cx, look, Local::Look);
        let soon = cx.random.below(LOOK);
        self.after(cx, soon, Local::Compact);
        // What the log holds is applied, and a lone voter leads, without waiting for the first tick.
        self.letters.tick(false);
        self.turn(cx)
    }

    // ---- the log ----------------------------------------------------------------------------

    /// Takes everything that waits into one batch, unless one is on its way.
    pub(crate) fn begin_to_write(&mut self, cx: &mut Context<'_>) -> Done {
        if self.writing.is_some() || self.wal_queue.is_empty() {
            return Ok(());
        }
        let mut writing = Writing { last: None, must_sync: false, release: None };
        for job in std::mem::take(&mut self.wal_queue) {
            match job {
                WalJob::Persist(persist) => {
                    writing.must_sync |= persist.must_sync;
                    if let Some(snapshot) = &persist.snapshot {
                        self.installed = self.installed.max(snapshot.meta.index);
                    }
                    self.unsynced.push_back(persist.clone());
                    self.wal.append_persist(&persist)?;
                    writing.last = Some(persist.id);
                }
                WalJob::Covered { meta, .. } if meta.index < self.installed => {}
                WalJob::Covered { meta, release_to } => {
                    self.wal.append_snapshot(&meta)?;
                    writing.must_sync = true;
                    writing.release = Some(release_to);
                }
            }
        }
        let delay = match writing.must_sync {
            true => MILLISECOND / 4 + cx.random.below(3 * MILLISECOND) + cx.slow_disk,
            false => cx.random.below(100),
        };
        self.writing = Some(writing);
        self.after(cx, delay, Local::Written);
        Ok(())
    }

    /// The disk is done with a batch.
    pub(crate) fn written(&mut self, cx: &mut Context<'_>) -> Done {
        let Some(Writing { last, must_sync, release }) = self.writing.take() else { return Ok(()) };
        if must_sync {
            self.wal.sync()?;
            for persist in self.unsynced.drain(..) {
                cx.checks.has_written(self.who.0, self.id, &persist)?;
            }
        }
        cx.note(&[5, self.id, last.map_or(0, |id| id.0)]);
        if let Some(id) = last {
            self.letters.persisted(id);
            self.drive(cx)?;
        }
        if let Some(index) = release {
            self.wal.release_to(index)?;
        }
        self.wal.prepare()?;
        self.begin_to_write(cx)
    }

    pub(crate) fn read_log(&mut self, read: LogRead, cx: &mut Context<'_>) -> Done {
        let (after_term, entries) =
            self.log_reader.read(read.after, read.upto, read.bytes)?.unwrap_or_default();
        cx.note(&[6, self.id, read.after.0, entries.len() as u64]);
        self.letters.of_peer(Input::LogRead { to: read.to, after: read.after, after_term, entries });
        self.drive(cx)
    }

    // ---- the machine ------------------------------------------------------------------------

    pub(crate) fn begin_to_apply(&mut self, cx: &mut Context<'_>) {
        if !self.applying && !self.apply_queue.is_empty() {
            self.applying = true;
            let delay = 20 + cx.random.below(200) + cx.slow_apply;
            self.after(cx, delay, Local::Apply);
        }
    }

    /// One run of entries, or an install.
    pub(crate) fn apply(&mut self, cx: &mut Context<'_>) -> Done {
        self.applying = false;
        match self.apply_queue.front_mut() {
            None => return Ok(()),
            Some(ApplyJob::Entries(entries)) => {
                let take = (1 + cx.random.below(16) as usize).min(entries.len());
                let run: Vec<Entry> = entries.drain(..take).collect();
                if entries.is_empty() {
                    self.apply_queue.pop_front();
                }
                self.apply_run(&run, cx)?;
            }
            Some(ApplyJob::Install(_)) => {
                if let Some(ApplyJob::Install(snapshot)) = self.apply_queue.pop_front() {
                    self.install(&snapshot, cx)?;
                }
            }
        }
        self.begin_to_apply(cx);
        Ok(())
    }

    fn apply_run(&mut self, run: &[Entry], cx: &mut Context<'_>) -> Done {
        let now = self.now(cx);
        let Some(last) = run.last().map(|entry| entry.index) else { return Ok(()) };
        let (mut answers, mut events) = (Vec::new(), Vec::new());
        let (mut configurations, mut leases) = (Vec::new(), false);
        for entry in run {
            let applied = self.machine.apply(entry, now)?;
            cx.checks.applies(self.id, entry, &applied, cx.queue.now)?;
            if entry.kind == EntryKind::Normal && entry.data.is_empty() {
                // What a leader appends first (R2).
                self.term_begun(entry.term, cx)?;
            }
            if let Some(committed) = applied.events {
                events.extend(committed.1);
            }
            if let Some(change) = applied.conf_change {
                configurations.push(ConfChangeV2::from(change));
                cx.checks.configures(self.id, entry.index.0, self.machine.conf_state())?;
            }
            leases |= is_about_leases(&entry.data);
            if let Some(waiter) = self.waiters.remove(&applied.id).filter(|_| applied.id != 0) {
                cx.checks.acknowledges(entry.index.0, cx.machines)?;
                answers.push((waiter, applied.outcome));
            }
        }
        self.machine.seal();
        cx.note(&[7, self.id, last.0, self.shared.store.current_revision() as u64]);
        if leases {
            cx.checks.has_leases(self.id, last.0, &self.shared.lessor.lock())?;
        }
        self.release_reads(last, cx)?;
        let reconfigured = !configurations.is_empty();
        self.letters.applied(last, &mut configurations);
        if reconfigured {
            let cluster = self.shared.cluster.get();
            if cluster.removed.contains(&self.id) {
                self.after(cx, 1000 * MILLISECOND, Local::Leave);
            }
            self.drive(cx)?;
        }
        for (waiter, outcome) in answers {
            self.applied_for(waiter, outcome, cx)?;
        }
        if let Some(batch) = Batch::new(events).map(Arc::new) {
            if cx.plan.may(Fault::WatchLag) && cx.random.one_in(40) {
                // The mailbox was full.
                cx.tally.count(Fault::WatchLag);
                self.hub.skip_to(batch.last);
            } else {
                self.hub.publish(&batch);
            }
        }
        Ok(())
    }

    fn install(&mut self, snapshot: &Snapshot, cx: &mut Context<'_>) -> Done {
        let meta = &snapshot.meta;
        let path = body_path(meta.index);
        let body = self.disk.read(&path);
        ensure!(body.is_some(), "member {} has no body for the snapshot at {}", self.id, meta.index);
        let disk = self.disk.clone();
        let installed = self.machine.install(Cursor::new(body.unwrap_or_default()), meta, target(&disk))?;
        let _ = wal::Disk::remove(&disk, &path);
        cx.note(&[8, self.id, meta.index.0, installed.revision as u64]);
        cx.tally.count(Fault::Snapshot);
        cx.checks.stands_at(self.id, meta.index.0, installed.revision)?;
        cx.checks.has_leases(self.id, meta.index.0, &self.shared.lessor.lock())?;
        cx.checks.carries(self.id, meta.index.0, self.machine.conf_state())?;
        let revision = installed.revision;
        cx.checks.compare_hash(self.id, &self.shared.store, revision)?;
        self.letters.installed(meta.index);
        // V3, planted: install-unannounced.
        if !planted::is("install-unannounced") {
            self.hub.skip_to(installed.revision);
        }
        self.release_reads(meta.index, cx)?;
        self.drive(cx)
    }

    // ---- in the background ------------------------------------------------------------------

    /// Looks whether what is applied is old enough to be flushed.
    pub(crate) fn look(&mut self, cx: &mut Context<'_>) {
        let age = cx.now() - self.flushed_at;
        if !self.flushing && age >= cx.plan.flush_age {
            self.flushing = true;
            let delay = MILLISECOND + cx.random.below(20 * MILLISECOND) + 2 * cx.slow_disk;
            self.after(cx, delay, Local::Flushed);
        }
        self.after(cx, LOOK, Local::Look);
    }

    pub(crate) fn flushed(&mut self, cx: &mut Context<'_>) -> Done {
        self.flushing = false;
        let flushed = self.backend.flush()?;
        self.flushed_at = cx.now();
        cx.note(&[9, self.id, flushed.index, flushed.rows as u64]);
        if flushed.index >= self.noted + cx.plan.snapshot_count {
            self.noted = flushed.index;
            let conf_state = flushed.conf_state.as_deref().and_then(apply::snapshot::conf_state_of);
            let conf_state = conf_state.unwrap_or_default();
            cx.checks.carries(self.id, flushed.index, &conf_state)?;
            let meta = SnapshotMeta { conf_state, index: Index(flushed.index), term: Term(flushed.term) };
            let mut release_to = Index(flushed.index.saturating_sub(cx.plan.catch_up));
            // A8, planted: release-unflushed.
            if planted::is("release-unflushed") {
                release_to = self.machine.applied().0;
            }
            self.wal_queue.push(WalJob::Covered { meta, release_to });
            self.begin_to_write(cx)?;
        }
        Ok(())
    }

    pub(crate) fn compact(&mut self, cx: &mut Context<'_>) -> Done {
        let step = self.shared.store.compact_step(1 + cx.random.below(40) as usize)?;
        let delay = match step.state {
            mvcc::ProgressState::More => 10 * MILLISECOND + cx.random.below(50 * MILLISECOND),
            mvcc::ProgressState::Done => 2000 * MILLISECOND,
        };
        self.after(cx, delay, Local::Compact);
        Ok(())
    }

    pub(crate) fn make_snapshot(&mut self, to: NodeId, cx: &mut Context<'_>) -> Done {
        let taken = apply::snapshot::take(&self.backend)?;
        let meta = taken.meta().clone();
        cx.checks.carries(self.id, meta.index.0, &meta.conf_state)?;
        let body = taken.write_to(Cursor::new(Vec::new()))?.into_inner();
        cx.note(&[10, self.id, to.0, meta.index.0, body.len() as u64]);
        self.bodies.insert(to.0, (meta.index, Arc::new(body)));
        let snapshot = Snapshot { meta, data: Arc::from([]) };
        // Handed over after what the machine has done: raft knows by then that it is applied.
        self.letters.of_peer(Input::Snapshot { to, snapshot });
        self.turn(cx)
    }

    // ---- the clock --------------------------------------------------------------------------

    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) -> Done {
        let now = self.clock.read(cx.now());
        let waited = now - self.last_tick;
        self.last_tick = now;
        // However many ticks were missed, they count as one (R21).
        self.letters.tick(waited > cx.plan.election_timeout());
        self.reads.resume();
        self.reads.give_up(self.now(cx), Rounds::<AfterRead>::LOST);
        if self.leader != 0 && !self.postponed.is_empty() {
            for id in std::mem::take(&mut self.postponed) {
                self.outbox.extend(self.waiters.get(&id).map(|waiter| waiter.proposal.clone()));
            }
        }
        self.hub.tick(Duration::from_micros(now));
        if self.leading {
            self.lease_tick(cx)?;
        }
        let next = self.clock.really(cx.plan.tick);
        self.after(cx, next, Local::Tick);
        self.drive(cx)
    }

    fn lease_tick(&mut self, cx: &mut Context<'_>) -> Done {
        let now = self.now(cx);
        let mut lessor = self.shared.lessor.lock();
        let term = self.reign;
        let mut proposals: Vec<Proposal> = lessor
            .expired(now, 100)
            .into_iter()
            .map(|id| own_proposal(&LeaseRevokeRequest { id: id.0 }, term))
            .collect();
        cx.tally.0[Fault::LeaseExpiry as usize] += proposals.len() as u64;
        let due = lessor.checkpoints_due(now, 100);
        drop(lessor);
        if !due.is_empty() {
            let checkpoints = due
                .into_iter()
                .map(|(id, remaining)| LeaseCheckpoint { id: id.0, remaining_ttl: remaining })
                .collect();
            proposals.push(own_proposal(&LeaseCheckpointRequest { checkpoints }, term));
        }
        self.outbox.append(&mut proposals);
        Ok(())
    }

    /// Starts the clock of every lease once the first entry of this leader's own term is applied.
    fn term_begun(&mut self, term: Term, cx: &mut Context<'_>) -> Done {
        let mut lessor = self.shared.lessor.lock();
        if self.leading && self.term == term.0 && !lessor.is_primary() {
            let extend = Duration::from_micros(cx.plan.election_timeout());
            let now = self.now(cx);
            lessor.promote(extend, now);
            self.reign = term;
            // No lease gets more than its last checkpoint left it, and an election.
            for (id, (ttl, remaining)) in cx.checks.leases_at(cx.checks.last()) {
                let most = if *remaining > 0 { *remaining } else { *ttl } + extend.as_secs() as i64 + 1;
                let left = lessor.time_to_live(lease::LeaseId(*id), now).map_or(0, |left| left.remaining);
                ensure!(
                    left <= most,
                    "lease {id} has {left} s at a new leader, {most} at the most by the log"
                );
            }
        }
        Ok(())
    }

    /// Tells a client, unless the answer is lost on its way.
    pub(crate) fn answer(&mut self, token: super::requests::Token, told: Told, cx: &mut Context<'_>) {
        if cx.lost_answers > 0 && cx.random.below(1000) < cx.lost_answers {
            return cx.tally.count(Fault::LostAnswer);
        }
        let delay = 100 + cx.random.below(2 * MILLISECOND);
        cx.queue.after(delay, super::member::What::Answer(token, told));
    }
}

/// Encodes a request that the member itself makes; nobody waits for its answer.
fn own_proposal(command: &impl Command, term: Term) -> Proposal {
    let data = raft_request::encode(0, command).into();
    // L1, planted: revoke-in-any-term.
    let only_in = Some(term).filter(|_| !planted::is("revoke-in-any-term"));
    Proposal { id: u64::MAX, kind: EntryKind::Normal, data, only_in }
}

/// Whether an entry may change the table of leases: looked up by its first field.
fn is_about_leases(data: &[u8]) -> bool {
    // Fields 8, 9 and 11 of `InternalRaftRequest`, as length-delimited.
    matches!(data.first(), Some(0x42 | 0x4a | 0x5a))
}
