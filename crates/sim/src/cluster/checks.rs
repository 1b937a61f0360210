//! What must stay true of logs, leaders and states, whoever looks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::etcdserverpb::InternalRaftRequest;
use apply::{Applied, Outcome};
use mvcc::Store;
use node::Persist;
use prost::Message as _;
use raft::{ConfState, Entry, EntryKind, HardState, NodeId};

use super::plan::Time;
use crate::model::Model;

/// What has been found to be wrong.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

pub(crate) type Checked = Result<(), Violation>;

/// Returns a [`Violation`] unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err($crate::cluster::checks::Violation(format!($($words)+)).into());
        }
    };
}
pub(crate) use ensure;

/// The terms of a log, and what a member must not forget.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogMirror {
    base: u64,
    base_term: u64,
    terms: Vec<u64>,
    pub(crate) hard_state: HardState,
}

impl LogMirror {
    pub(crate) fn new(base: (u64, u64), entries: &[Entry], hard_state: HardState) -> LogMirror {
        let terms = entries.iter().map(|entry| entry.term.0).collect();
        LogMirror { base: base.0, base_term: base.1, terms, hard_state }
    }

    /// What lies before is covered by the state, or will be once a snapshot is installed.
    pub(crate) fn begin(&self) -> u64 {
        self.base
    }

    pub(crate) fn last(&self) -> u64 {
        self.base + self.terms.len() as u64
    }

    /// The term of an entry; `None` where there is none, or it is covered by the state.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base {
            return Some(self.base_term);
        }
        let at = usize::try_from(index.checked_sub(self.base + 1)?).ok()?;
        self.terms.get(at).copied()
    }

    /// Whether it has this entry, or a state that contains it.
    pub(crate) fn holds(&self, index: u64, term: u64) -> bool {
        index < self.base || self.term(index) == Some(term)
    }

    pub(crate) fn write(&mut self, persist: &Persist) {
        if let Some(snapshot) = &persist.snapshot {
            *self = LogMirror {
                base: snapshot.meta.index.0,
                base_term: snapshot.meta.term.0,
                terms: Vec::new(),
                hard_state: self.hard_state,
            };
        }
        if let Some(first) = persist.entries.first() {
            self.terms.truncate(first.index.0.saturating_sub(self.base + 1) as usize);
            self.terms.extend(persist.entries.iter().map(|entry| entry.term.0));
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
    }
}

/// One entry that somebody has applied.
#[derive(Debug)]
struct Committed {
    term: u64,
    hash: u64,
    outcome: Outcome,
    revision: i64,
    changes: u64,
}

/// What is left of a lease according to the log: granted seconds, and seconds at the last checkpoint.
pub(crate) type LeaseTable = BTreeMap<i64, (i64, i64)>;

/// One change of a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) key: bytes::Bytes,
    pub(crate) tombstone: bool,
    pub(crate) kv: api::mvccpb::KeyValue,
}

/// The end of a lease: by its client's wish or because its time was up, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) at: Time,
    pub(crate) index: u64,
    pub(crate) by_client: bool,
}

/// All that is known of the whole cluster.
pub(crate) struct Checks {
    leaders: BTreeMap<u64, u64>,
    votes: HashMap<(u64, u64), u64>,
    /// Hash of every entry written anywhere, and the term of the one before it.
    written: HashMap<(u64, u64), (u64, u64)>,
    committed: Vec<Committed>,
    /// By revision.
    pub(crate) changes: BTreeMap<i64, Vec<Change>>,
    /// By key: revision and value.
    pub(crate) versions: HashMap<bytes::Bytes, Vec<(i64, Option<api::mvccpb::KeyValue>)>>,
    pub(crate) compacted: i64,
    leases: BTreeMap<u64, Arc<LeaseTable>>,
    pub(crate) ended: BTreeMap<i64, Ended>,
    /// Until when leases were promised to last, by their clients' reckoning: since when, and how long.
    promises: BTreeMap<i64, (Time, Time)>,
    /// What the log says is left of leases in seconds, and since when.
    notes: BTreeMap<i64, (Time, i64)>,
    /// When clocks jumped ahead, and by how much.
    pub(crate) jumps: Vec<(Time, Time)>,
    /// How much faster than time a clock may run, in thousandths.
    drift: u64,
    confs: BTreeMap<u64, ConfState>,
    hashes: HashMap<(i64, i64), u32>,
    pub(crate) model: Model,
    /// What each machine's disk is known to have of the log.
    pub(crate) durable: Vec<LogMirror>,
    /// Comparisons of hashes that were made.
    pub(crate) compared: u64,
    min_ttl: i64,
}

/// A quick hash of bytes, the same in every run.
pub(crate) fn digest(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    hash ^ bytes.len() as u64
}

fn entry_hash(entry: &Entry) -> u64 {
    digest(&entry.data, entry.term.0 << 2 | u64::from(entry.kind.number()))
}

impl Checks {
    pub(crate) fn new(machines: usize, min_ttl: i64, drift: u64) -> Checks {
        Checks {
            promises: BTreeMap::new(),
            notes: BTreeMap::new(),
            jumps: Vec::new(),
            drift,
            leaders: BTreeMap::new(),
            votes: HashMap::new(),
            written: HashMap::new(),
            committed: Vec::new(),
            changes: BTreeMap::new(),
            versions: HashMap::new(),
            compacted: -1,
            leases: BTreeMap::from([(0, Arc::default())]),
            ended: BTreeMap::new(),
            confs: BTreeMap::from([(0, ConfState::default())]),
            hashes: HashMap::new(),
            model: Model::default(),
            durable: vec![LogMirror::default(); machines],
            compared: 0,
            min_ttl,
        }
    }

    /// The last entry that anybody has applied.
    pub(crate) fn last(&self) -> u64 {
        self.committed.len() as u64
    }

    /// The revision after an entry.
    pub(crate) fn revision_at(&self, index: u64) -> i64 {
        match index {
            0 => 1,
            _ => self.committed.get(index as usize - 1).map_or(1, |one| one.revision),
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision_at(self.last())
    }

    pub(crate) fn leases_at(&self, index: u64) -> &LeaseTable {
        self.leases.range(..=index).next_back().map(|(_, table)| &**table).expect("there is one at 0")
    }

    pub(crate) fn conf_at(&self, index: u64) -> &ConfState {
        self.confs.range(..=index).next_back().map(|(_, conf)| conf).expect("there is one at 0")
    }

    /// Log matching, and one vote a term.
    pub(crate) fn writes(&mut self, id: u64, log: &LogMirror, persist: &Persist) -> Checked {
        let mut previous = persist.entries.first().and_then(|first| log.term(first.index.0 - 1));
        for entry in &persist.entries {
            let (index, term, hash) = (entry.index.0, entry.term.0, entry_hash(entry));
            let before = previous.replace(term).unwrap_or(0);
            let known = self.written.entry((index, term)).or_insert((hash, before));
            ensure!(
                known.1 == before || before == 0 || known.1 == 0,
                "log matching: before entry {index} of term {term} comes term {before} at member {id}, {} elsewhere",
                known.1
            );
            ensure!(known.0 == hash, "two entries {index} of term {term}, one at member {id}");
            if let Some(committed) = self.committed.get(index as usize - 1) {
                ensure!(
                    committed.term == term || term < committed.term || log.hard_state.term.0 < committed.term,
                    "member {id} writes entry {index} of term {term} where term {} is committed",
                    committed.term
                );
            }
        }
        Ok(())
    }

    /// A write is durable: what it promises may be said, and must never be taken back.
    pub(crate) fn has_written(&mut self, slot: usize, id: u64, persist: &Persist) -> Checked {
        self.durable[slot].write(persist);
        if let Some(HardState { term, vote: Some(vote), .. }) = persist.hard_state {
            let known = *self.votes.entry((id, term.0)).or_insert(vote.0);
            ensure!(known == vote.0, "member {id} votes for {known} and for {vote} in term {term}");
        }
        Ok(())
    }

    /// Election safety and leader completeness.
    pub(crate) fn leads(&mut self, id: u64, term: u64, log: &LogMirror) -> Checked {
        let known = *self.leaders.entry(term).or_insert(id);
        ensure!(known == id, "members {known} and {id} both lead in term {term}");
        let before = self.committed.iter().rposition(|committed| committed.term < term);
        if let Some(at) = before {
            let (index, committed) = (at as u64 + 1, &self.committed[at]);
            ensure!(
                log.holds(index, committed.term),
                "member {id} leads in term {term} without entry {index} of term {}, which is committed",
                committed.term
            );
        }
        Ok(())
    }

    /// A member applies an entry: the same one as everybody, with the same outcome.
    pub(crate) fn applies(&mut self, id: u64, entry: &Entry, applied: &Applied, now: Time) -> Checked {
        let (index, term, hash) = (entry.index.0, entry.term.0, entry_hash(entry));
        let changes = changes_hash(applied);
        if let Some(known) = self.committed.get(index as usize - 1) {
            ensure!(
                (known.term, known.hash) == (term, hash),
                "member {id} applies entry {index} of term {term}, another applied one of term {}",
                known.term
            );
            ensure!(
                known.outcome == applied.outcome,
                "entry {index} came to {:?} at member {id}, to {:?} elsewhere",
                applied.outcome,
                known.outcome
            );
            ensure!(known.changes == changes, "entry {index} changed other things at member {id}");
            return Ok(());
        }
        ensure!(index == self.last() + 1, "member {id} applies entry {index} after {}", self.last());
        let mut revision = self.revision();
        if let Some((at, events)) = &applied.events {
            ensure!(*at == revision + 1, "entry {index} makes revision {at} after {revision}");
            revision = *at;
            self.remember(*at, events);
        }
        if let Ok(reply) = &applied.outcome {
            ensure!(
                reply.revision == revision,
                "entry {index} is answered with revision {} at {revision}",
                reply.revision
            );
        }
        let outcome = applied.outcome.clone();
        self.committed.push(Committed { term, hash, outcome, revision, changes });
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            self.model.apply(&entry.data);
            self.follow_leases(entry, applied, now)?;
        }
        ensure!(
            self.model.revision == revision,
            "after entry {index} the revision is {revision}, it should be {}",
            self.model.revision
        );
        self.compacted = self.model.compacted;
        Ok(())
    }

    fn remember(&mut self, revision: i64, events: &[mvcc::Event]) {
        let mut list = Vec::with_capacity(events.len());
        for event in events {
            let kv = api::mvccpb::KeyValue::decode(event.record.clone()).unwrap_or_default();
            let key = bytes::Bytes::copy_from_slice(&event.key);
            let version = (!event.tombstone).then(|| kv.clone());
            self.versions.entry(key.clone()).or_default().push((revision, version));
            list.push(Change { key, tombstone: event.tombstone, kv });
        }
        self.changes.insert(revision, list);
    }

    fn follow_leases(&mut self, entry: &Entry, applied: &Applied, now: Time) -> Checked {
        let Ok(request) = InternalRaftRequest::decode(&*entry.data) else { return Ok(()) };
        if applied.outcome.is_err() {
            return Ok(());
        }
        let index = entry.index.0;
        let mut table = LeaseTable::clone(self.leases_at(index));
        if let Some(grant) = &request.lease_grant {
            table.insert(grant.id, (grant.ttl.max(self.min_ttl), 0));
        } else if let Some(revoke) = &request.lease_revoke {
            table.remove(&revoke.id);
            let by_client = request.header.as_ref().is_some_and(|header| header.id != 0);
            self.ended.insert(revoke.id, Ended { at: now, index, by_client });
            self.lease_lasted(revoke.id)?;
        } else if let Some(checkpoint) = &request.lease_checkpoint {
            for one in &checkpoint.checkpoints {
                if let Some(lease) = table.get_mut(&one.id) {
                    lease.1 = one.remaining_ttl;
                    self.notes.insert(one.id, (now, one.remaining_ttl));
                }
                self.lease_lasts(one.id)?;
            }
        } else {
            return Ok(());
        }
        self.leases.insert(index, Arc::new(table));
        Ok(())
    }

    /// A client that asked at `asked` was told that its lease has `ttl` seconds.
    pub(crate) fn promise(&mut self, id: i64, asked: Time, ttl: i64) -> Checked {
        let span = ttl as u64 * super::plan::SECOND * 1000 / (1000 + self.drift);
        let known = self.promises.entry(id).or_insert((asked, span));
        if asked + span > known.0 + known.1 {
            *known = (asked, span);
        }
        self.lease_lasts(id)?;
        self.lease_lasted(id)
    }

    /// How far clocks have jumped ahead between two times.
    fn jumped(&self, from: Time, to: Time) -> Time {
        let jumps = self.jumps.iter().filter(|(at, _)| (from..=to).contains(at));
        jumps.map(|(_, ahead)| ahead).sum()
    }

    /// Whoever leads next goes by what the log says is left of a lease, and an election: no client may have
    /// been promised more.
    fn lease_lasts(&self, id: i64) -> Checked {
        let (Some((noted, left)), Some((asked, span))) = (self.notes.get(&id), self.promises.get(&id)) else {
            return Ok(());
        };
        let until = noted + (*left as u64 + 1) * super::plan::SECOND + self.jumped(*asked, *noted);
        ensure!(
            *left == 0 || until >= asked + span,
            "since {noted} the log gives lease {id} {left} s, though its client asked at {asked} and was given {span} us"
        );
        Ok(())
    }

    /// A lease never ends before its time, by any clock that is right.
    fn lease_lasted(&self, id: i64) -> Checked {
        let (Some(ended), Some((asked, span))) = (self.ended.get(&id), self.promises.get(&id)) else {
            return Ok(());
        };
        ensure!(
            ended.by_client || ended.at + self.jumped(*asked, ended.at) >= asked + span,
            "lease {id} ended at {} by entry {}, though its client asked at {asked} and was given {span} us",
            ended.at,
            ended.index
        );
        Ok(())
    }

    /// The configuration after an entry that changed it.
    pub(crate) fn configures(&mut self, id: u64, index: u64, conf: &ConfState) -> Checked {
        let known = self.confs.entry(index).or_insert_with(|| conf.clone());
        ensure!(same_conf(known, conf), "after entry {index} member {id} has {conf:?}, others {known:?}");
        Ok(())
    }

    /// The configuration that a snapshot or a note in the log is said to have.
    pub(crate) fn carries(&self, id: u64, index: u64, conf: &ConfState) -> Checked {
        let known = self.conf_at(index);
        ensure!(
            index > self.last() || same_conf(known, conf),
            "member {id} says that the configuration at {index} is {conf:?}; it is {known:?}"
        );
        Ok(())
    }

    /// The leases of a member at an index.
    pub(crate) fn has_leases(&self, id: u64, index: u64, lessor: &lease::Lessor) -> Checked {
        let known = self.leases_at(index);
        let stored = lessor.stored();
        let same = known.len() == stored.len()
            && stored.iter().all(|one| known.get(&one.id.0) == Some(&(one.ttl, one.remaining_ttl)));
        ensure!(same, "after entry {index} member {id} has leases {stored:?}, it should have {known:?}");
        Ok(())
    }

    /// The state of a member that was started or was given a snapshot.
    pub(crate) fn stands_at(&self, id: u64, index: u64, revision: i64) -> Checked {
        let known = self.revision_at(index);
        ensure!(known == revision, "at entry {index} member {id} is at revision {revision}, not {known}");
        Ok(())
    }

    /// Equal histories have equal hashes.
    pub(crate) fn compare_hash(&mut self, id: u64, store: &Store, revision: i64) -> Checked {
        // Compacted meanwhile, or not there yet: nothing to compare.
        let Ok(found) = store.hash_kv(revision) else { return Ok(()) };
        let key = (found.revision, found.compact_revision);
        let known = *self.hashes.entry(key).or_insert(found.hash);
        ensure!(
            known == found.hash,
            "at revision {} (compacted at {}) member {id} has hash {:x}, another had {known:x}",
            key.0,
            key.1,
            found.hash
        );
        self.compared += 1;
        Ok(())
    }

    /// What is told to a client is on the disks of a quorum.
    pub(crate) fn acknowledges(&self, index: u64, slots: &BTreeMap<u64, usize>) -> Checked {
        let Some(committed) = self.committed.get(index as usize - 1) else { return Ok(()) };
        let has = |id: &NodeId| {
            slots.get(&id.0).is_some_and(|slot| self.durable[*slot].holds(index, committed.term))
        };
        // A change of the configuration after the entry may have been in force when it was counted,
        // and one right before it not yet.
        let quorum =
            |conf: &ConfState| conf.voters.iter().filter(|id| has(id)).count() > conf.voters.len() / 2;
        let mut confs =
            self.confs.range(..).rev().map(|(_, conf)| conf).filter(|conf| !conf.voters.is_empty());
        ensure!(
            confs.by_ref().take(4).any(quorum),
            "entry {index} is acknowledged, and not on the disks of a quorum"
        );
        Ok(())
    }

    /// A start finds on the disk what was known to be on it, but for what was being overwritten.
    pub(crate) fn recovers(&self, slot: usize, id: u64, found: &LogMirror, touched: Option<u64>) -> Checked {
        let durable = &self.durable[slot];
        let until = touched.map_or(durable.last(), |first| durable.last().min(first.saturating_sub(1)));
        for index in durable.base.max(found.base)..=until {
            ensure!(
                found.term(index) == durable.term(index),
                "member {id} had entry {index} of term {:?} on its disk, and finds {:?}",
                durable.term(index),
                found.term(index)
            );
        }
        let (had, has) = (durable.hard_state, found.hard_state);
        ensure!(
            has.term > had.term || has.term == had.term && (had.vote.is_none() || has.vote == had.vote),
            "member {id} had {had:?} on its disk, and finds {has:?}"
        );
        Ok(())
    }

    /// What a key was before a revision; `Err` if nobody knows.
    pub(crate) fn before(&self, key: &[u8], revision: i64) -> Option<&api::mvccpb::KeyValue> {
        let versions = self.versions.get(key)?;
        let at = versions.partition_point(|(at, _)| *at < revision);
        versions.get(at.checked_sub(1)?)?.1.as_ref()
    }
}

fn changes_hash(applied: &Applied) -> u64 {
    let Some((revision, events)) = &applied.events else { return 0 };
    events.iter().fold(*revision as u64, |hash, event| {
        digest(&event.record, hash ^ u64::from(event.tombstone) ^ (event.revision.sub as u64) << 1)
    })
}

/// Raft's configuration and the machine's are the same.
pub(crate) fn agree(id: u64, raft: &ConfState, machine: &ConfState) -> Checked {
    ensure!(same_conf(raft, machine), "member {id} has {raft:?} in raft, {machine:?} in its state");
    Ok(())
}

fn same_conf(a: &ConfState, b: &ConfState) -> bool {
    let sorted = |ids: &[NodeId]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    sorted(&a.voters) == sorted(&b.voters) && sorted(&a.learners) == sorted(&b.learners)
}
