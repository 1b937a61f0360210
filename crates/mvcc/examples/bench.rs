//! What single calls cost: `cargo run --release -p mvcc --example bench [keys]`.
//!
//! The store lies in memory but for the rows that were flushed; a thread flushes as the server's does. Times of
//! single calls are times on the processor, so that a busy machine shows them nearly as an idle one does.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backend::{Backend, Options, Seal, Storage};
use bytes::Bytes;
use mvcc::{KeyRange, ProgressState, RangeQuery, Store, Writer};

const VALUE: usize = 256;

fn main() {
    match &std::env::args().skip(1).collect::<Vec<_>>()[..] {
        [what, path] if what == "index" => return memory(Path::new(path)),
        [what, path] if what == "large" => return large(Path::new(path)),
        _ => {}
    }
    let keys: u64 = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    println!("{} cores", std::thread::available_parallelism().unwrap());
    small();
    fill(&dir.path().join("random"), keys, |i| format!("/registry/pods/{:016x}", mix(i)));
    fill(&dir.path().join("ascending"), keys, |i| format!("/registry/events/{i:016}"));
    reopen(&dir.path().join("random"));
    alone("large", &dir.path().join("large"));
    compaction(&dir.path().join("compaction"));
}

/// Scatters numbers over 64 bits, each to another.
fn mix(i: u64) -> u64 {
    let x = (i ^ (i >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn open(path: &Path) -> (Backend, Store, Writer) {
    let backend = Backend::open(Storage::File(path.to_path_buf()), Options::default()).unwrap();
    let (store, writer, _) = Store::open(backend.clone()).unwrap();
    (backend, store, writer)
}

fn put(writer: &mut Writer, key: Bytes, value: &Bytes) {
    let mut txn = writer.begin();
    txn.put(key, value.clone(), 0);
    black_box(txn.commit());
}

fn seal(backend: &Backend, index: u64) {
    backend.seal(Seal { index, term: 1, ..Seal::default() });
}

/// Time that the calling thread spent on a processor.
#[derive(Clone, Copy)]
struct Cpu(u64);

impl Cpu {
    fn now() -> Cpu {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Cpu(stat.split_whitespace().next().unwrap().parse().unwrap())
    }

    fn elapsed(self) -> Duration {
        Duration::from_nanos(Cpu::now().0 - self.0)
    }
}

fn report(what: &str, n: u64, elapsed: Duration) {
    println!("{what:<50} {:>10.0} ns", elapsed.as_secs_f64() * 1e9 / n as f64);
}

/// Single calls on ten thousand keys, nothing flushed.
fn small() {
    let dir = tempfile::tempdir().unwrap();
    let (_, store, mut writer) = open(&dir.path().join("small"));
    let value = Bytes::from(vec![7; VALUE]);
    let keys: Vec<Bytes> = (0..10_000).map(|i| format!("/registry/pods/{:016x}", mix(i)).into()).collect();
    for key in &keys {
        put(&mut writer, key.clone(), &value);
    }
    let n = 200_000;
    let start = Cpu::now();
    for i in 0..n {
        put(&mut writer, keys[mix(i) as usize % keys.len()].clone(), &value);
    }
    report("put, 10,000 keys", n, start.elapsed());
    let start = Cpu::now();
    for i in 0..n {
        let query = RangeQuery::new(KeyRange::Key(keys[mix(i) as usize % keys.len()].clone()));
        black_box(store.range(&query).unwrap());
    }
    report("get, 10,000 keys, from the buffer", n, start.elapsed());
    let start = Cpu::now();
    for i in 0..1_000 {
        let mut query = RangeQuery::new(KeyRange::From(keys[mix(i) as usize % keys.len()].clone()));
        query.limit = 500;
        black_box(store.range(&query).unwrap());
    }
    report("page of 500 keys, from the buffer", 1_000, start.elapsed());
}

/// New keys up to a number, with flushes beside.
fn fill(path: &Path, keys: u64, name: impl Fn(u64) -> String) {
    let (backend, store, mut writer) = open(path);
    let value = Bytes::from(vec![7; VALUE]);
    let stop = Arc::new(AtomicBool::new(false));
    let flusher = {
        let (backend, stop) = (backend.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if backend.wait_for_work(Duration::from_millis(10)) {
                    backend.flush().unwrap();
                }
            }
        })
    };
    let mut spent = Duration::ZERO;
    let mut last_tenth = Duration::ZERO;
    let names: Vec<Bytes> = (0..keys).map(|i| Bytes::from(name(i))).collect();
    for (i, batch) in names.chunks(100).enumerate() {
        let start = Cpu::now();
        for key in batch {
            put(&mut writer, key.clone(), &value);
        }
        spent += start.elapsed();
        if i as u64 * 100 >= keys / 10 * 9 {
            last_tenth += start.elapsed();
        }
        seal(&backend, i as u64 + 1);
        backend.wait_for_room().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    flusher.join().unwrap();
    backend.flush_all().unwrap();
    let kind = path.file_name().unwrap().to_string_lossy().into_owned();
    report(&format!("put, new {kind} keys up to {keys}, mean"), keys, spent);
    report(&format!("put, new {kind} keys up to {keys}, last tenth"), keys / 10, last_tenth);
    let n = 200_000;
    let start = Cpu::now();
    for i in 0..n {
        put(&mut writer, names[mix(i) as usize % names.len()].clone(), &value);
    }
    report(&format!("put, among {keys} {kind} keys"), n, start.elapsed());
    let start = Cpu::now();
    for i in 0..n {
        let query = RangeQuery::new(KeyRange::Key(names[mix(i + 1) as usize % names.len()].clone()));
        black_box(store.range(&query).unwrap());
    }
    report("get, mostly from redb", n, start.elapsed());
    let start = Cpu::now();
    for i in 0..400 {
        let mut query = RangeQuery::new(KeyRange::From(names[mix(i + 2) as usize % names.len()].clone()));
        query.limit = 500;
        black_box(store.range(&query).unwrap());
    }
    report("page of 500 keys, mostly from redb", 400, start.elapsed());
    let start = Cpu::now();
    for i in 0..n {
        let mut query = RangeQuery::new(KeyRange::From(names[mix(i) as usize % names.len()].clone()));
        query.count_only = true;
        black_box(store.range(&query).unwrap());
    }
    report("count of a random tail", n, start.elapsed());
}

fn reopen(path: &Path) {
    let backend = Backend::open(Storage::File(path.to_path_buf()), Options::default()).unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        let (_, _, opened) = Store::open(backend.clone()).unwrap();
        println!("open, {} rows, {} keys: {:?}", opened.rows, opened.keys, start.elapsed());
    }
    drop(backend);
    alone("index", path);
}

/// Measures memory in a process of its own, where none lies about that was freed before.
fn alone(what: &str, path: &Path) {
    let me = std::env::current_exe().unwrap();
    std::process::Command::new(me).arg(what).arg(path).status().unwrap();
}

/// What the index takes, beside the keys themselves.
fn memory(path: &Path) {
    // A small cache, for it is not the index that is to be weighed.
    let options = Options { cache_bytes: 1 << 20, ..Options::default() };
    let backend = Backend::open(Storage::File(path.to_path_buf()), options).unwrap();
    let before = resident();
    let (store, _writer, opened) = Store::open(backend).unwrap();
    let after = resident();
    let mut query = RangeQuery::new(KeyRange::all());
    query.limit = 1;
    let key = store.range(&query).unwrap().records[0].key().len();
    println!(
        "after open {} MiB, {} bytes a key (of {key}), with what the sorting left free",
        after >> 20,
        (after - before) / opened.keys
    );
}

/// One answer of 50,000 records of 1 KiB.
fn large(path: &Path) {
    let (backend, store, mut writer) = open(path);
    let value = Bytes::from(vec![7; 1024]);
    for i in 0..50_000 {
        put(&mut writer, Bytes::from(format!("/registry/pods/{i:08}")), &value);
    }
    seal(&backend, 1);
    backend.flush_all().unwrap();
    drop((store, writer, backend));
    let (_backend, store, _writer) = open(path);
    // Page by page once, so that the page cache of redb is full before.
    let mut next = KeyRange::all();
    loop {
        let page = store.range(&RangeQuery { limit: 100, ..RangeQuery::new(next) }).unwrap();
        let Some(last) = page.records.last().filter(|_| page.more) else { break };
        next = KeyRange::From(last.key());
    }
    let before = resident();
    let start = Instant::now();
    let all = store.range(&RangeQuery::new(KeyRange::all())).unwrap();
    let elapsed = start.elapsed();
    println!("50,000 records of 1 KiB: {elapsed:?}, {} MiB", (resident() - before) >> 20);
    drop(all);
}

/// Puts while 500,000 versions are forgotten.
fn compaction(path: &Path) {
    let (backend, store, mut writer) = open(path);
    let value = Bytes::from(vec![7; VALUE]);
    let keys: Vec<Bytes> = (0..100_000).map(|i| format!("/registry/pods/{:016x}", mix(i)).into()).collect();
    for i in 0..600_000 {
        put(&mut writer, keys[i % keys.len()].clone(), &value);
    }
    seal(&backend, 1);
    backend.flush_all().unwrap();
    let mut timed_put = |i: usize| {
        let start = Instant::now();
        put(&mut writer, keys[mix(i as u64) as usize % keys.len()].clone(), &value);
        start.elapsed()
    };
    quantiles("put before compaction", (0..200_000).map(&mut timed_put).collect());
    let marker = writer.schedule_compaction(store.current_revision()).unwrap();
    backend.seal(Seal { index: 2, term: 1, ops: vec![marker], ..Seal::default() });
    let sweeper = std::thread::spawn(move || {
        let start = Instant::now();
        let mut rows = 0;
        loop {
            let progress = store.compact_step(1000).unwrap();
            rows += progress.rows;
            if progress.state == ProgressState::Done {
                return (rows, start.elapsed());
            }
        }
    });
    let mut each = Vec::new();
    while !sweeper.is_finished() {
        let start = Instant::now();
        put(&mut writer, keys[mix(each.len() as u64) as usize % keys.len()].clone(), &value);
        each.push(start.elapsed());
    }
    quantiles("put during compaction", each);
    let (rows, elapsed) = sweeper.join().unwrap();
    println!("{rows} rows compacted in {elapsed:?}");
}

fn quantiles(what: &str, mut each: Vec<Duration>) {
    each.sort();
    let at = |part: f64| each[((each.len() - 1) as f64 * part) as usize];
    let n = each.len();
    println!("{what} ({n}): p50 {:?} p99 {:?} p99.9 {:?} max {:?}", at(0.5), at(0.99), at(0.999), at(1.0));
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
