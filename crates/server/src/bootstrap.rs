//! From a data directory, empty or not, to the parts of a member.
//!
//! A new member writes the log that etcd would: one entry that adds the member itself, committed in
//! term 1. From then on a first start and a restart are the same thing: open redb, read the WAL
//! behind redb's consistent index, and let raft apply what is committed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::etcdserverpb::Metadata;
use apply::{Machine, Quota, Shared};
use backend::{Backend, Options, Storage};
use node::{Node, Restored};
use prost::Message as _;
use raft::{Entry, EntryKind, HardState, Index, NodeId, SnapshotMeta, Term};
use wal::{Disk, Guard, RealDisk, Wal};

use crate::config::Config;
use crate::disk::NoSync;
use crate::identity::{cluster_id, member_id};

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
    /// Whether the log holds nothing but its first entry.
    pub(crate) new: bool,
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
    let applied = Index(backend.consistent().index);
    let new = !has_wal(&wal_dir);
    if new {
        if applied > Index(0) {
            let what = format!(
                "it holds no write-ahead log, but {} has applied {} entries of one; \
                 restore the log's directory, or start with an empty data directory",
                config.backend_path().display(),
                applied.0
            );
            return Err(StartError::NotOurs(wal_dir, what));
        }
        for dir in [&member_dir, &wal_dir] {
            sync_above(&*disk, dir)?;
        }
        found(config, Arc::clone(&disk), &wal_dir)?;
    }
    let (wal, recovered) = Wal::open(disk, &wal_dir, applied).map_err(StartError::Wal)?;
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
    let id = metadata.node_id.unwrap_or_default();
    let (machine, shared) = Machine::open(
        backend.clone(),
        apply::Options {
            lease: lease::Config {
                min_ttl: lease::Config::min_ttl_for(election_ticks(config), config.heartbeat),
                ..lease::Config::default()
            },
            quota: Quota::from_flag(config.quota_bytes),
        },
    )
    .map_err(StartError::Machine)?;

    let snapshot = match applied {
        Index(0) => SnapshotMeta::default(),
        index => SnapshotMeta {
            conf_state: machine.conf_state().clone(),
            index,
            term: Term(backend.consistent().term),
        },
    };
    let node = Node::new(
        node::Config {
            election_ticks: election_ticks(config),
            pre_vote: config.pre_vote,
            ..node::Config::new(NodeId(id), seed)
        },
        Restored { hard_state: recovered.hard_state, snapshot, entries: recovered.entries, applied },
    )
    .map_err(|error| StartError::Raft(error.to_string()))?;
    let cluster_id = metadata.cluster_id.unwrap_or_default();
    Ok(Parts { id, cluster_id, backend, machine, shared, wal, node, new, lock })
}

fn backend_options() -> Options {
    Options { flush_bytes: crate::flusher::FLUSH_BYTES, ..Options::default() }
}

fn election_ticks(config: &Config) -> u64 {
    let ticks = config.election_timeout.as_millis() / config.heartbeat.as_millis().max(1);
    u64::try_from(ticks).unwrap_or(u64::MAX).max(2)
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
fn found(config: &Config, disk: Arc<dyn Disk>, dir: &Path) -> Result<(), StartError> {
    let id = member_id(&config.peer_urls, &config.cluster_token);
    let metadata = Metadata { node_id: Some(id), cluster_id: Some(cluster_id(&[id])) };
    let founder = apply::Member { id, peer_urls: config.peer_urls.clone(), ..apply::Member::default() };
    let context = apply::to_json(&founder);
    let change = api::raftpb::ConfChange {
        id: None,
        r#type: Some(api::raftpb::ConfChangeType::ConfChangeAddNode.into()),
        node_id: Some(id),
        context: Some(context),
    };
    let entry = Entry {
        term: Term(1),
        index: Index(1),
        kind: EntryKind::ConfChange,
        data: change.encode_to_vec().into(),
    };
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(1) };
    // In one piece: a log without its first entry would have no voter, and wait for ever.
    let metadata = metadata.encode_to_vec();
    Wal::found(disk, dir, &metadata, wal::Options::default(), Some(&hard_state), &[entry])
        .map(drop)
        .map_err(StartError::Wal)
}
