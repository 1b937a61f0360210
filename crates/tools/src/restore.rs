//! A member made from a backup.
//!
//! 1. What is asked for is checked, and the file's SHA-256.
//! 2. The store is written beside the place where the data directory is to be: see [`apply::restore`].
//! 3. It is opened as a start would. What cannot be served is not restored.
//! 4. The log is written: who the member is, and that everything up to the founders' entries is in the
//!    store. Whoever is added later finds no entry before that, and is sent the state.
//! 5. All of it is durable; a rename gives it its name.
//!
//! Until the last step a failure leaves nothing, and a crash a directory whose name ends in
//! `.restoring`, which the next try removes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::etcdserverpb::Metadata;
use apply::{Machine, Options};
use backend::{Backend, Storage};
use bolt::digest;
use prost::Message as _;
use raft::{HardState, SnapshotMeta};
use wal::{RealDisk, Wal};

use crate::error::Error;
use crate::progress::{Phase, Tell, Told};
use crate::staging::{Staging, Unless, is_free, make_dir, sync_dir};

/// What to restore, and as whom. The members' names and URLs are checked already.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The file.
    pub snapshot: PathBuf,
    /// The name of the member that is made.
    pub name: String,
    /// The peer URLs of all members of the new cluster by name, this one's too.
    pub members: BTreeMap<String, Vec<String>>,
    /// What keeps clusters of equal members apart.
    pub token: String,
    /// Where the member's data are to be: nothing, or an empty directory.
    pub data_dir: PathBuf,
    /// Where its log is to be, if not within the data directory: nothing.
    pub wal_dir: Option<PathBuf>,
    /// Whether a file without SHA-256, or with a wrong one, will do.
    pub skip_hash_check: bool,
    /// By how much revisions are raised, with everything before them compacted.
    pub bump: Option<u64>,
}

/// A member that has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Its id.
    pub member_id: u64,
    /// Its cluster's id.
    pub cluster_id: u64,
    /// The revision at which history goes on.
    pub revision: i64,
}

/// Makes the member. On a terminal `tell` shows how far it is.
///
/// # Errors
/// There is no member then, and nothing has changed.
pub fn restore(what: &Restore, mut tell: Tell<'_>) -> Result<Restored, Error> {
    let founders = server::founders(&what.members, &what.token).map_err(Error::Members)?;
    let own = founders.values().find(|member| member.name == what.name).ok_or_else(|| {
        Error::Members(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            what.name
        ))
    })?;
    let ids: Vec<u64> = founders.keys().copied().collect();
    let (member_id, cluster_id) = (own.id, server::cluster_id(&ids));
    let founders: Vec<apply::Member> = founders.into_values().collect();
    if !is_free(&what.data_dir) {
        return Err(Error::DataDir(what.data_dir.clone()));
    }
    let within = what.data_dir.join("member").join("wal");
    let apart = what.wal_dir.as_deref().filter(|dir| **dir != within);
    if let Some(dir) = apart
        && dir.symlink_metadata().is_ok()
    {
        return Err(Error::WalDir(dir.to_owned()));
    }
    let file = File::open(&what.snapshot).map_err(Error::io("open", &what.snapshot))?;
    check_digest(&file, what, &mut tell)?;

    let is_there = what.data_dir.exists();
    // An empty directory may be where another file system is mounted: it cannot be replaced, only filled.
    let data = if is_there { Staging::within(&what.data_dir) } else { Staging::beside(&what.data_dir) }?;
    let member_dir = data.path().join("member");
    make_dir(&member_dir)?;
    let log = apart.map(Staging::beside).transpose()?;
    let log_dir = log.as_ref().map_or(member_dir.as_path(), Staging::path).join("wal");

    let file = Told::new(&file, Phase::Reading, &mut tell).map_err(Error::io("read", &what.snapshot))?;
    let (meta, revision, total) = {
        let backend =
            Backend::open(Storage::File(member_dir.join("cairn.redb")), backend::Options::default())
                .map_err(Error::Backend)?;
        let founded = apply::restore(&backend, file, &founders, what.bump).map_err(Error::State)?;
        let total = backend.size();
        tell(Phase::Opening, 0, total);
        let (_, shared) = Machine::open(backend, Options::default()).map_err(Error::State)?;
        (founded.meta, shared.store.current_revision(), total)
    };
    tell(Phase::Opening, total, total);
    write_log(&log_dir, member_id, cluster_id, &meta)?;
    for dir in [&log_dir, &member_dir, data.path()] {
        sync_dir(dir)?;
    }
    // The log first: it means nothing without the store, while a store without its log is damage.
    let named = match log.zip(apart) {
        Some((log, dir)) => {
            log.publish(Some("wal"), dir)?;
            Some(Unless::new(dir))
        }
        None => None,
    };
    if is_there {
        data.publish(Some("member"), &what.data_dir.join("member"))?;
    } else {
        data.publish(None, &what.data_dir)?;
    }
    if let Some(named) = named {
        named.keep();
    }
    Ok(Restored { member_id, cluster_id, revision })
}

fn check_digest(mut file: &File, what: &Restore, tell: &mut Tell<'_>) -> Result<(), Error> {
    if what.skip_hash_check {
        return Ok(());
    }
    let io = || Error::io("read", &what.snapshot);
    let length = file.seek(SeekFrom::End(0)).map_err(io())?;
    if !digest::is_present(length) {
        return Err(Error::NoDigest);
    }
    let mut told = Told::new(file, Phase::Checking, tell).map_err(io())?;
    digest::verify(&mut told).map(drop).map_err(|error| match error {
        bolt::Error::Mismatch { stored, found } => Error::Digest(stored, found),
        error => Error::Database(error),
    })
}

/// A log that begins behind what the store holds.
fn write_log(dir: &Path, id: u64, cluster_id: u64, meta: &SnapshotMeta) -> Result<(), Error> {
    let metadata = Metadata { node_id: Some(id), cluster_id: Some(cluster_id) }.encode_to_vec();
    let options = wal::Options::default();
    let state = HardState { term: meta.term, vote: None, commit: meta.index };
    Wal::found(Arc::new(RealDisk), dir, &metadata, options, None, &[])
        .and_then(|mut wal| {
            wal.append_install(meta, &state)?;
            wal.sync()
        })
        .map_err(Error::Wal)
}
