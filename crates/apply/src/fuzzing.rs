//! Commands and states made of any bytes: what fuzz targets call, and the tests that repeat what these have
//! found.
//!
//! A command that is in the log is applied by every member, and again by each that starts. One that makes the
//! machine panic would therefore end a cluster for good: whatever a client can bring into the log, and whatever
//! else reads as an entry, has an outcome, or is a reason to stop that has words.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::Duration;

use api::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};
use api::mvccpb::KeyValue;
use backend::{Backend, Storage, Table, Target};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use raft::{ConfState, Entry, EntryKind, Index, NodeId, SnapshotMeta, Term};

use crate::rejection::Failure;
use crate::{Machine, Options, Shared, check, permission, quota, read, snapshot, txn};

/// The fields of `InternalRaftRequest` that say what is asked for. Those of reads and writes of
/// keys stand more than once, so that they come more often.
const FIELDS: [u32; 39] = [
    3, 3, 4, 4, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 8, 9, 10, 11, 1000, 1011, 1012, 1013, 1100, 1101, 1102, 1103,
    1104, 1105, 1106, 1107, 1200, 1201, 1202, 1203, 1204, 1300, 1301, 1302, 9900,
];

/// Requests of the services: these are looked at before they are proposed.
const OF_KEYS: std::ops::RangeInclusive<u32> = 3..=6;

/// Most operations in a transaction: `--max-txn-ops`.
const MAX_TXN_OPS: usize = 128;

/// Applies a log whose entries are in `script`: for each a byte that says what it is, its length in one byte
/// and its bytes. Of every eighth script the state it has led to is taken in by another machine: that takes long.
///
/// # Panics
/// If an entry does what none may do.
pub fn commands(mut script: &[u8]) {
    let travels = script.len().is_multiple_of(8);
    let (mut machine, shared) = empty();
    let mut index = 0;
    while let Some((&kind, rest)) = script.split_first() {
        let (&length, rest) = rest.split_first().unwrap_or((&0, &[]));
        let (bytes, rest) = rest.split_at(usize::from(length).min(rest.len()));
        script = rest;
        let (kind, data) = match usize::from(kind) {
            at if at < 4 * FIELDS.len() => match request(FIELDS[at % FIELDS.len()], bytes) {
                Some(data) => (EntryKind::Normal, data),
                None => continue,
            },
            at if at < 200 => (EntryKind::Normal, bytes.to_vec()),
            at if at < 230 => (EntryKind::ConfChange, bytes.to_vec()),
            at if at < 240 => {
                machine.seal();
                continue;
            }
            at if at < 250 => {
                machine.seal();
                let _ = shared.store.compact_step(usize::from(length)).expect("memory does not fail");
                continue;
            }
            _ => (EntryKind::ConfChangeV2, bytes.to_vec()),
        };
        index += 1;
        let entry = Entry { term: Term(1), index: Index(index), kind, data: data.into() };
        match machine.apply(&entry, Duration::from_secs(index)) {
            Ok(_) => {}
            Err(Failure::NotUnderstood { .. }) => break,
            Err(failure) => panic!("an entry has broken the state: {failure}"),
        }
    }
    machine.seal();
    if travels {
        travel(&machine);
    }
}

/// What is proposed for a request of these bytes, if it is. For those of keys the service looks at them first, and
/// reads what only reads.
fn request(field: u32, bytes: &[u8]) -> Option<Vec<u8>> {
    if OF_KEYS.contains(&field) && !is_let_in(field, bytes) {
        return None;
    }
    let mut data = Vec::new();
    encode_key(field, WireType::LengthDelimited, &mut data);
    encode_varint(bytes.len() as u64, &mut data);
    data.extend_from_slice(bytes);
    Some(data)
}

fn is_let_in(field: u32, bytes: &[u8]) -> bool {
    match field {
        3 => RangeRequest::decode(bytes).is_ok_and(|request| {
            let _ = (check::range_stream(&request), permission::range(&request), read::query(&request));
            check::range(&request).is_ok()
        }),
        4 => PutRequest::decode(bytes).is_ok_and(|request| {
            let _ = (permission::put(&request), quota::put_cost(&request));
            check::put(&request).is_ok()
        }),
        5 => DeleteRangeRequest::decode(bytes).is_ok_and(|request| {
            let _ = permission::delete_range(&request);
            check::delete_range(&request).is_ok()
        }),
        _ => TxnRequest::decode(bytes).is_ok_and(|request| {
            let _ = (permission::txn(&request), quota::txn_cost(&request), txn::is_serializable(&request));
            check::txn(&request, MAX_TXN_OPS).is_ok()
        }),
    }
}

/// Takes in a database whose rows are in `script`, as one that another member or a backup has sent, and goes on
/// from it. For each row: its bucket, what its key is made of, the length of its value, and that.
///
/// # Panics
/// If it is neither refused nor served.
pub fn state(mut script: &[u8]) {
    let travels = script.len().is_multiple_of(8);
    let mut buckets: BTreeMap<&str, BTreeMap<Vec<u8>, Vec<u8>>> = BTreeMap::new();
    for table in Table::ALL {
        buckets.insert(table.name(), BTreeMap::new());
    }
    buckets.insert("key", BTreeMap::new());
    let names: Vec<&str> = buckets.keys().copied().collect();
    while let Some((&bucket, rest)) = script.split_first() {
        let (key, rest) = piece(rest);
        let (value, rest) = piece(rest);
        script = rest;
        let name = if bucket >= 128 { "key" } else { names[usize::from(bucket) % names.len()] };
        let (key, value) = match name {
            "key" => row(key, value),
            _ => (key.to_vec(), value.to_vec()),
        };
        if !key.is_empty() {
            buckets.get_mut(name).expect("one of them").insert(key, value);
        }
    }
    let meta = SnapshotMeta { index: Index(9), term: Term(3), conf_state: voters(&[1]) };
    let position = buckets.get_mut("meta").expect("one of them");
    position.insert(b"consistent_index".to_vec(), 9_u64.to_be_bytes().to_vec());
    position.insert(b"term".to_vec(), 3_u64.to_be_bytes().to_vec());
    let body = write(&buckets);

    let looked_at = snapshot::check(Cursor::new(&body), &meta);
    let (mut machine, _) = empty();
    if machine.install(Cursor::new(&body), &meta, Target::memory()).is_err() {
        return;
    }
    looked_at.expect("what can be taken in has been found good");
    // A client's next request.
    let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
    let data = request(4, &put.encode_to_vec()).expect("a good one");
    let next = Entry { term: Term(3), index: Index(10), kind: EntryKind::Normal, data: data.into() };
    if let Err(failure) = machine.apply(&next, Duration::ZERO) {
        assert!(!matches!(failure, Failure::NotUnderstood { .. }), "{failure}");
        return;
    }
    machine.seal();
    if travels {
        travel(&machine);
    }
}

/// A row's key is a revision, of a few bytes: where they are nonsense, so is it. Its value is a pair whose key
/// is short, or anything.
fn row(key: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match key {
        [main, sub, mark] => {
            let revision = backend::row_key(i64::from(*main), i64::from(*sub));
            let tombstone: &[u8] = if mark % 2 == 1 { b"t" } else { b"" };
            let pair = KeyValue {
                key: value.iter().take(1).copied().collect::<Vec<u8>>().into(),
                create_revision: i64::from(*main),
                mod_revision: i64::from(*main),
                version: 1,
                ..KeyValue::default()
            };
            ([&revision[..], tombstone].concat(), pair.encode_to_vec())
        }
        key => (key.to_vec(), value.to_vec()),
    }
}

fn piece(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (&length, rest) = bytes.split_first().unwrap_or((&0, &[]));
    rest.split_at(usize::from(length).min(rest.len()))
}

fn write(buckets: &BTreeMap<&str, BTreeMap<Vec<u8>, Vec<u8>>>) -> Vec<u8> {
    let mut file = bolt::Writer::create(Cursor::new(Vec::new())).expect("memory can be written");
    for (name, pairs) in buckets {
        file.bucket(name.as_bytes()).expect("in order");
        for (key, value) in pairs {
            file.put(name.as_bytes(), key, value).expect("in order, and short");
        }
    }
    file.finish().expect("memory can be written").into_inner()
}

fn voters(ids: &[u64]) -> ConfState {
    ConfState { voters: ids.iter().copied().map(NodeId).collect(), ..ConfState::default() }
}

fn empty() -> (Machine, Shared) {
    let backend =
        Backend::open(Storage::memory(), backend::Options::default()).expect("memory does not fail");
    Machine::open(backend, Options::default()).expect("an empty state can be opened")
}

/// What a machine has come to is a state that another one can take in, and that says the same.
fn travel(machine: &Machine) {
    if machine.applied().0.0 == 0 {
        return;
    }
    let taken = snapshot::take(&machine.backend).expect("memory does not fail");
    let members = taken.members().expect("memory does not fail");
    let body = taken.write_to(Cursor::new(Vec::new())).expect("memory does not fail").into_inner();
    let arrived = snapshot::Arrived { meta: taken.meta(), members: &members };
    snapshot::check(Cursor::new(&body), arrived).expect("a state that members have come to can be sent");
    let (mut other, _) = empty();
    let installed = other.install(Cursor::new(&body), arrived, Target::memory());
    let installed = installed.expect("a state that members have come to can be taken in");
    assert_eq!(installed.revision, machine.writer.current_revision());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// What the fuzzer has found worth keeping, see tests/fuzz.
    #[test]
    fn commands_and_states_of_the_corpus_have_an_outcome() {
        for (name, check) in [("commands", super::commands as fn(&[u8])), ("state", super::state)] {
            let corpus = format!("{}/../../tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let files = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path());
            assert!(files.map(|file| check(&std::fs::read(file).unwrap())).count() > 0, "{name}");
        }
    }
}
