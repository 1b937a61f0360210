//! One member: the node, its disk, and its machine, which is a running digest.

use super::checker::digest;
use node::*;
use std::collections::VecDeque;

/// What the log's disk holds for certain.
#[derive(Clone, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub snapshot: SnapshotMeta,
    /// The body that belongs to `snapshot`, until the machine has it.
    pub body: Option<Snapshot>,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Default)]
pub struct Machine {
    pub applied: Index,
    pub term: Term,
    pub digest: u64,
    pub conf_state: ConfState,
}

pub enum Work {
    Apply(Vec<Entry>),
    Install(Snapshot),
    Snapshot(NodeId),
    NoSnapshot(NodeId),
    ReadLog(LogRead),
    Sent(NodeId, bool),
}

pub struct Server {
    pub id: NodeId,
    pub node: Option<Node>,
    pub disk: Disk,
    writes: VecDeque<(u64, Persist)>,
    pub machine: Machine,
    flushed: Machine,
    work: VecDeque<(u64, Work)>,
    inputs: VecDeque<Input>,
    pub applied_log: Vec<(Index, Term, u64)>,
    pub paused_until: u64,
    pub was_paused: bool,
    tune: u64,
}

impl Server {
    /// The first `founders` members begin with their own addition in the log, as etcd's do.
    pub fn new(id: NodeId, founders: u64, _seed: u64, tune: u64) -> Server {
        let founding = |node| {
            let change = Change { kind: ChangeKind::AddNode, node: NodeId(node) };
            let data = ConfChange { id: 0, change, context: [].into() }.encode().into();
            Entry { term: Term(1), index: Index(node), kind: EntryKind::ConfChange, data }
        };
        let entries = (1..=founders).map(founding).collect();
        let mut disk = Disk { entries, ..Disk::default() };
        if founders > 0 {
            disk.hard_state = HardState { term: Term(1), vote: None, commit: Index(founders) };
        }
        Server {
            id,
            node: None,
            disk,
            writes: VecDeque::new(),
            machine: Machine::default(),
            flushed: Machine::default(),
            work: VecDeque::new(),
            inputs: VecDeque::new(),
            applied_log: Vec::new(),
            paused_until: 0,
            was_paused: false,
            tune,
        }
    }

    pub fn start(&mut self, seed: u64) {
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
        // A snapshot whose record is in the log, but which the machine did not get, is installed
        // now: its body was durable before its record.
        self.machine = self.flushed.clone();
        if self.disk.snapshot.index > self.machine.applied {
            self.machine = thaw(&self.disk.body.clone().unwrap());
            self.flushed = self.machine.clone();
        }
        let snapshot = SnapshotMeta { conf_state: self.machine.conf_state.clone(), ..self.disk.snapshot };
        let restored = Restored {
            hard_state: self.disk.hard_state,
            snapshot,
            entries: self.disk.entries.clone(),
            applied: self.machine.applied,
        };
        self.node = Some(Node::new(config, restored).unwrap());
    }

    pub fn leads(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.leader() == Some(self.id))
    }

    pub fn disk_gets(&mut self, due: u64, persist: Persist) {
        let due = self.writes.back().map_or(due, |(before, _)| due.max(*before));
        self.writes.push_back((due, persist));
    }

    pub fn machine_gets(&mut self, due: u64, work: Work) {
        if matches!(work, Work::Apply(_) | Work::Install(_)) {
            let before = self.work.iter().filter(|(_, w)| matches!(w, Work::Apply(_) | Work::Install(_)));
            let due = before.map(|(due, _)| *due).max().unwrap_or(0).max(due);
            self.work.push_back((due, work));
        } else {
            self.work.push_back((due, work));
        }
    }

    /// The next thing to tell the node.
    pub fn next_due(&mut self, now: u64) -> Option<Input> {
        if self.node.is_none() || self.paused_until > now {
            return None;
        }
        if let Some(input) = self.inputs.pop_front() {
            return Some(input);
        }
        if self.writes.front().is_some_and(|(due, _)| *due <= now) {
            let (_, persist) = self.writes.pop_front().unwrap();
            let id = persist.id;
            self.disk.write(persist);
            return Some(Input::Persisted(id));
        }
        let at = self.work.iter().position(|(due, _)| *due <= now)?;
        let (_, work) = self.work.remove(at).unwrap();
        self.do_work(work);
        self.next_due(now)
    }

    fn do_work(&mut self, work: Work) {
        match work {
            Work::Apply(entries) => {
                entries.into_iter().for_each(|entry| self.apply(&entry));
                self.inputs.push_back(Input::Applied(self.machine.applied));
            }
            Work::Install(snapshot) => {
                self.machine = thaw(&snapshot);
                self.flushed = self.machine.clone();
                self.applied_log.push((self.machine.applied, self.machine.term, self.machine.digest));
                self.inputs.push_back(Input::Applied(self.machine.applied));
            }
            Work::Snapshot(to) => {
                let snapshot = freeze(&self.machine);
                self.inputs.push_back(Input::Snapshot { to, snapshot });
            }
            Work::ReadLog(read) => self.inputs.push_back(self.disk.read(read)),
            Work::NoSnapshot(to) => self.inputs.push_back(Input::SnapshotSent { to, arrived: false }),
            Work::Sent(to, arrived) => self.inputs.push_back(Input::SnapshotSent { to, arrived }),
        }
    }

    fn apply(&mut self, entry: &Entry) {
        let machine = &mut self.machine;
        assert_eq!(entry.index.0, machine.applied.0 + 1, "member {} applies in order, once", self.id);
        machine.applied = entry.index;
        machine.term = entry.term;
        machine.digest = digest(machine.digest, entry);
        self.applied_log.push((entry.index, entry.term, machine.digest));
        if entry.kind != EntryKind::Normal {
            let change = ConfChangeV2::decode(entry.kind, &entry.data).unwrap();
            if let Ok(next) = machine.conf_state.changed(&change) {
                machine.conf_state = next;
                self.inputs.push_back(Input::ApplyConfChange(change));
            }
        }
    }

    /// The machine becomes durable as it is; then, perhaps, the log before it is let go.
    pub fn flush(&mut self, release: bool) {
        if self.node.is_none() {
            return;
        }
        self.flushed = self.machine.clone();
        let Machine { applied: index, term, .. } = self.flushed;
        if release && index > self.disk.snapshot.index {
            self.disk.snapshot = SnapshotMeta { index, term, ..SnapshotMeta::default() };
            self.disk.body = None;
            self.disk.entries.retain(|entry| entry.index > index);
        }
    }

    /// Loses what is not durable. Of the writes under way some may have got through, and of the
    /// next one a part.
    pub fn crash(&mut self, torn: u64) {
        let survive = torn as usize % (self.writes.len() + 1);
        for (_, persist) in self.writes.drain(..survive) {
            self.disk.write(persist);
        }
        if let Some((_, mut persist)) = self.writes.pop_front()
            && persist.snapshot.is_none()
            && torn & 0x100 != 0
        {
            // Entries come before the hard state.
            persist.hard_state = None;
            persist.entries.truncate((torn >> 16) as usize % (persist.entries.len() + 1));
            self.disk.write(persist);
        }
        self.writes.clear();
        self.work.clear();
        self.inputs.clear();
        self.node = None;
        (self.paused_until, self.was_paused) = (0, false);
    }

    /// Everything the node believes to be in its log, durable or not, from `disk.snapshot` on.
    pub fn believed(&self) -> Disk {
        let mut disk = self.disk.clone();
        self.writes.iter().for_each(|(_, persist)| disk.write(persist.clone()));
        disk
    }
}

impl Disk {
    pub fn write(&mut self, persist: Persist) {
        if let Some(snapshot) = persist.snapshot {
            self.snapshot = snapshot.meta.clone();
            self.body = Some(snapshot);
            self.entries.clear();
        }
        if let Some(first) = persist.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        // What a flush has released since may come again in no write.
        self.entries.extend(persist.entries.into_iter().filter(|e| e.index > self.snapshot.index));
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
    }

    /// What a leader wants for one who is behind; nothing if it has been released.
    fn read(&self, read: LogRead) -> Input {
        let LogRead { to, after, upto, bytes } = read;
        let mut taken = 0;
        let wanted = self.entries.iter().filter(|e| e.index > after && e.index <= upto);
        let fitting = wanted.take_while(|e| {
            taken += e.size();
            taken == e.size() || taken <= bytes
        });
        let entry = self.entries.iter().find(|e| e.index == after).map(|e| e.term);
        let after_term = if after == self.snapshot.index { Some(self.snapshot.term) } else { entry };
        match after_term {
            Some(after_term) => Input::LogRead { to, after, after_term, entries: fitting.cloned().collect() },
            None => Input::LogRead { to, after, after_term: Term(0), entries: Vec::new() },
        }
    }

    pub fn last(&self) -> Index {
        self.entries.last().map_or(self.snapshot.index, |entry| entry.index)
    }
}

fn freeze(machine: &Machine) -> Snapshot {
    let Machine { applied: index, term, digest, conf_state } = machine.clone();
    Snapshot { meta: SnapshotMeta { conf_state, index, term }, data: digest.to_be_bytes().as_slice().into() }
}

fn thaw(snapshot: &Snapshot) -> Machine {
    let SnapshotMeta { conf_state, index, term } = snapshot.meta.clone();
    let digest = u64::from_be_bytes(snapshot.data[..].try_into().unwrap());
    Machine { applied: index, term, digest, conf_state }
}
