//! One member: the node, its disk, and its machine, which is a running digest.

use std::collections::VecDeque;
use std::sync::Arc;

use node::{
    Change, ChangeKind, ConfChange, ConfChangeV2, ConfState, Config, Entry, EntryKind, HardState, Index,
    Input, LogRead, Node, NodeId, Persist, Restored, Snapshot, SnapshotMeta, Term,
};

use super::checker::digest;

/// What the log's disk holds for certain: the log after `snapshot`.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: SnapshotMeta,
    /// The body that belongs to `snapshot`, until the machine has it.
    body: Option<Snapshot>,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Default)]
pub(crate) struct Machine {
    pub(crate) applied: Index,
    term: Term,
    pub(crate) digest: u64,
    pub(crate) conf_state: ConfState,
}

/// What the machine's thread is to do, in this order.
pub(crate) enum Work {
    Apply(Vec<Entry>),
    Install(Snapshot),
    Snapshot(NodeId),
    ReadLog(LogRead),
    /// Something was found out before, and is told only now.
    Tell(Input),
}

pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) node: Option<Node>,
    /// How often it has started: what was meant for an earlier life comes to nothing.
    pub(crate) life: u64,
    pub(crate) disk: Disk,
    /// Writes that wait for the disk; the first `syncing` of them are being synced.
    writes: VecDeque<Persist>,
    syncing: usize,
    /// A commit index that was written and not synced.
    loose: Option<HardState>,
    pub(crate) machine: Machine,
    flushed: Machine,
    pub(crate) work: VecDeque<Work>,
    /// Indexes and digests since the checker looked last.
    pub(crate) applied_log: Vec<(Index, u64)>,
    /// Time at which it goes on, if it stands still.
    pub(crate) paused_until: u64,
    /// Since then it has not stood still.
    pub(crate) runs_since: u64,
    /// Microseconds between two of its ticks.
    pub(crate) tick: u64,
    /// Until then its disk, or its machine, is slow.
    pub(crate) slow_disk_until: u64,
    pub(crate) slow_apply_until: u64,
    tune: u64,
}

impl Member {
    /// The first `founders` members begin with the founding entries in their logs, as etcd's do; the
    /// others know nothing.
    pub(crate) fn new(id: NodeId, founders: u64, tune: u64, tick: u64) -> Member {
        let founding = |node| {
            let change = Change { kind: ChangeKind::AddNode, node: NodeId(node) };
            let data = ConfChange { id: 0, change, context: Arc::default() }.encode().into();
            Entry { term: Term(1), index: Index(node), kind: EntryKind::ConfChange, data }
        };
        let mut disk = Disk { entries: (1..=founders).map(founding).collect(), ..Disk::default() };
        if founders > 0 {
            disk.hard_state = HardState { term: Term(1), vote: None, commit: Index(founders) };
        }
        Member {
            id,
            node: None,
            life: 0,
            disk,
            writes: VecDeque::new(),
            syncing: 0,
            loose: None,
            machine: Machine::default(),
            flushed: Machine::default(),
            work: VecDeque::new(),
            applied_log: Vec::new(),
            paused_until: 0,
            runs_since: 0,
            tick,
            slow_disk_until: 0,
            slow_apply_until: 0,
            tune,
        }
    }

    pub(crate) fn start(&mut self, seed: u64) {
        let mut config = Config::new(self.id, seed);
        // Small bounds, so that every one of them is met.
        config.limits.append_bytes = [100, 300, 1 << 20][(self.tune % 3) as usize];
        config.limits.window_messages = [1, 3, 64][(self.tune >> 8) as usize % 3];
        config.limits.catch_up_entries = [2, 10, 1000][(self.tune >> 16) as usize % 3];
        config.limits.uncommitted_bytes = [64, 100_000][(self.tune >> 24) as usize % 2];
        config.limits.apply_bytes = [80, 1 << 20][(self.tune >> 32) as usize % 2];
        config.limits.applying_bytes = [200, 1 << 20][(self.tune >> 40) as usize % 2];
        config.limits.reads = [3, 100][(self.tune >> 48) as usize % 2];
        config.limits.snapshot_ticks = 50;
        self.life += 1;
        // A snapshot whose record is in the log, but which the machine did not get, is installed
        // now: its body was durable before its record.
        self.machine = self.flushed.clone();
        if self.disk.snapshot.index > self.machine.applied {
            let body = self.disk.body.as_ref().expect("the body of a snapshot is durable before its record");
            self.machine = thaw(body);
            self.flushed = self.machine.clone();
        }
        let snapshot = SnapshotMeta { conf_state: self.machine.conf_state.clone(), ..self.disk.snapshot };
        let restored = Restored {
            hard_state: self.disk.hard_state,
            snapshot,
            entries: self.disk.entries.iter().cloned().collect(),
            applied: self.machine.applied,
        };
        self.node = Some(Node::new(config, restored).expect("a disk to start from"));
    }

    pub(crate) fn leads(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.leader() == Some(self.id))
    }

    pub(crate) fn term(&self) -> Term {
        self.node.as_ref().map_or(Term(0), |node| node.hard_state().term)
    }

    /// Takes a write; true if the disk was idle and begins a sync now.
    pub(crate) fn write(&mut self, persist: Persist) -> bool {
        self.writes.push_back(persist);
        self.begin_sync()
    }

    /// Everything that waits shares one sync. True if one begins now.
    pub(crate) fn begin_sync(&mut self) -> bool {
        let idle = self.syncing == 0;
        if idle {
            self.syncing = self.writes.len();
        }
        idle && self.syncing > 0
    }

    /// The sync is over.
    pub(crate) fn synced(&mut self) -> Option<Input> {
        let batch = self.writes.drain(..std::mem::take(&mut self.syncing));
        let mut id = None;
        for persist in batch {
            id = Some(persist.id);
            if persist.must_sync {
                // Whatever was written before rides along.
                self.disk.hard_state = self.loose.take().unwrap_or(self.disk.hard_state);
                self.disk.write(persist);
            } else {
                self.loose = persist.hard_state.or(self.loose);
            }
        }
        id.map(Input::Persisted)
    }

    /// The machine does what is first in its queue; what the node is to be told.
    pub(crate) fn do_work(&mut self, tell: &mut Vec<Input>) {
        match self.work.pop_front() {
            None => {}
            Some(Work::Apply(entries)) => {
                entries.iter().for_each(|entry| self.apply(entry, tell));
                tell.push(Input::Applied(self.machine.applied));
            }
            Some(Work::Install(snapshot)) => {
                self.machine = thaw(&snapshot);
                self.flushed = self.machine.clone();
                self.applied_log.push((self.machine.applied, self.machine.digest));
                tell.push(Input::Applied(self.machine.applied));
            }
            Some(Work::Snapshot(to)) => tell.push(Input::Snapshot { to, snapshot: freeze(&self.machine) }),
            Some(Work::Tell(input)) => tell.push(input),
            Some(Work::ReadLog(read)) => tell.push(self.disk.read(read)),
        }
    }

    fn apply(&mut self, entry: &Entry, tell: &mut Vec<Input>) {
        let machine = &mut self.machine;
        assert_eq!(entry.index, machine.applied.next(), "member {} applies in order, once", self.id);
        machine.applied = entry.index;
        machine.term = entry.term;
        machine.digest = digest(machine.digest, entry);
        self.applied_log.push((entry.index, machine.digest));
        if entry.kind != EntryKind::Normal {
            let change = ConfChangeV2::decode(entry.kind, &entry.data).expect("a change that was proposed");
            if let Ok(next) = machine.conf_state.changed(&change) {
                machine.conf_state = next;
                tell.push(Input::ApplyConfChange(change));
            }
        }
    }

    /// The machine becomes durable as it is. True if the log before it is then let go.
    pub(crate) fn flush(&mut self, release: bool) -> bool {
        self.flushed = self.machine.clone();
        let Machine { applied: index, term, .. } = self.flushed;
        let released = release && index > self.disk.snapshot.index && index <= self.disk.last();
        if released {
            self.disk.release(index, term);
        }
        released
    }

    /// Loses what is not durable. Of the writes under way some may have got through, and of the
    /// next one a part. Says whether one was torn, and whether one was lost that had been acknowledged.
    pub(crate) fn crash(&mut self, chance: u64) -> (bool, bool) {
        let lost = if chance & 0x200 != 0 { self.loose.take() } else { None };
        if let Some(state) = self.loose.take() {
            self.disk.hard_state = state;
        }
        let survive = chance as usize % (self.writes.len() + 1);
        for persist in self.writes.drain(..survive) {
            self.disk.write(persist);
        }
        let mut torn = false;
        if let Some(mut persist) = self.writes.pop_front()
            && persist.snapshot.is_none()
            && chance & 0x100 != 0
        {
            // Entries come before the hard state.
            persist.hard_state = None;
            persist.entries.truncate((chance >> 16) as usize % (persist.entries.len() + 1));
            torn = !persist.entries.is_empty();
            self.disk.write(persist);
        }
        self.writes.clear();
        self.work.clear();
        self.syncing = 0;
        self.node = None;
        self.paused_until = 0;
        (torn, lost.is_some())
    }

    /// Everything the node believes to be in its log, durable or not.
    pub(crate) fn believed(&self) -> Disk {
        let mut disk = self.disk.clone();
        self.writes.iter().for_each(|persist| disk.write(persist.clone()));
        disk
    }
}

impl Disk {
    fn write(&mut self, persist: Persist) {
        if let Some(snapshot) = persist.snapshot {
            self.snapshot = snapshot.meta.clone();
            self.body = Some(snapshot);
            self.entries.clear();
        }
        if let Some(first) = persist.entries.first() {
            let keep = first.index.0.saturating_sub(self.snapshot.index.0 + 1);
            self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        }
        // What a flush has released since may come again in no write.
        let begin = self.snapshot.index;
        self.entries.extend(persist.entries.into_iter().filter(|entry| entry.index > begin));
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
    }

    fn release(&mut self, index: Index, term: Term) {
        let gone = (index.0 - self.snapshot.index.0) as usize;
        self.entries.drain(..gone.min(self.entries.len()));
        self.snapshot = SnapshotMeta { index, term, ..SnapshotMeta::default() };
        self.body = None;
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.snapshot.index.0 + self.entries.len() as u64)
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.snapshot.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// What a leader wants for one who is behind; nothing if it has been released.
    pub(crate) fn read(&self, read: LogRead) -> Input {
        let LogRead { to, after, upto, bytes } = read;
        let before = self.entry(after).map(|entry| entry.term);
        let begin = (after == self.snapshot.index).then_some(self.snapshot.term);
        let Some(after_term) = before.or(begin) else {
            return Input::LogRead { to, after, after_term: Term(0), entries: Vec::new() };
        };
        let (mut taken, mut entries) = (0, Vec::new());
        for entry in (after.0 + 1..=upto.0).map_while(|index| self.entry(Index(index))) {
            taken += entry.size();
            if taken > bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Input::LogRead { to, after, after_term, entries }
    }
}

fn freeze(machine: &Machine) -> Snapshot {
    let Machine { applied: index, term, digest, conf_state } = machine.clone();
    Snapshot { meta: SnapshotMeta { conf_state, index, term }, data: digest.to_be_bytes().as_slice().into() }
}

fn thaw(snapshot: &Snapshot) -> Machine {
    let SnapshotMeta { conf_state, index, term } = snapshot.meta.clone();
    let digest = snapshot.data.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Machine { applied: index, term, digest, conf_state }
}
