//! The member as its threads and its services share it.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use api::etcdserverpb::{RequestHeader, ResponseHeader};
use api::raft_request::{self, Command};
use api::raftpb::{ConfChange, ConfChangeType};
use apply::{Alarms, Cluster, Rejection, Reply, Shared};
use auth::Caller;
use backend::Backend;
use lease::Lessor;
use mvcc::Store;
use node::{Proposal, ReadId};
use parking_lot::Mutex;
use peer::Peers;
use prost::Message as _;
use raft::{Change, ChangeKind, EntryKind, Index, LogRead, Term};
use tokio::sync::{oneshot, watch};

use crate::apply_thread::ApplyJob;
use crate::backup::Backups;
use crate::compaction::Compaction;
use crate::config::Config;
use crate::error::Error;
use crate::inbox::Inbox;
use crate::leadership::Leadership;
use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::passwords::Passwords;
use crate::proposal::{Answer, RequestId};
use crate::queue::Queue;
use crate::raft_driver::Driver;
use crate::shard::Shard;
use crate::slow::Applying;
use crate::snapshots::Snapshots;
use crate::stall::Stall;
use crate::status::RaftStatus;
use crate::wal_thread::WalJob;

/// How far apply may fall behind commit before new proposals are refused (etcd's number).
pub(crate) const MAX_GAP: u64 = 5_000;

/// How often a defragmentation looks whether the one before it has ended.
const BUSY_LOOK: Duration = Duration::from_millis(20);

/// A read that waits longer for its round counts as slow (etcd's number).
const SLOW_READ: Duration = Duration::from_secs(1);

/// The allowance for what surrounds a request's own bytes in gRPC (etcd's `grpcOverheadBytes`).
pub const REQUEST_OVERHEAD: usize = 512 * 1024;

/// One running member: what services ask, and where its threads meet.
pub struct Member {
    config: Config,
    id: u64,
    cluster_id: u64,
    started: Instant,
    backend: Backend,
    shared: Shared,
    inbox: Inbox,
    wal_queue: Queue<WalJob>,
    apply_queue: Queue<ApplyJob>,
    log_reads: Queue<LogRead>,
    snapshots: Snapshots,
    backups: Backups,
    /// Set before raft is given anything.
    peers: OnceLock<Peers>,
    leadership: Leadership,
    /// Members that were removed, and when; their connections are still to be ended.
    leaving: Mutex<Vec<(u64, Instant)>>,
    mailboxes: Vec<Mailbox>,
    waiting_reads: Mutex<Vec<(Index, ReadId)>>,
    driver: Driver,
    raft: RaftStatus,
    compaction: Compaction,
    metrics: Metrics,
    stall: Stall,
    passwords: Passwords,
    defragmenting: watch::Sender<usize>,
    lease_ids: RandomState,
    next_lease: AtomicU64,
    stopping: watch::Sender<bool>,
    ready: watch::Sender<bool>,
    /// Whether the data was compared with other members', where that must be.
    checked: watch::Sender<bool>,
    removed: watch::Sender<bool>,
}

/// What a member is made of.
pub(crate) struct Made {
    pub(crate) id: u64,
    pub(crate) cluster_id: u64,
    pub(crate) backend: Backend,
    pub(crate) shared: Shared,
    pub(crate) driver: Driver,
}

impl Member {
    pub(crate) fn new(config: Config, made: Made) -> Self {
        let Made { id, cluster_id, backend, shared, driver } = made;
        Self {
            mailboxes: (0..config.shards).map(|_| Mailbox::default()).collect(),
            id,
            cluster_id,
            started: Instant::now(),
            backend,
            shared,
            inbox: Inbox::default(),
            wal_queue: Queue::default(),
            apply_queue: Queue::default(),
            log_reads: Queue::default(),
            snapshots: Snapshots::new(config.snapshot_dir()),
            backups: Backups::default(),
            peers: OnceLock::new(),
            leadership: Leadership::default(),
            leaving: Mutex::default(),
            waiting_reads: Mutex::default(),
            driver,
            raft: RaftStatus::default(),
            compaction: Compaction::new(),
            stall: Stall::default(),
            metrics: Metrics::new(),
            passwords: Passwords::new(config.bcrypt_cost),
            defragmenting: watch::Sender::new(0),
            lease_ids: RandomState::new(),
            next_lease: AtomicU64::new(0),
            stopping: watch::Sender::new(false),
            ready: watch::Sender::new(false),
            checked: watch::Sender::new(false),
            removed: watch::Sender::new(false),
            config,
        }
    }

    /// What the member was told at its start.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How other members are believed, and what they are shown.
    pub(crate) fn peer_tls(&self) -> &tls::Client {
        &self.config.peer_tls
    }

    /// This member's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Keys and values.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Leases. Held for single operations only; the apply thread needs it too.
    pub fn lessor(&self) -> &Mutex<Lessor> {
        &self.shared.lessor
    }

    /// Members and versions of the cluster, as applied.
    pub fn cluster(&self) -> Arc<Cluster> {
        self.shared.cluster.get()
    }

    /// Alarms, as applied.
    pub fn alarms(&self) -> Arc<Alarms> {
        self.shared.alarms.get()
    }

    /// Whether something that takes `cost` bytes still fits into the quota.
    pub fn has_room(&self, cost: u64) -> bool {
        self.shared.quota.admits(cost, self.backend.size_in_use())
    }

    /// The quota in force in bytes, 0 where there is none.
    pub fn quota(&self) -> u64 {
        self.shared.quota.limit().unwrap_or(0)
    }

    /// An id for a lease whose client leaves the choice to the server: positive, and not one that
    /// is likely ever to come again.
    pub fn new_lease_id(&self) -> i64 {
        loop {
            let id = (self.lease_ids.hash_one(self.next_lease.fetch_add(1, Ordering::Relaxed)) >> 1) as i64;
            if id != 0 {
                return id;
            }
        }
    }

    /// Waits until the member begins to stop.
    pub async fn stopping(&self) {
        // The sender lives as long as `self`.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    pub(crate) fn is_stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Waits until clients may be served: there is a leader, and nothing older is told here than what
    /// an earlier run has acknowledged (P5). Without a leader that is so after a while all the same,
    /// for whoever asks for no more than this member's own knowledge.
    pub async fn ready(&self) {
        // The sender lives as long as the member.
        let _ = self.checked.subscribe().wait_for(|checked| *checked).await;
        let mut ready = self.ready.subscribe();
        let known = tokio::time::timeout(self.config.ready_timeout, ready.wait_for(|ready| *ready)).await;
        if known.is_err() {
            tracing::warn!("timed out waiting for the ready notification");
        }
    }

    /// Waits until the cluster knows the member, however long that takes.
    pub async fn published(&self) {
        // The sender lives as long as the member.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// There is no need to compare this member's data with others', or it is done.
    pub(crate) fn set_checked(&self) {
        self.checked.send_replace(true);
    }

    pub(crate) fn is_checked(&self) -> bool {
        *self.checked.borrow()
    }

    pub(crate) fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Waits until this member is known to be part of the cluster no longer: it must stop.
    pub async fn removed(&self) {
        let _ = self.removed.subscribe().wait_for(|removed| *removed).await;
    }

    /// This member has been removed from the cluster.
    pub(crate) fn is_removed(&self) {
        if !self.removed.send_replace(true) {
            tracing::error!(
                "local-member-id" = format!("{:x}", self.id),
                error = "the member has been permanently removed from the cluster",
                "server error"
            );
            tracing::warn!("data-dir used by this member must be removed");
        }
    }

    pub(crate) fn begin_to_stop(&self) {
        self.stopping.send_replace(true);
        for mailbox in &self.mailboxes {
            mailbox.post_stop();
        }
    }

    /// What lies on disk.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Raft's position.
    pub fn raft(&self) -> &RaftStatus {
        &self.raft
    }

    /// The member's numbers.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The lease clock: time since the member started, by the monotonic clock (T1).
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Lets raft have what waits for it.
    pub(crate) fn drive(self: &Arc<Self>) {
        self.driver.drive(self);
    }

    pub(crate) fn wal_queue(&self) -> &Queue<WalJob> {
        &self.wal_queue
    }

    pub(crate) fn apply_queue(&self) -> &Queue<ApplyJob> {
        &self.apply_queue
    }

    pub(crate) fn log_reads(&self) -> &Queue<LogRead> {
        &self.log_reads
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    pub(crate) fn backups(&self) -> &Backups {
        &self.backups
    }

    pub(crate) fn leaving(&self) -> &Mutex<Vec<(u64, Instant)>> {
        &self.leaving
    }

    pub(crate) fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// The other members, as this one reaches them.
    pub fn peers(&self) -> &Peers {
        self.peers.get().expect("the peers are known before anything runs")
    }

    pub(crate) fn set_peers(&self, peers: Peers) {
        let first = self.peers.set(peers).is_ok();
        assert!(first, "a member has one thread for its peers");
    }

    /// Since when another member can be reached without a break.
    pub fn active_since(&self, id: u64) -> Option<Instant> {
        self.peers().active_since(id)
    }

    /// A picture of raft. Not free, and not for the threads that turn raft.
    pub fn raft_picture(self: &Arc<Self>) -> node::Status {
        self.driver.status(self)
    }

    /// The term in which this member keeps the time of leases; of meaning while it does.
    pub(crate) fn reign(&self) -> Term {
        self.leadership.reign()
    }

    pub(crate) fn set_reign(&self, term: Term) {
        self.leadership.set_reign(term);
    }

    pub(crate) fn mailboxes(&self) -> &[Mailbox] {
        &self.mailboxes
    }

    pub(crate) fn mailbox(&self, shard: usize) -> &Mailbox {
        &self.mailboxes[shard]
    }

    pub(crate) fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    pub(crate) fn stall(&self) -> &Stall {
        &self.stall
    }

    /// For how long the write-ahead log has been waiting for its disk, if that is longer than a leader may be
    /// silent.
    pub fn disk_silence(&self) -> Option<Duration> {
        Some(self.stall.waits(self.now())).filter(|waited| *waited > self.config.election_timeout)
    }

    pub(crate) fn compaction(&self) -> &Compaction {
        &self.compaction
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.config.request_timeout()
    }

    /// Who answers, and in which term, for the headers of watch responses.
    pub(crate) fn identity(&self) -> ::watch::Identity {
        ::watch::Identity { cluster_id: self.cluster_id, member_id: self.id, raft_term: self.raft.term() }
    }

    /// The header of an answer; `revision` 0 stands for the current one.
    pub fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.id,
            revision: if revision == 0 { self.store().current_revision() } else { revision },
            raft_term: self.raft.term(),
        }
    }

    /// Has the cluster agree on a request and waits until it is applied here. It is nobody's: while
    /// authentication is on, only what members ask of themselves is done without a name.
    ///
    /// An `Err` of the outer result is this member's own failure. With [`Error::Timeout`],
    /// [`Error::LeaderChanged`] and [`Error::Stopped`] the request may still take effect (P2).
    pub async fn propose(&self, command: impl Command) -> Result<Result<Reply, Rejection>, Error> {
        self.propose_as(&Caller::default(), command).await
    }

    /// Has the cluster agree on a change of its members and waits until it is applied here; the
    /// members after it.
    pub async fn propose_change(
        &self,
        change: Change,
        context: Vec<u8>,
    ) -> Result<Result<Vec<apply::Member>, Rejection>, Error> {
        let kind = match change.kind {
            ChangeKind::AddNode => ConfChangeType::ConfChangeAddNode,
            ChangeKind::RemoveNode => ConfChangeType::ConfChangeRemoveNode,
            ChangeKind::UpdateNode => ConfChangeType::ConfChangeUpdateNode,
            ChangeKind::AddLearnerNode => ConfChangeType::ConfChangeAddLearnerNode,
        };
        let answer = Shard::with(|shard| {
            shard.propose(|id| {
                let change = ConfChange {
                    id: Some(id.0),
                    r#type: Some(kind.into()),
                    node_id: Some(change.node.0),
                    context: (!context.is_empty()).then(|| context.into()),
                };
                let data = change.encode_to_vec().into();
                Ok(Proposal { id: id.0, kind: EntryKind::ConfChange, data, only_in: None })
            })
        })?;
        let (outcome, _) = self.outcome(answer).await?;
        Ok(outcome.map(|reply| match reply.body {
            apply::Body::Members(members) => members,
            _ => Vec::new(),
        }))
    }

    pub(crate) async fn outcome(
        &self,
        answer: oneshot::Receiver<Answer>,
    ) -> Result<(Result<Reply, Rejection>, Option<Applying>), Error> {
        let _pending = self.raft.pending_proposal();
        match answer.await {
            Ok(Answer::Applied(outcome, applying)) => Ok((outcome, applying)),
            Ok(Answer::Failed(error)) => {
                self.metrics.proposals_failed.inc();
                Err(error)
            }
            // Shards keep what is postponed.
            Ok(Answer::Postponed) | Err(_) => Err(Error::Stopped),
        }
    }

    pub(crate) fn post(
        &self,
        caller: &Caller,
        command: &impl Command,
        encoded: &mut Arc<[u8]>,
    ) -> Result<oneshot::Receiver<Answer>, Error> {
        if self.raft.committed().saturating_sub(self.raft.applied()) > MAX_GAP {
            self.metrics.proposals_failed.inc();
            return Err(Error::TooManyRequests);
        }
        Shard::with(|shard| {
            shard.propose(|id| {
                let header =
                    RequestHeader { id: id.0, username: caller.user.clone(), auth_revision: caller.revision };
                let data = raft_request::encode_as(&header, command);
                if data.len() > self.config.max_request_bytes {
                    return Err(Error::RequestTooLarge);
                }
                *encoded = data.into();
                let data = Arc::clone(encoded);
                Ok(Proposal { id: id.0, kind: EntryKind::Normal, data, only_in: None })
            })
        })
    }

    /// Waits until everything that was committed when this was called can be read here (ReadIndex,
    /// thesis §6.4).
    pub async fn linearize(&self) -> Result<(), Error> {
        self.linearize_since(Instant::now()).await.map(drop)
    }

    /// The same for what began just now: the clock is read once, when it is over, and that is told.
    pub async fn linearize_since(&self, began: Instant) -> Result<Instant, Error> {
        let confirmed = Shard::with(Shard::read)?.await.unwrap_or(Err(Error::Stopped));
        let agreed = Instant::now();
        if agreed - began > SLOW_READ {
            self.metrics.slow_read_indexes.inc();
        }
        if confirmed.is_err() {
            self.metrics.read_indexes_failed.inc();
        }
        confirmed.map(|()| agreed)
    }

    /// Waits until a compaction to `revision` has taken its rows away, durably.
    pub async fn compacted(self: &Arc<Self>, revision: i64) {
        self.compaction.finished(revision).await;
        let backend = self.backend.clone();
        // A failure of the backend ends the member; its flusher finds it too and says so.
        let _ = tokio::task::spawn_blocking(move || backend.flush_all()).await;
    }

    /// Tells the compactor that a compaction has been applied.
    pub fn wake_compactor(&self) {
        self.compaction.request();
    }

    /// Rewrites the store's file into as little space as it needs, after whoever is at it already.
    /// Takes the calling thread for as long as that takes.
    pub fn defragment(&self) -> Result<(), backend::Error> {
        let _running = Defragmentation::new(&self.defragmenting);
        let started = Instant::now();
        loop {
            match self.backend.defragment() {
                Err(backend::Error::Busy) => std::thread::sleep(BUSY_LOOK),
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.metrics.backend_defrag.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// How many defragmentations run.
    pub fn defragmenting(&self) -> usize {
        *self.defragmenting.borrow()
    }

    /// The same, for whoever waits for a change.
    pub fn defragmentations(&self) -> watch::Receiver<usize> {
        self.defragmenting.subscribe()
    }

    pub(crate) fn post_answer(&self, id: RequestId, answer: Answer) {
        if let Some(mailbox) = self.mailboxes.get(id.shard()) {
            mailbox.post_answers(&mut vec![(id, answer)]);
        }
    }

    pub(crate) fn post_read(&self, id: ReadId, result: Result<(), Error>) {
        if let Some(mailbox) = self.mailboxes.get((id.0 & 0xff) as usize) {
            mailbox.post_read(id.0, result);
        }
    }

    /// A quorum has confirmed a read round: it may go on once `index` is applied.
    pub(crate) fn confirm_read(&self, id: ReadId, index: Index) {
        // The lock orders this look at `applied` against the apply thread's: either it is applied
        // already, or `release_reads` finds the round in the list.
        let mut waiting = self.waiting_reads.lock();
        if self.raft.applied() >= index.0 {
            drop(waiting);
            self.post_read(id, Ok(()));
        } else {
            waiting.push((index, id));
        }
    }

    /// Lets the read rounds go that waited for `applied`.
    pub(crate) fn release_reads(&self, applied: Index) {
        let mut waiting = self.waiting_reads.lock();
        waiting.retain(|(index, id)| {
            let wait = *index > applied;
            if !wait {
                self.post_read(*id, Ok(()));
            }
            wait
        });
    }
}

/// A defragmentation that is running.
struct Defragmentation<'a>(&'a watch::Sender<usize>);

impl<'a> Defragmentation<'a> {
    fn new(running: &'a watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self(running)
    }
}

impl Drop for Defragmentation<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}
