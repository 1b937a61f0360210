//! A few members in one thread: a network whose messages wait to be delivered, disks that write when
//! told, machines that only remember what they applied. Everything that happens is written down.
#![allow(dead_code, unreachable_pub)]

mod show;

use raft::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    pub hard_state: HardState,
    pub snapshot: SnapshotMeta,
    pub entries: Vec<Entry>,
}

pub struct Member {
    pub raft: Raft,
    config: Config,
    pub disk: Disk,
    /// Writes handed over and not yet durable, each with what it holds back.
    writes: VecDeque<(Persist, Vec<Message>)>,
    pub hold_disk: bool,
    pub hold_apply: bool,
    to_apply: VecDeque<Entry>,
    /// Applied commands, `index:text`.
    pub machine: Vec<(Index, String)>,
    pub applied: Index,
    pub conf_state: ConfState,
    down: bool,
    lives: u64,
}

#[derive(Default)]
pub struct Cluster {
    pub members: BTreeMap<NodeId, Member>,
    pub network: VecDeque<Message>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Snapshots that leaders asked for and did not get yet.
    wanted: VecDeque<(NodeId, NodeId)>,
    pub hold_snapshots: bool,
    /// Whether disks still have what memory has let go of, for leaders that ask.
    pub long_log: bool,
    pub reads: Vec<(NodeId, ReadOutcome)>,
    pub dropped: Vec<(NodeId, u64, DropReason)>,
    pub trace: String,
}

impl Cluster {
    /// Members with empty logs; those in `outsiders` know of nobody.
    pub fn new(conf_state: &ConfState, outsiders: &[u64], tune: impl Fn(&mut Config)) -> Cluster {
        let mut cluster = Cluster::default();
        for id in conf_state.members() {
            cluster.start_with(id, conf_state.clone(), &tune);
        }
        for id in outsiders {
            cluster.start_with(NodeId(*id), ConfState::default(), &tune);
        }
        cluster
    }

    pub fn voters(n: u64) -> Cluster {
        Cluster::new(&ConfState::of((1..=n).map(NodeId)), &[], |_| {})
    }

    pub fn start_with(&mut self, id: NodeId, conf_state: ConfState, tune: &impl Fn(&mut Config)) {
        let snapshot = SnapshotMeta { conf_state, ..SnapshotMeta::default() };
        self.start_from(id, Disk { snapshot, ..Disk::default() }, tune);
    }

    /// A member that finds `disk`.
    pub fn start_from(&mut self, id: NodeId, disk: Disk, tune: &impl Fn(&mut Config)) {
        let mut config = Config::new(id, id.0 * 1000);
        tune(&mut config);
        let (applied, conf_state) = (disk.snapshot.index, disk.snapshot.conf_state.clone());
        let raft = Raft::new(config.clone(), restored(&disk, applied, &conf_state)).unwrap();
        let member = Member {
            raft,
            config,
            disk,
            writes: VecDeque::new(),
            hold_disk: false,
            hold_apply: false,
            to_apply: VecDeque::new(),
            machine: Vec::new(),
            applied,
            conf_state,
            down: false,
            lives: 1,
        };
        self.members.insert(id, member);
    }

    pub fn raft(&self, id: u64) -> &Raft {
        &self.members[&NodeId(id)].raft
    }

    pub fn with<T>(&mut self, id: u64, act: impl FnOnce(&mut Raft) -> T) -> T {
        let result = act(&mut self.members.get_mut(&NodeId(id)).unwrap().raft);
        self.pump(NodeId(id));
        result
    }

    pub fn propose(&mut self, id: u64, text: &str) {
        let data = text.as_bytes().into();
        self.with(id, |raft| {
            raft.propose(vec![Proposal { id: 0, kind: EntryKind::Normal, data, only_in: None }])
        });
    }

    pub fn change(&mut self, id: u64, change: &ConfChangeV2) {
        let proposal =
            Proposal { id: 0, kind: EntryKind::ConfChangeV2, data: change.encode().into(), only_in: None };
        self.with(id, |raft| raft.propose(vec![proposal]));
    }

    pub fn campaign(&mut self, id: u64) {
        self.with(id, Raft::campaign);
    }

    pub fn elect(&mut self, id: u64) {
        self.campaign(id);
        self.deliver();
        assert_eq!(self.raft(id).leader(), Some(NodeId(id)));
    }

    pub fn tick(&mut self, id: u64, times: u64) {
        for _ in 0..times {
            self.with(id, Raft::tick);
        }
    }

    /// Carries out what a member wants, as far as nothing is held.
    pub fn pump(&mut self, id: NodeId) {
        let member = self.members.get_mut(&id).unwrap();
        if member.down {
            return;
        }
        while let Some(ready) = member.raft.ready() {
            show::ready(&mut self.trace, id, &ready);
            self.network.extend(ready.messages);
            match (ready.persist, member.writes.back_mut()) {
                (Some(persist), _) => member.writes.push_back((persist, ready.promises)),
                (None, Some(write)) => write.1.extend(ready.promises),
                (None, None) => self.network.extend(ready.promises),
            }
            if let Some(snapshot) = ready.install {
                member.to_apply.clear();
                member.machine.clear();
                member.conf_state = snapshot.meta.conf_state;
                member.applied = snapshot.meta.index;
                let text = String::from_utf8(snapshot.data.to_vec()).unwrap();
                member.machine.push((member.applied, text));
                member.raft.applied(member.applied);
            }
            member.to_apply.extend(ready.committed);
            self.reads.extend(ready.reads.into_iter().map(|read| (id, read)));
            self.dropped.extend(ready.dropped.into_iter().map(|(p, reason)| (id, p, reason)));
            for read in ready.log_reads {
                if self.long_log {
                    writeln!(self.trace, "{id} reads its log after {} for {}", read.after, read.to).unwrap();
                }
                member.read_log(read, self.long_log);
            }
            self.wanted.extend(ready.snapshots_wanted.into_iter().map(|to| (id, to)));
            if !member.hold_disk {
                while let Some(sent) = member.write() {
                    self.network.extend(sent);
                }
            }
            if !member.hold_apply {
                member.apply();
            }
        }
        if !self.hold_snapshots {
            self.make_snapshots();
        }
    }

    /// One write of `id` becomes durable.
    pub fn sync(&mut self, id: u64) {
        match self.members.get_mut(&NodeId(id)).unwrap().write() {
            Some(sent) => self.network.extend(sent),
            None => writeln!(self.trace, "{id} has nothing to write").unwrap(),
        }
        self.pump(NodeId(id));
    }

    pub fn apply(&mut self, id: u64) {
        self.members.get_mut(&NodeId(id)).unwrap().apply();
        self.pump(NodeId(id));
    }

    /// Gives leaders the snapshots they asked for.
    pub fn make_snapshots(&mut self) {
        while let Some((from, to)) = self.wanted.pop_front() {
            let member = self.members.get_mut(&from).unwrap();
            if member.down {
                continue;
            }
            let term = member.raft.status().hard_state.term;
            let index = member.applied;
            let term = member.disk.entries.iter().find(|e| e.index == index).map_or(term, |e| e.term);
            let conf_state = member.conf_state.clone();
            let data = format!("state at {index}").into_bytes().into();
            let snapshot = Snapshot { meta: SnapshotMeta { conf_state, index, term }, data };
            member.raft.provide_snapshot(to, snapshot);
            self.pump(from);
        }
    }

    pub fn cut(&mut self, a: u64, b: u64) {
        self.cut.insert((NodeId(a), NodeId(b)));
    }

    pub fn isolate(&mut self, id: u64) {
        for other in self.members.keys().copied().filter(|other| other.0 != id) {
            self.cut.insert((NodeId(id), other));
            self.cut.insert((other, NodeId(id)));
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Delivers everything until nothing moves.
    pub fn deliver(&mut self) {
        self.deliver_where(|_| true);
    }

    /// Delivers messages that `wanted` names, and what follows from them; the others wait.
    pub fn deliver_where(&mut self, wanted: impl Fn(&Message) -> bool) {
        let mut budget = 100_000;
        while let Some(at) = self.network.iter().position(&wanted) {
            budget -= 1;
            assert!(budget > 0, "messages without end");
            let message = self.network.remove(at).unwrap();
            self.arrive(message);
        }
    }

    /// Loses messages that `wanted` names; returns how many.
    pub fn lose_where(&mut self, wanted: impl Fn(&Message) -> bool) -> usize {
        let before = self.network.len();
        self.network.retain(|message| !wanted(message));
        before - self.network.len()
    }

    fn arrive(&mut self, message: Message) {
        // Of a request for a transfer, `from` is not who sent it.
        if self.cut.contains(&(message.from, message.to)) {
            return;
        }
        let Some(member) = self.members.get_mut(&message.to).filter(|m| !m.down) else { return };
        writeln!(self.trace, "{}", show::message(&message)).unwrap();
        let to = message.to;
        member.raft.step(message);
        self.pump(to);
    }

    /// Hands a message to a member as if it came from anywhere.
    pub fn receive(&mut self, from: u64, to: u64, term: u64, body: Body) {
        self.arrive(Message { from: NodeId(from), to: NodeId(to), term: Term(term), body });
    }

    /// What is not durable is gone.
    pub fn crash(&mut self, id: u64) {
        let member = self.members.get_mut(&NodeId(id)).unwrap();
        member.down = true;
        member.writes.clear();
        member.to_apply.clear();
    }

    pub fn restart(&mut self, id: u64) {
        let member = self.members.get_mut(&NodeId(id)).unwrap();
        member.lives += 1;
        member.config.seed += member.lives;
        let restored = restored(&member.disk, member.applied, &member.conf_state);
        member.raft = Raft::new(member.config.clone(), restored).unwrap();
        (member.down, member.hold_disk, member.hold_apply) = (false, false, false);
        self.pump(NodeId(id));
    }

    /// Writes and applies all that was held back.
    pub fn release(&mut self, id: u64) {
        let member = self.members.get_mut(&NodeId(id)).unwrap();
        while let Some(sent) = member.write() {
            self.network.extend(sent);
        }
        self.apply(id);
    }

    /// What waits to be delivered; then it is lost.
    pub fn show_network(&mut self) {
        for message in self.network.drain(..) {
            writeln!(self.trace, "{}", show::message(&message)).unwrap();
        }
    }

    pub fn show_log(&mut self, id: u64) {
        show::log(&mut self.trace, &self.members[&NodeId(id)].raft);
    }

    pub fn show_peers(&mut self, id: u64) {
        show::peers(&mut self.trace, &self.members[&NodeId(id)].raft);
    }

    pub fn show_conf(&mut self, id: u64) {
        let conf_state = self.raft(id).conf_state().clone();
        writeln!(self.trace, "{id}: {}", show::conf(&conf_state)).unwrap();
    }

    /// What a member's machine has applied.
    pub fn texts(&self, id: u64) -> Vec<&str> {
        self.members[&NodeId(id)].machine.iter().map(|(_, text)| text.as_str()).collect()
    }
}

fn restored(disk: &Disk, applied: Index, conf_state: &ConfState) -> Restored {
    let snapshot = SnapshotMeta { conf_state: conf_state.clone(), ..disk.snapshot };
    Restored { hard_state: disk.hard_state, snapshot, entries: disk.entries.clone(), applied }
}

impl Disk {
    fn write(&mut self, persist: Persist) {
        if let Some(snapshot) = persist.snapshot {
            self.snapshot = snapshot.meta;
            self.entries.clear();
        }
        if let Some(first) = persist.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        self.entries.extend(persist.entries);
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
    }
}

impl Member {
    fn write(&mut self) -> Option<Vec<Message>> {
        let (persist, promises) = self.writes.pop_front()?;
        let id = persist.id;
        self.disk.write(persist);
        self.raft.persisted(id);
        Some(promises)
    }

    fn read_log(&mut self, read: LogRead, long: bool) {
        let LogRead { to, after, upto, bytes } = read;
        let mut taken = 0;
        let wanted = self.disk.entries.iter().filter(|e| e.index > after && e.index <= upto);
        let fitting = wanted.take_while(|e| {
            taken += e.size();
            taken == e.size() || taken <= bytes
        });
        let entries = if long { fitting.cloned().collect() } else { Vec::new() };
        let before = self.disk.entries.iter().find(|e| e.index == after);
        self.raft.provide_log(to, after, before.map_or(Term(0), |e| e.term), entries);
    }

    fn apply(&mut self) {
        while let Some(entry) = self.to_apply.pop_front() {
            assert_eq!(entry.index, self.applied.next(), "applied in order, once");
            self.applied = entry.index;
            if entry.kind == EntryKind::Normal {
                let text = String::from_utf8(entry.data.to_vec()).unwrap();
                if !text.is_empty() {
                    self.machine.push((entry.index, text));
                }
            } else {
                let change = ConfChangeV2::decode(entry.kind, &entry.data).unwrap();
                if let Ok(next) = self.raft.apply_conf_change(&change) {
                    self.conf_state = next;
                }
            }
            self.raft.applied(entry.index);
        }
    }
}
