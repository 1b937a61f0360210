//! The replicated machine: committed entry in, outcome out.
//!
//! What holds:
//! - entries come in the order of the log, each exactly once, and every one of them moves the
//!   applied index, whatever its outcome;
//! - the state after an entry follows from the state before and the entry. The argument `now` moves
//!   deadlines in memory and nothing else; the quota decides about an outcome's text and nothing
//!   else;
//! - rows and table changes of a batch become durable in one piece with the index of its last
//!   entry, see [`Machine::seal`].

use std::sync::Arc;
use std::time::Duration;

use auth::Auth;
use backend::{Backend, Seal, TableOp};
use lease::{LeaseId, Lessor};
use mvcc::{Store, Writer};
use parking_lot::Mutex;
use prost::Message;
use raft::{Change, ChangeKind, ConfChange, ConfState, Entry, EntryKind, Index, NodeId, SnapshotMeta, Term};

use crate::alarms::Alarms;
use crate::cluster::{Cluster, Refused};
use crate::command;
use crate::permission;
use crate::quota::Quota;
use crate::rejection::{Failure, ReadFailure, Rejection};
use crate::reply::{Applied, Body, Reply};
use crate::shared::{Published, Shared};
use crate::snapshot::{load_authentication, load_leases};

/// How a machine behaves. What all members must agree on says so.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Leases; the minimum time to live must be the same on all members.
    pub lease: lease::Config,
    /// The bytes that this member may use.
    pub quota: Quota,
    /// How long this member remembers a simple token that is not used.
    pub token_ttl: Duration,
}

/// etcd's default for `--auth-token-ttl`.
const TOKEN_TTL: Duration = Duration::from_secs(300);

impl Default for Options {
    fn default() -> Self {
        Options { lease: lease::Config::default(), quota: Quota::from_flag(0), token_ttl: TOKEN_TTL }
    }
}

/// The one writer of the replicated state.
pub struct Machine {
    pub(crate) backend: Backend,
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    pub(crate) lessor: Arc<Mutex<Lessor>>,
    pub(crate) auth: Auth,
    pub(crate) cluster: Cluster,
    pub(crate) alarms: Alarms,
    pub(crate) shared_cluster: Published<Cluster>,
    pub(crate) shared_alarms: Published<Alarms>,
    pub(crate) options: Options,
    applied: (Index, Term),
    sealed: Index,
    /// Changes of tables since the last seal.
    pub(crate) ops: Vec<TableOp>,
    /// Whether the raft configuration has changed since the last seal.
    reconfigured: bool,
}

impl Machine {
    /// The state that a backend holds. Everything in memory is made from what is stored: keys,
    /// leases and what is attached to them, members, alarms.
    ///
    /// # Errors
    /// The backend cannot be read, or holds a row that nobody can have written.
    pub fn open(backend: Backend, options: Options) -> Result<(Machine, Shared), Failure> {
        let (store, writer, opened) = Store::open(backend.clone())?;
        let mut lessor = Lessor::restore(options.lease, load_leases(&backend)?);
        for (key, lease) in opened.leases {
            // A key may name a lease that is not in the table; it then has none, as in etcd.
            let _ = lessor.attach(LeaseId(lease), &key);
        }
        let lessor = Arc::new(Mutex::new(lessor));
        let mut users = load_authentication(&backend)?;
        let ops = users.take_ops();
        let auth = Auth::new(users, options.token_ttl);
        let (cluster, alarms) = (Cluster::load(&backend)?, Alarms::load(&backend)?);
        let shared = Shared {
            store: store.clone(),
            lessor: Arc::clone(&lessor),
            auth: auth.clone(),
            cluster: Published::new(cluster.clone()),
            alarms: Published::new(alarms.clone()),
            quota: options.quota,
        };
        let consistent = backend.consistent();
        let applied = (Index(consistent.index), Term(consistent.term));
        let machine = Machine {
            backend,
            store,
            writer,
            lessor,
            auth,
            cluster,
            alarms,
            shared_cluster: shared.cluster.clone(),
            shared_alarms: shared.alarms.clone(),
            options,
            applied,
            sealed: applied.0,
            ops,
            reconfigured: false,
        };
        Ok((machine, shared))
    }

    /// The last applied entry's place and term.
    pub fn applied(&self) -> (Index, Term) {
        self.applied
    }

    /// The raft configuration after the last applied entry.
    pub fn conf_state(&self) -> &ConfState {
        &self.cluster.conf_state
    }

    /// Applies the next entry of the log.
    ///
    /// `now` is the time since the origin that leases are measured from.
    ///
    /// # Errors
    /// The store failed, or the entry is beyond this version. It has no effect then, and the member must
    /// stop.
    ///
    /// # Panics
    /// If the entry is not the next one.
    pub fn apply(&mut self, entry: &Entry, now: Duration) -> Result<Applied, Failure> {
        let next = self.applied.0.next();
        assert_eq!(entry.index, next, "entry {} is applied where {next} is due", entry.index);
        assert!(
            entry.term >= self.applied.1,
            "entry {next} has term {} after {}",
            entry.term,
            self.applied.1
        );
        let applied = match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => {
                let reply = Reply { revision: self.writer.current_revision(), body: Body::Nothing };
                Applied::of(0, Ok(reply))
            }
            EntryKind::Normal => self.apply_request(entry, now)?,
            EntryKind::ConfChange => self.apply_change(entry)?,
            // No version of etcd writes one, and each panics over it.
            EntryKind::ConfChangeV2 => return Err(not_understood(entry, "a joint configuration change")),
            EntryKind::Unknown(kind) => {
                return Err(not_understood(entry, format!("an entry of the unknown kind {kind}")));
            }
        };
        self.applied = (entry.index, entry.term);
        Ok(applied)
    }

    /// Ends a batch: what was applied since the last one becomes durable in one piece with the
    /// index of its last entry, once the backend flushes.
    pub fn seal(&mut self) {
        if self.sealed == self.applied.0 {
            return;
        }
        self.sealed = self.applied.0;
        let conf_state = std::mem::take(&mut self.reconfigured).then(|| self.cluster.conf_state_json());
        let (Index(index), Term(term)) = self.applied;
        self.backend.seal(Seal { index, term, conf_state, ops: std::mem::take(&mut self.ops) });
    }

    /// Everything beside keys and leases that is kept in memory, of an installed state.
    pub(crate) fn start_anew(
        &mut self,
        meta: &SnapshotMeta,
        cluster: Cluster,
        alarms: Alarms,
        mut users: auth::Store,
    ) {
        self.applied = (meta.index, meta.term);
        self.sealed = meta.index;
        self.ops = users.take_ops();
        self.auth.replace(users);
        self.reconfigured = false;
        self.shared_cluster.set(cluster.clone());
        self.shared_alarms.set(alarms.clone());
        (self.cluster, self.alarms) = (cluster, alarms);
    }

    fn apply_request(&mut self, entry: &Entry, now: Duration) -> Result<Applied, Failure> {
        let request = command::read(&entry.data).map_err(|what| not_understood(entry, what))?;
        let op = request.command.op();
        Ok(Applied { op, ..self.carry_out(request, now)? })
    }

    fn carry_out(&mut self, request: command::Request, now: Duration) -> Result<Applied, Failure> {
        let command::Request { id, caller, command } = request;
        if let Some(rejection) = self.forbidden(&command) {
            return Ok(Applied::of(id, Err(rejection)));
        }
        if self.auth.is_enabled() {
            let needs = permission::of_command(&command);
            if let Err(error) = permission::check(&self.auth, &self.lessor, &caller, &needs) {
                return Ok(Applied::of(id, Err(error.into())));
            }
        }
        let over_quota = self.is_over_quota(&command);
        let mut applied = match self.run(command, now) {
            Ok((body, committed)) => {
                let events = committed.map(|committed| (committed.revision, committed.events));
                let reply = Reply { revision: self.writer.current_revision(), body };
                Applied { events, ..Applied::of(id, Ok(reply)) }
            }
            Err(ReadFailure::Rejected(rejection)) => Applied::of(id, Err(rejection)),
            Err(ReadFailure::Failed(failure)) => return Err(failure),
        };
        if over_quota && applied.outcome.is_ok() {
            applied.outcome = Err(Rejection::NoSpace);
            applied.raise_no_space = true;
        }
        Ok(applied)
    }

    fn apply_change(&mut self, entry: &Entry) -> Result<Applied, Failure> {
        let change = read_change(&entry.data).map_err(|what| not_understood(entry, what))?;
        match self.cluster.change(&change) {
            Ok(ops) => {
                self.ops.extend(ops);
                self.reconfigured = true;
                self.shared_cluster.set(self.cluster.clone());
                let members = self.cluster.members.values().cloned().collect();
                let reply = Reply { revision: self.writer.current_revision(), body: Body::Members(members) };
                Ok(Applied { conf_change: Some(change.clone()), ..Applied::of(change.id, Ok(reply)) })
            }
            Err(Refused::Rejected(rejection)) => Ok(Applied {
                conf_change: Some(refused(change.id)),
                ..Applied::of(change.id, Err(rejection))
            }),
            Err(Refused::NotUnderstood(what)) => Err(not_understood(entry, what)),
        }
    }
}

fn not_understood(entry: &Entry, what: impl Into<String>) -> Failure {
    Failure::NotUnderstood { index: entry.index, term: entry.term, what: what.into() }
}

/// The change that changes nothing, told to raft in place of one that was refused.
fn refused(id: u64) -> ConfChange {
    ConfChange { id, change: Change { node: NodeId(0), ..Change::default() }, context: Arc::from([]) }
}

fn read_change(data: &[u8]) -> Result<ConfChange, String> {
    let change = api::raftpb::ConfChange::decode(data).map_err(|_| "bytes that are no change of members")?;
    let number = change.r#type.unwrap_or_default();
    let kind = api::raftpb::ConfChangeType::try_from(number)
        .map_err(|_| format!("a change of members of the unknown kind {number}"))?;
    let kind = match kind {
        api::raftpb::ConfChangeType::ConfChangeAddNode => ChangeKind::AddNode,
        api::raftpb::ConfChangeType::ConfChangeRemoveNode => ChangeKind::RemoveNode,
        api::raftpb::ConfChangeType::ConfChangeUpdateNode => ChangeKind::UpdateNode,
        api::raftpb::ConfChangeType::ConfChangeAddLearnerNode => ChangeKind::AddLearnerNode,
    };
    let node = NodeId(change.node_id());
    Ok(ConfChange { id: change.id(), change: Change { kind, node }, context: change.context().into() })
}
