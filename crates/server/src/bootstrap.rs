//! From a data directory, empty or not, to the parts of a member.
//!
//! A new member writes the log that etcd would: an entry for each founder of the cluster, committed in
//! term 1, or none where it joins one that exists. From then on a first start and a restart are the
//! same thing: finish what a crash may have interrupted, open redb, read the WAL behind redb's
//! consistent index, and let raft apply what is committed.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::etcdserverpb::Metadata;
use apply::{Machine, Member as Other, Quota, Shared};
use backend::{Backend, Options, Storage, Target};
use node::{Node, Restored};
use prost::Message as _;
use raft::{Index, NodeId, SnapshotMeta, Term};
use wal::{Disk, Guard, RealDisk, Recovered, Wal};

use crate::config::Config;
use crate::disk::NoSync;
use crate::founding::{self, Founding};
use crate::{force, snapshots, versions};

/// Why a member could not start. Nothing has been changed on disk, unless it says so.
#[derive(Debug)]
pub enum StartError {
    /// A directory or file could not be made, opened or locked.
    Io(PathBuf, io::Error),
    /// Another process uses the data directory.
    InUse(PathBuf),
    /// The directory holds something that Cairn did not write; what is said after the path.
    NotOurs(PathBuf, String),
    /// The log could not be read or created.
    Wal(wal::WalError),
    /// redb's file could not be opened.
    Backend(backend::Error),
    /// What redb holds makes no sense to the state machine.
    Machine(apply::Failure),
    /// What the WAL holds makes no sense to raft.
    Raft(String),
    /// The cluster cannot be founded or joined; etcd's words.
    Cluster(String),
    /// This member has been removed from its cluster, and must not come back with what it knows.
    Removed(u64),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::InUse(path) => {
                write!(f, "data directory {} is in use by another process", path.display())
            }
            Self::NotOurs(path, what) => write!(f, "{}: {what}", path.display()),
            Self::Wal(error) => write!(f, "write-ahead log: {error}"),
            Self::Backend(error) => write!(f, "backend: {error}"),
            Self::Machine(error) => write!(f, "stored state: {error}"),
            Self::Raft(error) => write!(f, "raft: {error}"),
            Self::Cluster(words) => f.write_str(words),
            Self::Removed(id) => write!(
                f,
                "member {id:x} has been permanently removed from the cluster; data-dir used by this member must \
                 be removed"
            ),
        }
    }
}

impl std::error::Error for StartError {}

/// The parts of a member, read from disk.
pub(crate) struct Parts {
    pub(crate) id: u64,
    pub(crate) cluster_id: u64,
    pub(crate) backend: Backend,
    pub(crate) machine: Machine,
    pub(crate) shared: Shared,
    pub(crate) wal: Wal,
    pub(crate) node: Node,
    /// How far the machine has applied the log.
    pub(crate) applied: Index,
    /// The last configuration entry that is known to be committed, among those in the log.
    pub(crate) configured: Index,
    /// Whether there was no member before.
    pub(crate) new: bool,
    /// Members that the log does not name yet.
    pub(crate) remotes: Vec<Other>,
    /// Held for as long as the member runs.
    pub(crate) lock: Box<dyn Guard>,
}

/// Opens the data directory, making it first where there is none.
pub(crate) fn open(config: &Config, seed: u64) -> Result<Parts, StartError> {
    let member_dir = config.data_dir.join("member");
    refuse_foreign(config, &member_dir)?;
    for dir in [&config.data_dir, &member_dir] {
        make_dir(dir)?;
    }
    let lock = RealDisk.lock(&member_dir).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => StartError::InUse(config.data_dir.clone()),
        _ => StartError::Io(member_dir.clone(), error),
    })?;
    let wal_dir = config.wal_dir();
    if let Some(parent) = wal_dir.parent() {
        std::fs::create_dir_all(parent).map_err(|error| StartError::Io(parent.to_owned(), error))?;
    }
    let disk: Arc<dyn Disk> = if config.no_fsync { Arc::new(NoSync) } else { Arc::new(RealDisk) };

    let backend = Backend::open(Storage::File(config.backend_path()), backend_options())
        .map_err(StartError::Backend)?;
    let new = !has_wal(&wal_dir);
    let mut remotes = Vec::new();
    if new {
        refuse_applied(config, &backend, &wal_dir)?;
        let founding = founding::decide(config).map_err(StartError::Cluster)?;
        for dir in [&member_dir, &wal_dir] {
            sync_above(&*disk, dir)?;
        }
        found(&founding, Arc::clone(&disk), &wal_dir)?;
        remotes = founding.remotes;
    }
    let applied = Index(backend.consistent().index);
    let (mut wal, mut recovered) = Wal::open(disk, &wal_dir, applied).map_err(StartError::Wal)?;
    if let Some(repair) = &recovered.repaired {
        // What is cut was never acknowledged, but whoever runs this should know that it was there.
        tracing::warn!(
            file = %repair.file.display(),
            offset = repair.offset,
            reason = repair.reason,
            "cut the torn end of the write-ahead log"
        );
    }
    let metadata = Metadata::decode(recovered.metadata.as_slice())
        .map_err(|error| StartError::NotOurs(wal_dir.clone(), format!("unreadable metadata: {error}")))?;
    let (id, cluster_id) = (metadata.node_id(), metadata.cluster_id());
    finish_install(config, &backend, &recovered)?;
    let begin = Index(backend.consistent().index);
    let (mut machine, shared) = open_machine(config, &backend)?;
    let term = Term(backend.consistent().term);
    if shared.cluster.get().removed.contains(&id) {
        return Err(StartError::Removed(id));
    }
    if let Some(words) = versions::refuses(shared.cluster.get().version.as_deref()) {
        return Err(StartError::Cluster(words));
    }
    if config.force_new_cluster && !new {
        force::alone(config, id, &backend, (&mut machine, &shared), &mut wal, &mut recovered)?;
    }
    let applied = machine.applied().0;
    let conf_state = machine.conf_state().clone();
    let snapshot = match begin {
        // There is nothing before the first entry, and its configuration is nobody's.
        Index(0) => SnapshotMeta { conf_state, ..SnapshotMeta::default() },
        index => SnapshotMeta { conf_state, index, term },
    };
    let configured = last_configuration(&recovered, applied);
    let Recovered { hard_state, entries, .. } = recovered;
    let settings = node::Config::new(NodeId(id), seed);
    let limits = node::Limits { catch_up_entries: config.catchup_entries, ..settings.limits };
    let node = Node::new(
        node::Config {
            election_ticks: config.election_ticks(),
            pre_vote: config.pre_vote,
            limits,
            ..settings
        },
        Restored { hard_state, snapshot, entries, applied },
    )
    .map_err(|error| StartError::Raft(error.to_string()))?;
    Ok(Parts { id, cluster_id, backend, machine, shared, wal, node, applied, configured, new, remotes, lock })
}

/// A store without the log that made it is not begun anew: what it holds would be applied twice.
fn refuse_applied(config: &Config, backend: &Backend, wal_dir: &Path) -> Result<(), StartError> {
    let applied = backend.consistent().index;
    if applied == 0 {
        return Ok(());
    }
    let what = format!(
        "it holds no write-ahead log, but {} has applied {applied} entries of one; \
         restore the log's directory, or start with an empty data directory",
        config.backend_path().display()
    );
    Err(StartError::NotOurs(wal_dir.to_owned(), what))
}

/// Takes in the snapshot that the log has a record of and the store does not hold yet; then removes
/// what else lies beside it.
fn finish_install(config: &Config, backend: &Backend, recovered: &Recovered) -> Result<(), StartError> {
    let dir = config.snapshot_dir();
    make_dir(&dir)?;
    if let Some(meta) = &recovered.install {
        let path = snapshots::incoming_path(&dir, meta.index);
        let body = File::open(&path).map_err(|error| StartError::Io(path.clone(), error))?;
        tracing::info!(path = %path.display(), index = meta.index.0, "finishing the install of a snapshot");
        let members =
            snapshots::incoming_members(&dir, meta.index).map_err(|error| StartError::Io(path, error))?;
        let arrived = apply::snapshot::Arrived { meta, members: &members };
        apply::snapshot::finish(backend, BufReader::new(body), arrived, Target::Beside)
            .map_err(StartError::Machine)?;
    }
    snapshots::clean(&dir, None).map_err(|error| StartError::Io(dir, error))
}

fn open_machine(config: &Config, backend: &Backend) -> Result<(Machine, Shared), StartError> {
    let options = apply::Options {
        lease: lease::Config {
            min_ttl: lease::Config::min_ttl_for(config.election_ticks(), config.heartbeat),
            checkpoint_interval: Some(config.checkpoint_interval),
            ..lease::Config::default()
        },
        quota: Quota::from_flag(config.quota_bytes),
        token_ttl: config.auth_token_ttl,
    };
    Machine::open(backend.clone(), options).map_err(StartError::Machine)
}

/// Who votes is known once this entry is applied, if it is known at all.
fn last_configuration(recovered: &Recovered, applied: Index) -> Index {
    let committed = recovered.hard_state.commit.max(applied);
    let entries = recovered.entries.iter().rev().filter(|entry| entry.index <= committed);
    entries.filter(|entry| entry.is_conf_change()).map(|entry| entry.index).next().unwrap_or_default()
}

fn backend_options() -> Options {
    Options { flush_bytes: crate::flusher::FLUSH_BYTES, ..Options::default() }
}

/// A directory of etcd's own, or a file where the directory should be, is left alone.
fn refuse_foreign(config: &Config, member_dir: &Path) -> Result<(), StartError> {
    if config.data_dir.exists() && !config.data_dir.is_dir() {
        let what = "it is not a directory".to_owned();
        return Err(StartError::NotOurs(config.data_dir.clone(), what));
    }
    let bolt = member_dir.join("snap").join("db");
    if bolt.exists() && config.backend_path().exists() {
        let what = format!(
            "etcd has been started on it since Cairn was: {} is etcd's. What etcd may have written to the log is \
             not checked; if no client has used that etcd, move {} away and start again",
            bolt.display(),
            member_dir.join("snap").display()
        );
        return Err(StartError::NotOurs(config.data_dir.clone(), what));
    }
    if bolt.exists() {
        let what = format!(
            "it belongs to etcd, whose database {} Cairn does not open in place; \
             take a snapshot with etcdctl and start with another data directory",
            bolt.display()
        );
        return Err(StartError::NotOurs(config.data_dir.clone(), what));
    }
    if has_wal(&config.wal_dir()) && !config.backend_path().exists() {
        let what = format!(
            "it holds a write-ahead log, but no {}; the directory is not Cairn's or incomplete",
            config.backend_path().display()
        );
        return Err(StartError::NotOurs(config.wal_dir(), what));
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<(), StartError> {
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| StartError::Io(parent.to_owned(), error))?;
    }
    RealDisk.create_dir(dir).map_err(|error| StartError::Io(dir.to_owned(), error))
}

/// Makes the names of a new member's directories durable: what is synced inside of them later must
/// not go with them (W7). Those further up may belong to somebody else, and refuse.
fn sync_above(disk: &dyn Disk, dir: &Path) -> Result<(), StartError> {
    let named = |dir: &Path| if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_owned() };
    for (distance, above) in dir.ancestors().skip(1).map(named).enumerate() {
        match disk.sync_dir(&above) {
            Err(error) if distance == 0 => return Err(StartError::Io(above, error)),
            Err(_) => break,
            Ok(()) => {}
        }
    }
    Ok(())
}

pub(crate) fn has_wal(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.path().extension().is_some_and(|e| e == "wal"))
    })
}

/// Writes the log of a member that nobody has ever started.
fn found(founding: &Founding, disk: Arc<dyn Disk>, dir: &Path) -> Result<(), StartError> {
    let metadata = Metadata { node_id: Some(founding.id), cluster_id: Some(founding.cluster_id) };
    // In one piece: a log with a part of its first entries would know a part of the voters.
    let metadata = metadata.encode_to_vec();
    let options = wal::Options::default();
    Wal::found(disk, dir, &metadata, options, founding.hard_state.as_ref(), &founding.entries)
        .map(drop)
        .map_err(StartError::Wal)
}
