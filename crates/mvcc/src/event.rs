//! What happened to one key at one revision, as a watcher is told it.

use bytes::Bytes;

use crate::history::Version;
use crate::record::{self, Header};
use crate::revision::Revision;

/// One change. Its bytes are encoded once, when the change is made, and shared from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether the key was deleted; else it was put.
    pub tombstone: bool,
    /// When.
    pub revision: Revision,
    /// The key, a slice of `record`.
    pub key: Bytes,
    /// How many puts the key has seen since it was created, this one included; 0 for a deletion.
    pub version: i64,
    /// The revision that created the key; 0 for a deletion.
    pub create_revision: i64,
    /// The lease that the key is attached to; 0 for none.
    pub lease: i64,
    /// The encoded `mvccpb.KeyValue` that a watcher is sent. For a put it is the stored row; for a deletion
    /// it is the key and the revision of the deletion.
    pub record: Bytes,
}

impl Event {
    pub(crate) fn put(key: &[u8], value: &[u8], version: &Version) -> Event {
        let header = Header {
            key,
            create_revision: version.create,
            mod_revision: version.main,
            version: version.version,
            lease: version.lease,
        };
        Event::of(version, key.len(), record::encode(&header, value))
    }

    pub(crate) fn tombstone(key: &[u8], at: Revision) -> Event {
        let header = Header { key, mod_revision: at.main, ..Header::default() };
        Event::of(&Version::tombstone(at), key.len(), record::encode(&header, &[]))
    }

    /// The event of a version whose record begins with the field of a key of this length.
    pub(crate) fn of(version: &Version, key_len: usize, record: Bytes) -> Event {
        let end = record::key_field_len(key_len);
        Event {
            tombstone: version.is_tombstone(),
            revision: version.revision(),
            key: record.slice(end - key_len..end),
            version: version.version,
            create_revision: version.create,
            lease: version.lease,
            record,
        }
    }

    /// How many bytes the key and the value have.
    pub fn size(&self) -> usize {
        self.key.len() + record::value_of(&self.record).map_or(0, <[u8]>::len)
    }

    pub(crate) fn version(&self) -> Version {
        if self.tombstone {
            Version::tombstone(self.revision)
        } else {
            Version::put(self.revision, self.create_revision, self.version, self.lease)
        }
    }

    /// What is stored. A tombstone's row is the key alone, for the revision is in the key of the row.
    pub(crate) fn row(&self) -> backend::Row {
        let record = if self.tombstone {
            self.record.slice(..record::key_field_len(self.key.len()))
        } else {
            self.record.clone()
        };
        backend::Row { tombstone: self.tombstone, record }
    }
}
