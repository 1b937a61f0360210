//! Starts the threads of a member, and stops them in an order that loses nothing.

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use api::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use api::raft_request::Command;
use node::NodeId;
use tokio::sync::mpsc;
use wal::Guard;

use crate::bootstrap::{self, Parts, StartError};
use crate::config::Config;
use crate::error::Error;
use crate::member::{Made, Member};
use crate::proposal::RequestId;
use crate::raft_driver::Driver;
use crate::shard::Shard;
use crate::{
    apply_thread, auto_compaction, clock_thread, compactor, corruption, flusher, log_reader, roads, versions,
    wal_thread,
};

/// A thread that the member cannot do without has ended: the process must stop, and nothing is
/// acknowledged from here on.
#[derive(Debug)]
pub struct ThreadFailure {
    /// The thread's name.
    pub thread: String,
    /// What it died of.
    pub cause: String,
}

impl fmt::Display for ThreadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} thread failed: {}", self.thread, self.cause)
    }
}

/// A member with its threads running.
pub struct Server {
    member: Arc<Member>,
    clock: Option<JoinHandle<()>>,
    wal: Option<JoinHandle<()>>,
    log_reader: Option<JoinHandle<()>>,
    apply: Option<JoinHandle<()>>,
    flusher: Option<JoinHandle<()>>,
    compactor: Option<JoinHandle<()>>,
    shards: Vec<JoinHandle<()>>,
    stop_flushing: Arc<AtomicBool>,
    stop_compacting: Arc<AtomicBool>,
    stop_clock: Arc<AtomicBool>,
    failures: mpsc::UnboundedSender<ThreadFailure>,
    _lock: Box<dyn Guard>,
}

/// A number that differs from start to start.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

impl Server {
    /// Opens the data directory and starts the threads. Failures of threads arrive on `failures`.
    pub fn start(config: Config, failures: mpsc::UnboundedSender<ThreadFailure>) -> Result<Self, StartError> {
        let parts = bootstrap::open(&config, random())?;
        let Parts { id, cluster_id, backend, machine, shared, wal, node, .. } = parts;
        let (applied, configured) = (parts.applied, parts.configured);
        tracing::info!(
            "local-member-id" = format!("{id:x}"),
            "cluster-id" = format!("{cluster_id:x}"),
            "current-rev" = shared.store.current_revision(),
            "applied-index" = applied.0,
            new = parts.new,
            "opened data directory"
        );
        let alone = node::votes_alone(node.conf_state(), NodeId(id));
        let forced = config.force_new_cluster;
        let made = Made { id, cluster_id, backend, shared, driver: Driver::new(node, applied, configured) };
        let member = Arc::new(Member::new(config, made));
        member.raft().set_committed(applied.0);
        member.raft().set_applied(applied.0);
        member.raft().set_alone(alone);
        let peers = roads::start(&member, failures.clone());
        let peers = peers.map_err(|error| StartError::Io("peers".into(), error))?;
        member.set_peers(peers);
        if parts.new || !member.config().initial_corrupt_check {
            member.set_checked();
        }
        if !forced {
            roads::meet(&member, &member.cluster(), &parts.remotes);
        }
        let stop_flushing = Arc::new(AtomicBool::new(false));
        let stop_compacting = Arc::new(AtomicBool::new(false));
        let stop_clock = Arc::new(AtomicBool::new(false));
        let mut server = Self {
            clock: None,
            wal: None,
            log_reader: None,
            apply: None,
            flusher: None,
            compactor: None,
            shards: Vec::new(),
            stop_flushing: Arc::clone(&stop_flushing),
            stop_compacting: Arc::clone(&stop_compacting),
            stop_clock: Arc::clone(&stop_clock),
            failures,
            member: Arc::clone(&member),
            _lock: parts.lock,
        };
        let shared = || Arc::clone(&member);
        let on = shared();
        server.apply = Some(server.spawn("apply", move || apply_thread::run(&on, machine)));
        let (on, reader) = (shared(), wal.reader());
        server.log_reader = Some(server.spawn("log-reader", move || log_reader::run(&on, &reader)));
        let on = shared();
        server.wal = Some(server.spawn("wal", move || wal_thread::run(&on, wal)));
        let on = shared();
        server.flusher = Some(server.spawn("flusher", move || flusher::run(&on, &stop_flushing)));
        let on = shared();
        server.compactor = Some(server.spawn("compactor", move || compactor::run(&on, &stop_compacting)));
        let on = shared();
        server.clock = Some(server.spawn("clock", move || -> Result<(), Error> {
            clock_thread::run(&on, &stop_clock);
            Ok(())
        }));
        // What the log holds is applied, and a lone voter leads, without waiting for the first tick.
        member.inbox().tick(false);
        member.drive();
        Ok(server)
    }

    /// The member.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Starts the runtime threads; on each of them `serve(shard)` makes the future that accepts and
    /// serves connections.
    pub fn serve<F, S>(&mut self, serve: S) -> std::io::Result<()>
    where
        F: Future<Output = ()>,
        S: Fn(usize) -> F + Clone + Send + 'static,
    {
        for number in 0..self.member.shards() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (member, serve) = (Arc::clone(&self.member), serve.clone());
            let failures = self.failures.clone();
            let first_request = RequestId::first(random(), member.id());
            self.shards.push(self.spawn(&format!("shard-{number}"), move || -> Result<(), Error> {
                let shard = Shard::serve(Arc::clone(&member), number, first_request);
                runtime.block_on(async {
                    tokio::pin!(shard);
                    // Polled first, so that the thread is a shard before anything is served on it.
                    tokio::select! {
                        biased;
                        () = &mut shard => {}
                        () = async {
                            if number == 0 {
                                tokio::join!(take_part(&member, &failures), serve(number));
                            } else {
                                serve(number).await;
                            }
                        } => {}
                    }
                });
                runtime.shutdown_timeout(Duration::from_secs(1));
                Ok(())
            }));
        }
        Ok(())
    }

    /// Stops the member, in bounded time: another one leads, connections end, what is committed is
    /// applied and flushed, and the files are closed.
    pub fn stop(mut self) {
        let member = Arc::clone(&self.member);
        member.hand_over();
        member.begin_to_stop();
        for shard in self.shards.drain(..) {
            join(Some(shard));
        }
        member.inbox().stop();
        self.stop_clock.store(true, Ordering::Release);
        if let Some(clock) = &self.clock {
            clock.thread().unpark();
        }
        join(self.clock.take());
        member.peers().stop();
        member.log_reads().close();
        join(self.log_reader.take());
        member.wal_queue().close();
        join(self.wal.take());
        member.apply_queue().close();
        join(self.apply.take());
        self.stop_compacting.store(true, Ordering::Release);
        member.wake_compactor();
        join(self.compactor.take());
        self.stop_flushing.store(true, Ordering::Release);
        join(self.flusher.take());
    }

    fn spawn<E: fmt::Display>(
        &self,
        name: &str,
        run: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> JoinHandle<()> {
        let failures = self.failures.clone();
        let thread = name.to_owned();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let cause = match catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => panic_text(panic.as_ref()),
                };
                // Nobody listens any more once the process is on its way out.
                let _ = failures.send(ThreadFailure { thread, cause });
            })
            .expect("the system can start a thread")
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        // Its failure has been reported by itself.
        let _ = thread.join();
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panic").to_owned()
}

/// What a member does in its cluster beside serving clients, until it stops.
async fn take_part(member: &Arc<Member>, failures: &mpsc::UnboundedSender<ThreadFailure>) {
    let working = async {
        if !member.is_checked() {
            if let Err(cause) = corruption::initial(member).await {
                tracing::error!(error = cause, "checkInitialHashKV failed");
                let _ = failures.send(ThreadFailure { thread: "initial corruption check".to_owned(), cause });
                return;
            }
            member.set_checked();
        }
        introduce(member).await;
        tokio::join!(
            versions::monitor(Arc::clone(member)),
            corruption::monitor(member),
            auto_compaction::run(member)
        );
    };
    tokio::select! {
        () = working => {}
        () = member.stopping() => {}
    }
}

/// Once there is a leader and what the log holds is applied, writes into the log what clients may
/// know of this member.
async fn introduce(member: &Arc<Member>) {
    let config = member.config();
    member.led().await;
    // Nothing is served from a state that is older than what an earlier run has acknowledged (P5).
    while member.linearize().await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cluster = member.cluster();
    let known = cluster
        .members
        .get(&member.id())
        .is_some_and(|known| known.name == config.name && known.client_urls == config.client_urls);
    if !known {
        let attributes = Attributes { name: config.name.clone(), client_urls: config.client_urls.clone() };
        let attributes =
            ClusterMemberAttrSetRequest { member_id: member.id(), member_attributes: Some(attributes) };
        insist(member, attributes).await;
    }
    if cluster.version.is_none() && cluster.members.len() == 1 {
        // There is nobody to ask: no client need see a cluster without a version.
        versions::look(member).await;
    }
    tracing::info!(
        "local-member-id" = format!("{:x}", member.id()),
        "cluster-id" = format!("{:x}", member.cluster_id()),
        "published local member to cluster through raft"
    );
    member.set_ready();
}

/// Proposes a command that may be applied more than once until it is, or the member stops.
async fn insist(member: &Arc<Member>, command: impl Command + Clone) {
    while let Err(error) = member.propose(command.clone()).await {
        if error == Error::Stopped {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
