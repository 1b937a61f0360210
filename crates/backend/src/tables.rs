//! The nouns of the room: rows, tables, and what an apply batch brings.

use crate::error::Error;
use bytes::Bytes;

/// etcd's revision key: 8 bytes main revision, big endian; `_`; 8 bytes sub revision, big endian.
///
/// A tombstone has the same key here; where etcd's 18-byte form matters (the hash, a snapshot
/// file), the trailing `t` is put back.
pub type RowKey = [u8; 17];

/// The key of the row written at this revision. Revisions are never negative.
pub fn row_key(main: i64, sub: i64) -> RowKey {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[9..].copy_from_slice(&sub.to_be_bytes());
    key
}

/// What is stored at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whether the key was deleted at this revision.
    pub tombstone: bool,
    /// An encoded `mvccpb.KeyValue`, owned by an allocation of its own.
    pub record: Bytes,
}

/// etcd's buckets besides `key`, which holds the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Table {
    Meta,
    Lease,
    Alarm,
    Cluster,
    Members,
    MembersRemoved,
    Auth,
    AuthUsers,
    AuthRoles,
}

impl Table {
    /// Every table, in the order of etcd's bucket names.
    pub const ALL: [Table; 9] = [
        Table::Alarm,
        Table::Auth,
        Table::AuthRoles,
        Table::AuthUsers,
        Table::Cluster,
        Table::Lease,
        Table::Members,
        Table::MembersRemoved,
        Table::Meta,
    ];

    /// The name of etcd's bucket.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Lease => "lease",
            Table::Alarm => "alarm",
            Table::Cluster => "cluster",
            Table::Members => "members",
            Table::MembersRemoved => "members_removed",
            Table::Auth => "auth",
            Table::AuthUsers => "authUsers",
            Table::AuthRoles => "authRoles",
        }
    }
}

/// One change of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOp {
    /// The table it changes.
    pub table: Table,
    /// The key in that table.
    pub key: Bytes,
    /// The new value; `None` deletes.
    pub value: Option<Bytes>,
}

impl TableOp {
    /// Sets `key` to `value`.
    pub fn put(table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) -> TableOp {
        TableOp { table, key: key.into(), value: Some(value.into()) }
    }

    /// Removes `key`, if it is there.
    pub fn delete(table: Table, key: impl Into<Bytes>) -> TableOp {
        TableOp { table, key: key.into(), value: None }
    }
}

/// The end of an apply batch: what becomes durable in one piece with the rows inserted since the
/// previous seal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// The last log entry whose effects the batch holds.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The raft configuration as of `index` in etcd's JSON form, when the batch changed it.
    pub conf_state: Option<Bytes>,
    /// Changes of the tables, in order.
    pub ops: Vec<TableOp>,
}

/// How far the durable state reaches in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consistent {
    /// The last log entry whose effects are durable; 0 in a new store.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The raft configuration as of `index`, in etcd's JSON form.
    pub conf_state: Option<Bytes>,
}

// How the rows and tables lie in redb.

/// Rows under their 17-byte key; the value is a tag byte, a CRC-32C (4 bytes, big endian) of key,
/// tag and record, and the record.
///
/// The tag, not an 18th key byte, marks a tombstone: keys of one width pack and compare better,
/// and a row is found, or removed, without knowing which kind it is. The checksum is looked at on
/// every read, which redb does not do: a disk that rots must not answer a client.
pub(crate) const ROWS: redb::TableDefinition<&'static RowKey, &'static [u8]> =
    redb::TableDefinition::new("key");

const LIVE: u8 = b'p';
const TOMBSTONE: u8 = b't';
const ROW_PREFIX: usize = 5;

fn row_checksum(key: &RowKey, tag: u8, record: &[u8]) -> [u8; 4] {
    let mut head = [tag; 18];
    head[..17].copy_from_slice(key);
    crc32c::crc32c_append(crc32c::crc32c(&head), record).to_be_bytes()
}

/// Makes `value` what is stored for a row.
pub(crate) fn wrap_row(key: &RowKey, row: &Row, value: &mut Vec<u8>) {
    let tag = if row.tombstone { TOMBSTONE } else { LIVE };
    value.clear();
    value.push(tag);
    value.extend_from_slice(&row_checksum(key, tag, &row.record));
    value.extend_from_slice(&row.record);
}

/// The tombstone flag and the record of a stored value, if it is what was stored.
pub(crate) fn unwrap_row<'a>(key: &RowKey, value: &'a [u8]) -> Result<(bool, &'a [u8]), Error> {
    if let Some((&[tag, a, b, c, d], record)) = value.split_first_chunk::<ROW_PREFIX>()
        && matches!(tag, LIVE | TOMBSTONE)
        && [a, b, c, d] == row_checksum(key, tag, record)
    {
        return Ok((tag == TOMBSTONE, record));
    }
    Err(Error::Corrupt(format!("the row at revision key {} fails its checksum", key.escape_ascii())))
}

/// The length of the record in a stored value.
pub(crate) fn record_len(value: &[u8]) -> usize {
    value.len().saturating_sub(ROW_PREFIX)
}

/// What this program notes about the store itself, outside etcd's buckets and its hash.
pub(crate) const OWN: redb::TableDefinition<&'static str, &'static [u8]> =
    redb::TableDefinition::new("cairn");

/// The key in `OWN` that says the store is ours, and its value in this version of the layout.
pub(crate) const FORMAT: (&str, &[u8]) = ("format", b"1");

/// The key in `OWN` of the count of live bytes, 8 bytes big endian.
pub(crate) const LIVE_BYTES: &str = "live_bytes";

/// etcd's keys in `meta` that this room writes.
pub(crate) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub(crate) const TERM: &[u8] = b"term";
pub(crate) const CONF_STATE: &[u8] = b"confState";

/// etcd's key in `meta` for the version of the layout; a member may raise it on its own.
pub(crate) const STORAGE_VERSION: &[u8] = b"storageVersion";

/// What is written to `meta` for a position; a configuration that is not given stays.
pub(crate) fn position(at: &Consistent) -> impl Iterator<Item = TableOp> {
    let number = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
    let conf_state = at.conf_state.clone().map(|conf| TableOp::put(Table::Meta, CONF_STATE, conf));
    let index = TableOp::put(Table::Meta, CONSISTENT_INDEX, number(at.index));
    [index, TableOp::put(Table::Meta, TERM, number(at.term))].into_iter().chain(conf_state)
}

pub(crate) type EntryTable = redb::TableDefinition<'static, &'static [u8], &'static [u8]>;

impl Table {
    pub(crate) const fn definition(self) -> EntryTable {
        redb::TableDefinition::new(self.name())
    }
}

/// What a row costs on disk: key, tag and checksum, record, and the leaf's entry, in bytes.
pub(crate) fn row_bytes(record: usize) -> u64 {
    (size_of::<RowKey>() + ROW_PREFIX + record + 4) as u64
}

/// What a table entry costs on disk, in bytes.
pub(crate) fn entry_bytes(key: usize, value: usize) -> u64 {
    (key + value + 8) as u64
}
