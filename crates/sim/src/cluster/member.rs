//! One member: the parts that ship, opened as `server/bootstrap.rs` opens them.

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::raftpb::ConfChangeType;
use apply::{Machine, Shared};
use backend::{Backend, Storage, Target};
use node::{Effect, Letters, Node, Persist, PersistId, Proposal, Pump, Restored, Rounds};
use prost::Message as _;
use raft::{
    Entry, EntryKind, HardState, Index, LogRead, Message, NodeId, ReadId, Snapshot, SnapshotMeta, Term,
};
use wal::{LogReader, Wal};
use watch::Hub;

use super::checks::{Checks, LogMirror, Violation, ensure};
use super::disk::Disk;
use super::network::Network;
use super::plan::{Plan, Tally, Time};
use super::queue::Queue;
use super::requests::{AfterRead, Ask, Token, Told, Waiter};
use crate::random::Random;

/// Which machine, and which start of its process.
pub(crate) type Who = (usize, u64);

/// Something that happens at one member.
#[derive(Debug)]
pub(crate) enum Local {
    Tick,
    /// Raft is given the letters that wait.
    Turn,
    Written,
    Apply,
    Look,
    Flushed,
    Compact,
    ReadLog(LogRead),
    MakeSnapshot(NodeId),
    Message(Box<Message>),
    SnapshotBody(Box<Message>, Arc<Vec<u8>>),
    SnapshotSent(NodeId, bool),
    Gone(NodeId),
    Unreachable(NodeId),
    Ask(Token, Box<Ask>),
    /// A renewal of an expired lease looks again.
    RenewAgain(Token, i64),
    /// The process goes on after a pause.
    Woken,
    /// The member was removed and ends.
    Leave,
}

/// What is to happen.
#[derive(Debug)]
pub(crate) enum What {
    At(Who, Local),
    Answer(Token, Told),
    /// A client's next step, if it still is at this one.
    Client(usize, u64),
    Watcher(usize, u64),
    Misfortune,
    /// Ends a misfortune, by number.
    Relief(u64),
    Start(usize),
    Compare,
}

/// What a member has around it.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) queue: &'a mut Queue<What>,
    pub(crate) random: &'a mut Random,
    pub(crate) network: &'a mut Network,
    pub(crate) checks: &'a mut Checks,
    pub(crate) tally: &'a mut Tally,
    pub(crate) machines: &'a BTreeMap<u64, usize>,
    pub(crate) starts: &'a [u64],
    pub(crate) trace: &'a mut u64,
    pub(crate) slow_disk: Time,
    pub(crate) slow_apply: Time,
    /// Out of a thousand answers to clients.
    pub(crate) lost_answers: u64,
}

impl Context<'_> {
    pub(crate) fn now(&self) -> Time {
        self.queue.now
    }

    /// Adds to the number that tells this history from others.
    pub(crate) fn note(&mut self, words: &[u64]) {
        for word in words {
            *self.trace = (self.trace.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }
}

/// Why a member, or everything, comes to an end.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Its disk failed: the process exits.
    Stopped(String),
    /// Something is wrong with Cairn.
    Wrong(Violation),
}

impl From<Violation> for Halt {
    fn from(violation: Violation) -> Halt {
        Halt::Wrong(violation)
    }
}

impl From<wal::WalError> for Halt {
    fn from(error: wal::WalError) -> Halt {
        Halt::Stopped(error.to_string())
    }
}

impl From<backend::Error> for Halt {
    fn from(error: backend::Error) -> Halt {
        Halt::Stopped(error.to_string())
    }
}

impl From<apply::Failure> for Halt {
    fn from(error: apply::Failure) -> Halt {
        Halt::Stopped(error.to_string())
    }
}

impl From<mvcc::ReadError> for Halt {
    fn from(error: mvcc::ReadError) -> Halt {
        Halt::Stopped(error.to_string())
    }
}

pub(crate) type Done = Result<(), Halt>;

/// A member's clock: it runs at its own pace, and may jump ahead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Time,
    /// Thousandths that it runs fast.
    pub(crate) fast: i64,
    pub(crate) ahead: Time,
}

impl Clock {
    pub(crate) fn new(started: Time, fast: i64) -> Clock {
        Clock { started, fast, ahead: 0 }
    }

    /// The time since the start, as it measures it.
    pub(crate) fn read(&self, now: Time) -> Time {
        let passed = (now - self.started) as i64;
        (passed + passed * self.fast / 1000) as u64 + self.ahead
    }

    /// How long something that it takes for `span` really takes.
    pub(crate) fn really(&self, span: Time) -> Time {
        (span as i64 * 1000 / (1000 + self.fast)) as u64
    }
}

/// Work for the place where the log is written.
pub(crate) enum WalJob {
    Persist(Persist),
    Covered { meta: SnapshotMeta, release_to: Index },
}

/// A batch that is on its way to the disk.
pub(crate) struct Writing {
    pub(crate) last: Option<PersistId>,
    pub(crate) must_sync: bool,
    pub(crate) release: Option<Index>,
}

/// Work for the place where entries are applied.
pub(crate) enum ApplyJob {
    Entries(VecDeque<Entry>),
    Install(Snapshot),
}

/// How a member begins to be one.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: u64,
    /// Those who found the cluster; empty for one who joins.
    pub(crate) founders: Vec<u64>,
}

/// A member that runs.
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) who: Who,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    pub(crate) wal: Wal,
    pub(crate) log_reader: LogReader,
    pub(crate) pump: Pump,
    pub(crate) machine: Machine,
    pub(crate) shared: Shared,
    pub(crate) backend: Backend,
    pub(crate) hub: Hub,
    // The driver.
    pub(crate) letters: Letters,
    pub(crate) effects: Vec<Effect>,
    pub(crate) turn_is_due: bool,
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) leading: bool,
    /// The commit index after the last turn.
    pub(crate) committed: u64,
    pub(crate) last_tick: Time,
    // The log.
    pub(crate) log: LogMirror,
    pub(crate) wal_queue: Vec<WalJob>,
    pub(crate) writing: Option<Writing>,
    pub(crate) unsynced: VecDeque<Persist>,
    pub(crate) installed: Index,
    // The machine.
    pub(crate) apply_queue: VecDeque<ApplyJob>,
    pub(crate) applying: bool,
    pub(crate) reign: Term,
    // What runs in the background.
    pub(crate) flushed_at: Time,
    pub(crate) noted: u64,
    pub(crate) flushing: bool,
    pub(crate) bodies: BTreeMap<u64, (Index, Arc<Vec<u8>>)>,
    // Requests.
    pub(crate) next_request: u64,
    pub(crate) waiters: BTreeMap<u64, Waiter>,
    pub(crate) postponed: Vec<u64>,
    pub(crate) outbox: Vec<Proposal>,
    pub(crate) reads: Rounds<AfterRead>,
    pub(crate) waiting_reads: Vec<(Index, ReadId)>,
    pub(crate) read_revision: i64,
}

pub(crate) const STORE: &str = "/member/store";
const INCOMING: &str = "/member/store.new";
const WAL_DIR: &str = "/member/wal";

pub(crate) fn body_path(index: Index) -> PathBuf {
    PathBuf::from(format!("/member/snap/{}", apply::snapshot::file_name(index)))
}

/// Where a new state is written, and how it takes the old one's place.
pub(crate) fn target(disk: &Disk) -> Target<'_> {
    use wal::Disk as _;
    let fresh = Path::new(INCOMING);
    // What an install that came to nothing has left behind.
    let _ = disk.remove(fresh);
    let medium = Box::new(disk.storage(fresh));
    let take_place = Box::new(move || {
        disk.rename(fresh, Path::new(STORE))?;
        disk.sync_dir(Path::new("/member"))
    });
    Target::Custom { medium, take_place }
}

/// The entry that adds a founder.
fn first_entry(id: u64, index: u64) -> Entry {
    let member = apply::Member { id, peer_urls: vec![format!("http://{id}")], ..apply::Member::default() };
    let change = api::raftpb::ConfChange {
        id: None,
        r#type: Some(ConfChangeType::ConfChangeAddNode.into()),
        node_id: Some(id),
        context: Some(apply::to_json(&member)),
    };
    let data = change.encode_to_vec().into();
    Entry { term: Term(1), index: Index(index), kind: EntryKind::ConfChange, data }
}

fn found(disk: &Disk, identity: &Identity, options: wal::Options) -> Done {
    let entries: Vec<Entry> =
        identity.founders.iter().zip(1..).map(|(&id, index)| first_entry(id, index)).collect();
    let hard_state = entries.last().map(|last| HardState { term: last.term, vote: None, commit: last.index });
    let shared: Arc<dyn wal::Disk> = Arc::new(disk.clone());
    let id = identity.id.to_be_bytes();
    drop(Wal::found(shared, Path::new(WAL_DIR), &id, options, hard_state.as_ref(), &entries)?);
    Ok(())
}

pub(crate) fn min_ttl(plan: &Plan) -> i64 {
    lease::Config::min_ttl_for(plan.election_ticks, Duration::from_micros(plan.tick))
}

impl Member {
    /// Starts on a machine's disk, empty or not.
    pub(crate) fn start(
        disk: Disk,
        who: Who,
        identity: &Identity,
        clock: Clock,
        touched: Option<u64>,
        cx: &mut Context<'_>,
    ) -> Result<Member, Halt> {
        let plan = cx.plan;
        let options = backend::Options {
            cache_bytes: 1 << 20,
            flush_rows: 8 + cx.random.below(64) as usize,
            ..backend::Options::default()
        };
        let storage = Storage::Custom(Box::new(disk.storage(Path::new(STORE))));
        let backend = Backend::open(storage, options)?;
        let wal_options = wal::Options { segment_bytes: plan.segment_bytes };
        if !Wal::exists(&disk, Path::new(WAL_DIR))? {
            let applied = backend.consistent().index;
            ensure!(
                applied == 0,
                "{applied} entries are applied at member {}, and there is no log",
                identity.id
            );
            found(&disk, identity, wal_options.clone())?;
        }
        let applied = Index(backend.consistent().index);
        let shared_disk: Arc<dyn wal::Disk> = Arc::new(disk.clone());
        let (wal, recovered) = Wal::open_with(shared_disk, Path::new(WAL_DIR), applied, wal_options)?;
        if let Some(meta) = &recovered.install {
            let body = disk.read(&body_path(meta.index));
            ensure!(body.is_some(), "the log of member {} refers to a body that is not there", identity.id);
            apply::snapshot::finish(&backend, Cursor::new(body.unwrap_or_default()), meta, target(&disk))?;
        }
        let begin = backend.consistent();
        let lease = lease::Config {
            min_ttl: min_ttl(plan),
            checkpoint_interval: Some(Duration::from_micros(plan.checkpoint)),
            ..lease::Config::default()
        };
        let machine_options = apply::Options { lease, ..apply::Options::default() };
        let (machine, shared) = Machine::open(backend.clone(), machine_options)?;
        let applied = machine.applied().0;
        let snapshot = SnapshotMeta {
            conf_state: machine.conf_state().clone(),
            index: Index(begin.index),
            term: Term(begin.term),
        };
        let committed = recovered.hard_state.commit.max(applied);
        let configured = recovered
            .entries
            .iter()
            .rev()
            .find(|e| e.index <= committed && e.is_conf_change())
            .map(|e| e.index);

        // What the disk has is held against what it is known to have had.
        let base = (recovered.begins_after.0, begin.term);
        let log = LogMirror::new(base, &recovered.entries, recovered.hard_state);
        cx.checks.recovers(who.0, identity.id, &log, touched)?;
        cx.checks.durable[who.0] = log.clone();
        let (index, revision) = (applied.0, shared.store.current_revision());
        cx.checks.stands_at(identity.id, index, revision)?;
        cx.checks.has_leases(identity.id, index, &shared.lessor.lock())?;
        cx.checks.carries(identity.id, index, machine.conf_state())?;
        cx.note(&[1, identity.id, index, log.last()]);

        let seed = cx.random.next_u64();
        let mut config = node::Config::new(NodeId(identity.id), seed);
        config.election_ticks = plan.election_ticks;
        config.limits.catch_up_entries = plan.catch_up;
        config.limits.snapshot_ticks = 50;
        config.limits.append_bytes = 4096;
        let restored =
            Restored { hard_state: recovered.hard_state, snapshot, entries: recovered.entries, applied };
        let had = restored.hard_state;
        let node = Node::new(config, restored)
            .map_err(|error| Violation(format!("member {} cannot start: {error}", identity.id)))?;
        let has = node.hard_state();
        ensure!(
            has.term > had.term || (has.term, has.vote) == (had.term, had.vote),
            "member {} finds {had:?} on its disk, and starts with {has:?}",
            identity.id
        );
        Ok(Member {
            id: identity.id,
            who,
            clock,
            log_reader: wal.reader(),
            wal,
            pump: Pump::new(node, applied, configured.unwrap_or_default()),
            machine,
            hub: Hub::with_options(revision, hub_options(plan, cx.random)),
            shared,
            backend,
            disk,
            letters: Letters::default(),
            effects: Vec::new(),
            turn_is_due: false,
            term: 0,
            leader: 0,
            leading: false,
            committed: 0,
            last_tick: clock.read(cx.now()),
            log,
            wal_queue: Vec::new(),
            writing: None,
            unsynced: VecDeque::new(),
            installed: Index(0),
            apply_queue: VecDeque::new(),
            applying: false,
            reign: Term(0),
            flushed_at: cx.now(),
            noted: 0,
            flushing: false,
            bodies: BTreeMap::new(),
            next_request: (identity.id & 0xffff) << 48 | cx.random.next_u64() >> 32 << 16,
            waiters: BTreeMap::new(),
            postponed: Vec::new(),
            outbox: Vec::new(),
            reads: Rounds::default(),
            waiting_reads: Vec::new(),
            read_revision: 0,
        })
    }

    /// The lease clock.
    pub(crate) fn now(&self, cx: &Context<'_>) -> Duration {
        Duration::from_micros(self.clock.read(cx.now()))
    }

    /// Has something happen here, if this process still runs then.
    pub(crate) fn after(&self, cx: &mut Context<'_>, delay: Time, local: Local) {
        cx.queue.after(delay, What::At(self.who, local));
    }

    /// The first entry that writes under way touch: below it the disk must keep what it has.
    pub(crate) fn touches(&self) -> Option<u64> {
        let first = |persist: &Persist| match &persist.snapshot {
            Some(_) => Some(0),
            None => persist.entries.first().map(|entry| entry.index.0),
        };
        let queued = self.wal_queue.iter().filter_map(|job| match job {
            WalJob::Persist(persist) => first(persist),
            WalJob::Covered { .. } => None,
        });
        self.unsynced.iter().filter_map(first).chain(queued).min()
    }
}

fn hub_options(plan: &Plan, random: &mut Random) -> watch::Options {
    let defaults = watch::Options::default();
    let progress_interval = Duration::from_secs(2 + random.below(8));
    let seed = random.next_u64();
    if !plan.small_streams {
        return watch::Options { progress_interval, seed, ..defaults };
    }
    watch::Options {
        stream_bytes: 200 + random.below(4000) as usize,
        stream_entries: 1 + random.below(40) as usize,
        hub_bytes: 600 + random.below(20_000) as usize,
        spared_bytes: 1 + random.below(400) as usize,
        response_bytes: 60 + random.below(1000) as usize,
        response_events: 1 + random.below(12) as usize,
        step_rows: 1 + random.below(12) as usize,
        step_bytes: 40 + random.below(600) as usize,
        progress_interval,
        seed,
        ..defaults
    }
}
