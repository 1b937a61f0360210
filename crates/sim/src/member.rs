//! A member: the log, the node, the machine and the backend that ship, driven in one thread as the server's
//! threads drive them, with seeded chance in the place of the scheduler.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apply::{Machine, Shared};
use backend::{Backend, Storage};
use node::{Effect, Input, Node, Persist, Proposal};
use prost::Message as _;
use raft::{ConfState, Entry, EntryKind, HardState, Index, NodeId, SnapshotMeta, Term};
use wal::Wal;

use crate::disk::Disk;
use crate::random::Random;

const ID: u64 = 0x8e9e_05c5_2164_694d;

/// Sizes, small so that a short life sees many of everything.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes that the backend caches.
    pub cache_bytes: usize,
    /// Rows and changes that one flush carries.
    pub flush_rows: usize,
    /// Applied entries that a flush leaves in the log.
    pub catch_up: u64,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { segment_bytes: 4096, cache_bytes: 1 << 20, flush_rows: 16, catch_up: 2 }
    }
}

/// Why a member stopped: something on its disk failed. A server exits here.
#[derive(Debug)]
pub struct Stopped(pub String);

impl<E: std::error::Error> From<E> for Stopped {
    fn from(error: E) -> Stopped {
        Stopped(error.to_string())
    }
}

/// A member that runs.
pub struct Member {
    disk: Disk,
    wal: Wal,
    node: Node,
    machine: Machine,
    shared: Shared,
    backend: Backend,
    plan: Plan,
    random: Random,
    effects: Vec<Effect>,
    to_write: Vec<Persist>,
    to_apply: Vec<Vec<Entry>>,
    recovered: u64,
    /// The machine failed in the middle of an entry: nothing can be applied after that.
    broken: bool,
    /// What was written to the log in this life, by index, the newest where several were.
    written: Vec<(u64, Arc<[u8]>)>,
}

fn wal_dir() -> PathBuf {
    PathBuf::from("/member/wal")
}

impl Member {
    /// Starts on a disk, empty or not, and applies what is in the log.
    ///
    /// # Errors
    /// The disk failed, or what it holds was refused.
    pub fn start(disk: &Disk, plan: &Plan, seed: u64) -> Result<Member, Stopped> {
        let storage = disk.storage(Path::new("/member/store"));
        let options = backend::Options {
            cache_bytes: plan.cache_bytes,
            flush_rows: plan.flush_rows,
            ..backend::Options::default()
        };
        let backend = Backend::open(Storage::Custom(Box::new(storage)), options)?;
        let applied = Index(backend.consistent().index);

        let shared_disk: Arc<dyn wal::Disk> = Arc::new(disk.clone());
        let wal_options = wal::Options { segment_bytes: plan.segment_bytes };
        if !Wal::exists(disk, &wal_dir())? {
            if applied > Index(0) {
                return Err(Stopped(format!("entry {applied} was applied, and there is no log")));
            }
            let (hard_state, entry) = founder();
            let wal_options = wal_options.clone();
            let disk = shared_disk.clone();
            drop(Wal::found(disk, &wal_dir(), b"sim", wal_options, Some(&hard_state), &[entry])?);
        }
        let (wal, found) = Wal::open_with(shared_disk, &wal_dir(), applied, wal_options)?;
        let recovered = found.begins_after.0 + found.entries.len() as u64;
        let (machine, shared) = Machine::open(backend.clone(), apply::Options::default())?;
        let snapshot = match applied {
            Index(0) => SnapshotMeta::default(),
            index => SnapshotMeta {
                conf_state: machine.conf_state().clone(),
                index,
                term: Term(backend.consistent().term),
            },
        };
        let restored =
            node::Restored { hard_state: found.hard_state, snapshot, entries: found.entries, applied };
        let node = Node::new(node::Config::new(NodeId(ID), seed), restored)?;
        let mut member = Member {
            disk: disk.clone(),
            wal,
            node,
            machine,
            shared,
            backend,
            plan: plan.clone(),
            random: Random::new(seed),
            effects: Vec::new(),
            to_write: Vec::new(),
            to_apply: Vec::new(),
            recovered,
            broken: false,
            written: Vec::new(),
        };
        // What is committed is applied first; then a lone voter need not wait for an election.
        member.give(Input::Tick);
        member.settle()?;
        member.give(Input::Campaign);
        member.settle()?;
        Ok(member)
    }

    /// The last index that was in the log when it was opened.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    /// The last index applied.
    pub fn applied(&self) -> u64 {
        self.machine.applied().0.0
    }

    /// What was written to the log in this life, oldest first, acknowledged or not.
    pub fn written(&self) -> &[(u64, Arc<[u8]>)] {
        &self.written
    }

    /// What readers hold.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Puts commands on their way, in one go.
    pub fn propose(&mut self, commands: &[Vec<u8>]) {
        let proposal = |data: &Vec<u8>| Proposal {
            id: 1,
            kind: EntryKind::Normal,
            data: data.as_slice().into(),
            only_in: None,
        };
        self.give(Input::Propose(commands.iter().map(proposal).collect()));
    }

    /// One turn of the thread of the log: everything that waits, one sync.
    pub fn write(&mut self) -> Result<(), Stopped> {
        let mut last = None;
        let mut must_sync = false;
        for persist in std::mem::take(&mut self.to_write) {
            must_sync |= persist.must_sync;
            self.wal.append(persist.hard_state.as_ref(), &persist.entries)?;
            last = Some(persist.id);
        }
        if must_sync {
            self.wal.sync()?;
        }
        if let Some(id) = last {
            self.give(Input::Persisted(id));
        }
        self.wal.prepare()?;
        Ok(())
    }

    /// One turn of the thread that applies: everything that is committed, in runs of a few entries. If the
    /// store fails in the background meanwhile, the turn ends as it would have.
    pub fn apply(&mut self) -> Result<(), Stopped> {
        let mut background = Ok(());
        for entries in std::mem::take(&mut self.to_apply) {
            let mut rest = &entries[..];
            while !rest.is_empty() {
                let take = (1 + self.random.below(4) as usize).min(rest.len());
                let (run, later) = rest.split_at(take);
                background = background.and(self.apply_run(run)?);
                rest = later;
            }
        }
        background
    }

    /// The error is the machine's; what became of the work in the background is inside.
    fn apply_run(&mut self, run: &[Entry]) -> Result<Result<(), Stopped>, Stopped> {
        let mut told = None;
        let mut background = Ok(());
        for entry in run {
            if self.broken {
                return Err(Stopped("the machine failed before".into()));
            }
            let applied = self.machine.apply(entry, Duration::ZERO).inspect_err(|_| self.broken = true)?;
            if let Some(change) = applied.conf_change {
                self.give(Input::ApplyConfChange(change.into()));
            }
            // Who asked in an earlier life waits no more.
            if entry.index.0 > self.recovered && applied.id != 0 {
                told = Some(entry.index.0);
            }
            // The threads in the background do not wait for a batch to end.
            background = background.and(match self.random.below(16) {
                0 => self.flush(),
                1 => self.compact(),
                _ => Ok(()),
            });
        }
        self.machine.seal();
        self.give(Input::Applied(self.machine.applied().0));
        if let Some(index) = told {
            self.disk.acknowledge(index);
        }
        Ok(background)
    }

    /// Turns until nothing waits.
    pub fn settle(&mut self) -> Result<(), Stopped> {
        while !self.to_write.is_empty() || !self.to_apply.is_empty() {
            self.write()?;
            self.apply()?;
        }
        Ok(())
    }

    /// One turn of the flusher: moves what is applied to the store, notes in the log that it is there, and
    /// lets go of what the log holds twice.
    pub fn flush(&mut self) -> Result<(), Stopped> {
        let flushed = self.backend.flush()?;
        let conf_state = ConfState { voters: vec![NodeId(ID)], ..ConfState::default() };
        if flushed.index > 0 {
            let meta = SnapshotMeta { conf_state, index: Index(flushed.index), term: Term(flushed.term) };
            self.wal.append_snapshot(&meta)?;
            self.wal.sync()?;
            self.wal.release_to(Index(flushed.index.saturating_sub(self.plan.catch_up)))?;
        }
        Ok(())
    }

    /// One step of the compaction in the background.
    pub fn compact(&mut self) -> Result<(), Stopped> {
        self.shared.store.compact_step(4)?;
        Ok(())
    }

    fn give(&mut self, input: Input) {
        self.node.handle(input, &mut self.effects);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Persist(persist) => {
                    let commands = persist.entries.iter();
                    self.written.extend(commands.map(|entry| (entry.index.0, entry.data.clone())));
                    self.to_write.push(persist);
                }
                Effect::Apply(entries) => self.to_apply.push(entries),
                Effect::Dropped { reason, .. } => panic!("a lone leader dropped a proposal: {reason:?}"),
                _ => {}
            }
        }
    }
}

/// The entry that a new member's log begins with, and the hard state that goes with it.
fn founder() -> (HardState, Entry) {
    let founder =
        apply::Member { id: ID, peer_urls: vec!["http://localhost:2380".into()], ..apply::Member::default() };
    let change = api::raftpb::ConfChange {
        id: None,
        r#type: Some(api::raftpb::ConfChangeType::ConfChangeAddNode.into()),
        node_id: Some(ID),
        context: Some(apply::to_json(&founder)),
    };
    let data = change.encode_to_vec().into();
    let entry = Entry { term: Term(1), index: Index(1), kind: EntryKind::ConfChange, data };
    (HardState { term: Term(1), vote: None, commit: Index(1) }, entry)
}
