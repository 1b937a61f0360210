//! A state as it travels: taken here to be sent, or arrived to take this one's place.
//!
//! The body is etcd's backend file; its metadata are the index, term and raft configuration of
//! exactly that state. Both ends insist on it: a body that is newer or older than its metadata makes
//! the receiver skip entries or apply them twice.
//!
//! Beside the body, raft's message carries the members once more, as etcd up to 3.5 stores them (see
//! `v2_store`). Such a member believes nothing else, and what it sends has rows that lack much of it;
//! so this is always sent, and where it has come it counts.
//!
//! # The order of an install
//!
//! 1. The body is on disk and synced; [`check`] has found nothing wrong. Only then may raft hear of it.
//! 2. The log's record of the snapshot is durable.
//! 3. [`Machine::install`] puts the new state in the old one's place.
//! 4. The body, and what the log held before it, may go.
//!
//! A crash before 2 leaves the old state and a body that nobody refers to; between 2 and 3 a start
//! finds the record newer than the state and calls [`finish`] with the body; after 3 the new state.

use std::io::{Read, Seek, Write};

use api::leasepb;
use auth::Loader;
use backend::{Backend, Consistent, Export, Incoming, Table, TableOp, Target};
use bolt::Layout;
use bytes::Bytes;
use lease::{LeaseId, Lessor, Stored};
use prost::Message as _;
use raft::{ConfState, Index, Snapshot, SnapshotMeta, Term};

use crate::alarms::Alarms;
use crate::cluster::{self, Cluster, damage};
use crate::machine::Machine;
use crate::rejection::Failure;
use crate::v2_store;

/// Tables to read: the store's, or those of a state that is to take its place.
pub(crate) trait Tables {
    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), backend::Error>;
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, backend::Error>;
    fn position(&self) -> Consistent;
}

impl Tables for Backend {
    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), backend::Error> {
        self.scan_table(table, visit)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, backend::Error> {
        self.table_get(table, key)
    }

    fn position(&self) -> Consistent {
        self.consistent()
    }
}

impl Tables for Incoming<'_> {
    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), backend::Error> {
        self.scan_table(table, visit)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, backend::Error> {
        self.table_get(table, key)
    }

    fn position(&self) -> Consistent {
        self.consistent().clone()
    }
}

impl Tables for Export {
    fn scan(&self, table: Table, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), backend::Error> {
        self.scan_table(table, visit)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, backend::Error> {
        self.table_get(table, key)
    }

    fn position(&self) -> Consistent {
        self.consistent().clone()
    }
}

/// What a body that has arrived is of.
#[derive(Clone, Copy, Debug)]
pub struct Arrived<'a> {
    /// Index, term and raft configuration.
    pub meta: &'a SnapshotMeta,
    /// The members as raft's message told them beside the body; empty if it did not.
    pub members: &'a [u8],
}

impl<'a> From<&'a SnapshotMeta> for Arrived<'a> {
    fn from(meta: &'a SnapshotMeta) -> Self {
        Arrived { meta, members: &[] }
    }
}

impl<'a> From<&'a Snapshot> for Arrived<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        Arrived { meta: &snapshot.meta, members: &snapshot.data }
    }
}

/// A state that stays as it is until it is written out. It holds disk space: drop it soon.
pub struct Taken {
    meta: SnapshotMeta,
    export: Export,
}

/// The state as it is now, everything sealed included. For any thread; the apply thread and readers
/// go on.
///
/// Its index may be one that raft has not been told of as applied yet, when a batch has just been
/// sealed: hand it to raft after that.
///
/// # Errors
/// The store failed.
pub fn take(backend: &Backend) -> Result<Taken, Failure> {
    let export = backend.export()?;
    let Consistent { index, term, conf_state } = export.consistent().clone();
    let conf_state = match conf_state {
        Some(json) => conf_state_of(&json).ok_or_else(|| damage(Table::Meta, b"confState"))?,
        None => ConfState::default(),
    };
    Ok(Taken { meta: SnapshotMeta { conf_state, index: Index(index), term: Term(term) }, export })
}

impl Taken {
    /// Index, term and raft configuration of exactly this state.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The members of exactly this state, for the message that the body goes with.
    ///
    /// # Errors
    /// The store failed.
    pub fn members(&self) -> Result<Vec<u8>, Failure> {
        Ok(v2_store::write(&Cluster::load(&self.export)?, self.meta.index.0))
    }

    /// The version of the layout that etcd would have noted in this state, as the body does: the
    /// cluster's own. Before 3.6 there was no such note.
    ///
    /// # Errors
    /// The store failed.
    pub fn storage_version(&self) -> Result<Option<String>, backend::Error> {
        let version = self.export.table_get(Table::Cluster, cluster::CLUSTER_VERSION)?;
        let version = version.and_then(|version| String::from_utf8(version.into()).ok());
        Ok(version.filter(|version| cluster::notes_storage_version(version)))
    }

    /// Writes the body and hands the sink back, not synced. Memory is bounded whatever the size.
    ///
    /// # Errors
    /// The sink failed ([`backend::Error::Sink`]), or the store.
    pub fn write_to<F: Write + Seek>(&self, sink: F) -> Result<F, backend::Error> {
        self.export.write_with(self.storage_version()?.as_deref(), sink)
    }

    /// The size of the body and where everything lies in it: reads the state once.
    ///
    /// # Errors
    /// The store failed.
    pub fn measure(&self) -> Result<Layout, backend::Error> {
        self.export.measure(self.storage_version()?.as_deref())
    }

    /// Writes the body, from its first byte to its last, to where one cannot go back. `layout` is what
    /// [`Taken::measure`] said.
    ///
    /// # Errors
    /// As those of [`Taken::write_to`].
    pub fn stream<F: Write>(&self, layout: &Layout, sink: F) -> Result<F, backend::Error> {
        self.export.stream(self.storage_version()?.as_deref(), layout, sink)
    }
}

/// The raft configuration in etcd's stored JSON, as flushes and snapshots carry it.
pub fn conf_state_of(json: &[u8]) -> Option<ConfState> {
    cluster::read_conf_state(json)
}

/// Whether a body that has arrived can be installed as the state it is said to be. It is read as a
/// whole.
///
/// # Errors
/// What is wrong with it: it must not be handed to raft.
pub fn check<'a>(body: impl Read + Seek, arrived: impl Into<Arrived<'a>>) -> Result<(), Failure> {
    let arrived: Arrived<'_> = arrived.into();
    let meta = arrived.meta;
    let (mut members, mut users, mut damaged) = (Vec::new(), Loader::default(), None);
    backend::inspect(body, &position(meta), |table, key, value| {
        if table == Table::Members {
            members.push((key.to_vec(), value.to_vec()));
        }
        if Loader::TABLES.contains(&table) && users.row(table, key, value).is_err() {
            damaged.get_or_insert_with(|| damage(table, key));
        }
    })?;
    if let Some(damaged) = damaged {
        return Err(damaged);
    }
    let mut cluster = Cluster { conf_state: meta.conf_state.clone(), ..Cluster::default() };
    for (key, value) in members {
        cluster.load_member(&key, &value)?;
    }
    settle(&mut cluster, arrived.members).map(|_| ())
}

/// What an install came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The current revision of the new state: watchers go on from there.
    pub revision: i64,
}

impl Machine {
    /// Replaces the state by the one in `body`, an etcd backend file: on disk in one step, then for
    /// every reader. Whoever reads already goes on in the old state.
    ///
    /// # Errors
    /// Nothing has changed in memory, and on disk is the old state or the new one, whole. But raft's
    /// log begins behind the snapshot by now: the member must stop, and its next start calls
    /// [`finish`].
    ///
    /// # Panics
    /// If the snapshot is not of a later entry than the last one applied.
    pub fn install<'a>(
        &mut self,
        body: impl Read + Seek,
        arrived: impl Into<Arrived<'a>>,
        target: Target<'_>,
    ) -> Result<Installed, Failure> {
        let arrived = arrived.into();
        let meta = arrived.meta;
        let applied = self.applied().0;
        assert!(meta.index > applied, "a snapshot of entry {} for a state at {applied}", meta.index);
        let backend = self.backend.clone();
        let incoming = receive(&backend, body, arrived, target)?;
        let users = load_authentication(&incoming)?;
        let (cluster, alarms) = (Cluster::load(&incoming)?, Alarms::load(&incoming)?);
        cluster.version.as_deref().map_or(Ok(()), cluster::speaks).map_err(|what| {
            let (index, term) = (meta.index, meta.term);
            Failure::NotUnderstood { index, term, what }
        })?;
        let mut lessor = Lessor::restore(self.options.lease, load_leases(&incoming)?);
        let opened = self.writer.install(incoming)?;
        for (key, lease) in opened.leases {
            let _ = lessor.attach(LeaseId(lease), &key);
        }
        let old = self.lessor.lock().replace(lessor);
        drop(old);
        self.start_anew(meta, cluster, alarms, users);
        Ok(Installed { revision: self.writer.current_revision() })
    }
}

/// Finishes, at a start, an install that a crash interrupted: the log has a record of a snapshot
/// that is newer than the state. Says whether there was anything to do. Opens nothing else: the
/// machine is opened afterwards.
///
/// # Errors
/// The body or the store cannot be read or written.
pub fn finish<'a>(
    backend: &Backend,
    body: impl Read + Seek,
    arrived: impl Into<Arrived<'a>>,
    target: Target<'_>,
) -> Result<bool, Failure> {
    let arrived = arrived.into();
    if backend.consistent().index >= arrived.meta.index.0 {
        return Ok(false);
    }
    receive(backend, body, arrived, target)?.take_place()?.publish();
    Ok(true)
}

fn receive<'a>(
    backend: &'a Backend,
    body: impl Read + Seek,
    arrived: Arrived<'_>,
    target: Target<'a>,
) -> Result<Incoming<'a>, Failure> {
    let mut incoming = backend.receive(body, position(arrived.meta), target)?;
    let ops = settle(&mut Cluster::load_unsettled(&incoming)?, arrived.members)?;
    if !ops.is_empty() {
        incoming.amend(&ops)?;
    }
    Ok(incoming)
}

/// Users, roles and whether authentication is on, out of their tables.
pub(crate) fn load_authentication(tables: &impl Tables) -> Result<auth::Store, Failure> {
    let mut loader = Loader::default();
    let mut damaged = None;
    for table in Loader::TABLES {
        tables.scan(table, &mut |key, value| {
            if loader.row(table, key, value).is_err() {
                damaged = Some(damage(table, key));
            }
        })?;
    }
    damaged.map_or_else(|| Ok(loader.finish()), Err)
}

/// Makes one record of the rows in a body, the members that came beside it and the raft configuration.
/// Returns the changes of the tables.
fn settle(cluster: &mut Cluster, members: &[u8]) -> Result<Vec<TableOp>, Failure> {
    let mut ops = Vec::new();
    if !members.is_empty() {
        let (table, key) = v2_store::PLACE;
        ops = v2_store::adopt(cluster, members).ok_or_else(|| damage(table, key))?;
    }
    ops.extend(cluster.settle()?);
    Ok(ops)
}

fn position(meta: &SnapshotMeta) -> Consistent {
    // A state before the first configuration has none, and stores none.
    let any = meta.conf_state != ConfState::default();
    let conf_state = any.then(|| cluster::write_conf_state(&meta.conf_state));
    Consistent { index: meta.index.0, term: meta.term.0, conf_state }
}

/// The leases in the table, each under its id in eight bytes.
pub(crate) fn load_leases(tables: &impl Tables) -> Result<Vec<Stored>, Failure> {
    let mut leases = Vec::new();
    // Planted: A7, leases are known from the log alone.
    if planted::is("lease-not-restored") {
        return Ok(leases);
    }
    let mut damaged = None;
    tables.scan(Table::Lease, &mut |key, value| match leasepb::Lease::decode(value) {
        Ok(lease) if key == lease.id.to_be_bytes() => {
            leases.push(Stored { id: LeaseId(lease.id), ttl: lease.ttl, remaining_ttl: lease.remaining_ttl });
        }
        _ => damaged = Some(damage(Table::Lease, key)),
    })?;
    damaged.map_or(Ok(leases), Err)
}

/// The name of a body's file: its index, so that one is never taken for another's.
pub fn file_name(index: Index) -> String {
    format!("{:016x}.snap.db", index.0)
}

/// The name of the file that keeps what came beside a body.
pub fn members_file_name(index: Index) -> String {
    format!("{:016x}.snap.members", index.0)
}
