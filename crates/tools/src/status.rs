//! What is in a backup.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use api::mvccpb::KeyValue;
use bolt::Reader;
use mvcc::Revision;
use prost::Message as _;

use crate::error::Error;
use crate::progress::{Phase, Tell, Told};

/// What `snapshot status` tells of a file; the names are etcd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C of all buckets, each as its name, then its keys and values.
    pub hash: u32,
    /// The revision of the newest row.
    pub revision: i64,
    /// Keys that exist at that revision.
    pub total_key: usize,
    /// Bytes of the database.
    pub total_size: u64,
    /// The version of the layout, if the file notes one: etcd's since 3.6 do.
    pub version: String,
}

/// Reads the whole file. Its SHA-256, if it has one, is not looked at, as in etcd. Memory: the keys.
///
/// # Errors
/// It is no database, damaged, or holds rows that are none.
pub fn status(path: &Path, mut tell: Tell<'_>) -> Result<Status, Error> {
    path.metadata().map_err(Error::io("stat", path))?;
    let file = File::open(path).map_err(Error::io("open", path))?;
    let file = Told::new(file, Phase::Reading, &mut tell).map_err(Error::io("read", path))?;
    let mut reader = Reader::open(file).map_err(Error::Database)?;
    let names: Vec<Vec<u8>> = reader.buckets().map(<[u8]>::to_vec).collect();
    let (mut hash, mut revision, mut version) = (0, 0, String::new());
    let mut keys: HashSet<Box<[u8]>> = HashSet::new();
    for name in names {
        hash = crc32c::crc32c_append(hash, &name);
        let mut pairs = reader.pairs(&name).map_err(Error::Database)?;
        while let Some((key, value)) = pairs.next().map_err(Error::Database)? {
            hash = crc32c::crc32c_append(hash, key);
            hash = crc32c::crc32c_append(hash, value);
            match &name[..] {
                b"key" => revision = row(key, value, &mut keys)?,
                b"meta" if key == b"storageVersion" => version = String::from_utf8_lossy(value).into_owned(),
                _ => {}
            }
        }
    }
    Ok(Status { hash, revision, total_key: keys.len(), total_size: reader.size(), version })
}

/// Takes a row into account; its revision.
fn row(name: &[u8], record: &[u8], keys: &mut HashSet<Box<[u8]>>) -> Result<i64, Error> {
    let wrong = |what: &str| Error::Row(format!("cannot {what}, key: {:?}", name.escape_ascii().to_string()));
    let (at, tombstone) = match name.split_first_chunk() {
        Some((at, [])) => (at, false),
        Some((at, b"t")) => (at, true),
        _ => return Err(wrong("parse revision key")),
    };
    let key = KeyValue::decode(record).map_err(|_| wrong("unmarshal value"))?.key;
    if tombstone {
        keys.remove(&key[..]);
    } else if !keys.contains(&key[..]) {
        keys.insert(Box::from(&key[..]));
    }
    Ok(Revision::from_row_key(at).main)
}
