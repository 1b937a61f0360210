//! What applying one entry costs: `cargo run --release -p apply --example bench [entries]`.
//!
//! Entries are made beforehand, sealed in batches of 64, and flushed by a thread as the server's
//! does. The first line is `mvcc` alone, to subtract. Linux only: times are the thread's own.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    Compare, InternalRaftRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestHeader, RequestOp,
    TxnRequest,
};
use apply::{Machine, Options, Shared};
use backend::{Backend, Seal, Storage};
use bytes::Bytes;
use lease::{Config, LeaseId, Lessor};
use prost::Message;
use raft::{Entry, EntryKind, Index, Term};

const BATCH: usize = 64;

fn main() {
    let entries: u64 = std::env::args().nth(1).map_or(300_000, |n| n.parse().unwrap());
    mvcc_alone(entries);
    run("put, 256 B, new keys", entries, |i| put(i, 0));
    run("put, 256 B, 1,000 keys again and again", entries, |i| put(i % 1_000, 0));
    run("put with a lease", entries, |i| put(i, 1 + (i % 100) as i64));
    run("compare-and-put", entries, |i| compare_and_put(i % 1_000));
    run("lease grant", entries, |i| InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest { id: 1_000 + i as i64, ttl: 600 }),
        ..InternalRaftRequest::default()
    });
    renewals();
    decoding(entries);
}

fn key(i: u64) -> Bytes {
    Bytes::from(format!("/registry/pods/{:016x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn put(i: u64, lease: i64) -> InternalRaftRequest {
    let put = PutRequest { key: key(i), value: Bytes::from(vec![b'x'; 256]), lease, ..PutRequest::default() };
    InternalRaftRequest { put: Some(put), ..InternalRaftRequest::default() }
}

fn compare_and_put(i: u64) -> InternalRaftRequest {
    let compare = Compare {
        result: CompareResult::Greater as i32,
        target: CompareTarget::Mod as i32,
        key: key(i),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(-1)),
    };
    let op = |request| vec![RequestOp { request: Some(request) }];
    let get = RangeRequest { key: key(i), ..RangeRequest::default() };
    let txn = TxnRequest {
        compare: vec![compare],
        success: op(Request::RequestPut(put(i, 0).put.unwrap())),
        failure: op(Request::RequestRange(get)),
    };
    InternalRaftRequest { txn: Some(txn), ..InternalRaftRequest::default() }
}

fn encode(i: u64, request: InternalRaftRequest) -> Arc<[u8]> {
    let header = RequestHeader { id: i + 1, ..RequestHeader::default() };
    InternalRaftRequest { header: Some(header), ..request }.encode_to_vec().into()
}

/// A backend with a thread that flushes it.
struct Flushed {
    backend: Backend,
    stop: Arc<AtomicBool>,
    flusher: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Flushed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend =
            Backend::open(Storage::File(dir.path().join("db")), backend::Options::default()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, handle) = (Arc::clone(&stop), backend.clone());
        let flusher = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                handle.wait_for_work(Duration::from_millis(100));
                handle.flush().unwrap();
            }
        });
        Flushed { backend, stop, flusher: Some(flusher), _dir: dir }
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.flusher.take().unwrap().join().unwrap();
    }
}

/// The time that this thread has spent on a processor: what others do on the machine does not count.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

fn report(what: &str, count: u64, took: Duration) {
    println!("{what:45} {:7.0} ns", took.as_nanos() as f64 / count as f64);
}

fn mvcc_alone(entries: u64) {
    let flushed = Flushed::new();
    let (_store, mut writer, _) = mvcc::Store::open(flushed.backend.clone()).unwrap();
    let puts: Vec<_> = (0..entries).map(|i| put(i, 0).put.unwrap()).collect();
    let started = busy();
    for (i, put) in puts.into_iter().enumerate() {
        let mut txn = writer.begin();
        txn.put(put.key, put.value, 0);
        std::hint::black_box(txn.commit());
        if i % BATCH == BATCH - 1 {
            flushed.backend.seal(Seal { index: i as u64, term: 1, ..Seal::default() });
        }
    }
    report("mvcc alone: put, 256 B, new keys", entries, busy() - started);
}

fn run(what: &str, entries: u64, request: impl Fn(u64) -> InternalRaftRequest) {
    let flushed = Flushed::new();
    let (mut machine, shared): (Machine, Shared) =
        Machine::open(flushed.backend.clone(), Options::default()).unwrap();
    for id in 1..=100 {
        let lease_grant = Some(LeaseGrantRequest { id, ttl: 600 });
        let request = InternalRaftRequest { lease_grant, ..InternalRaftRequest::default() };
        let entry = entry(&machine, encode(0, request));
        machine.apply(&entry, Duration::ZERO).unwrap();
    }
    shared.lessor.lock().promote(Duration::ZERO, Duration::ZERO);
    let first = machine.applied().0.0 + 1;
    let log: Vec<Entry> = (0..entries)
        .map(|i| Entry {
            term: Term(1),
            index: Index(first + i),
            kind: EntryKind::Normal,
            data: encode(i, request(i)),
        })
        .collect();
    let started = busy();
    for batch in log.chunks(BATCH) {
        for entry in batch {
            let applied = machine.apply(entry, Duration::from_secs(1)).unwrap();
            assert!(std::hint::black_box(applied).outcome.is_ok());
        }
        machine.seal();
    }
    report(what, entries, busy() - started);
}

fn entry(machine: &Machine, data: Arc<[u8]>) -> Entry {
    let (index, _) = machine.applied();
    Entry { term: Term(1), index: index.next(), kind: EntryKind::Normal, data }
}

fn renewals() {
    for leases in [1_000, 1_000_000] {
        let mut lessor = Lessor::new(Config::default());
        let epoch = lessor.promote(Duration::ZERO, Duration::ZERO);
        for id in 1..=leases {
            lessor.grant(LeaseId(id), 600, Duration::ZERO).unwrap();
        }
        let rounds = 2_000_000;
        let started = busy();
        for i in 0..rounds {
            let id = LeaseId(1 + (i * 7_919) % leases);
            std::hint::black_box(lessor.renew(epoch, id, Duration::from_nanos(i as u64)).unwrap());
        }
        report(&format!("renewal, {leases} leases"), rounds as u64, busy() - started);
    }
}

/// The command's keys and values as slices of the entry, against copies of each.
fn decoding(entries: u64) {
    let data: Arc<[u8]> = encode(1, put(1, 0));
    let started = busy();
    for _ in 0..entries {
        let bytes = Bytes::from_owner(Arc::clone(&data));
        std::hint::black_box(InternalRaftRequest::decode(bytes).unwrap());
    }
    report("decoding a put, slices", entries, busy() - started);
    let started = busy();
    for _ in 0..entries {
        std::hint::black_box(InternalRaftRequest::decode(data.as_ref()).unwrap());
    }
    report("decoding a put, copies", entries, busy() - started);
}
