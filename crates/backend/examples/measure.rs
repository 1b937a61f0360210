//! How fast the store is on this machine: flush, get, scan, split scan, removal, defragmentation,
//! opening. `cargo run --release -p backend --example measure [rows] [bytes]`

#![allow(clippy::disallowed_methods)]

use backend::{Backend, Options, Row, RowKey, Seal, Storage, row_key};
use bytes::Bytes;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BATCH: u64 = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let rows: u64 = numbers.next().unwrap_or(1_000_000);
    let size = numbers.next().unwrap_or(300) as usize;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("db");
    let open = || Backend::open(Storage::File(path.clone()), Options::default());
    let at = Instant::now();
    let store = open()?;
    println!("create: {:?}, {} kB", at.elapsed(), store.size() / 1000);

    let mut inserting = Duration::ZERO;
    let mut worst = Duration::ZERO;
    let begun = Instant::now();
    for main in 1..=rows {
        let record = Bytes::from(vec![main as u8; size]);
        let at = Instant::now();
        store.insert_row(row_key(main as i64, 0), Row { tombstone: false, record });
        inserting += at.elapsed();
        if main % BATCH == 0 || main == rows {
            store.seal(Seal { index: main, term: 1, ..Seal::default() });
        }
        if store.buffered_bytes() >= Options::default().flush_bytes || main == rows {
            let at = Instant::now();
            while store.flush()?.more {}
            worst = worst.max(at.elapsed());
        }
    }
    let took = begun.elapsed();
    println!(
        "insert and flush {rows} rows of {size} B: {:.0} rows/s, slowest flush {worst:?}",
        rate(rows, took)
    );
    println!("insert_row alone: {} ns", inserting.as_nanos() / u128::from(rows));
    report("after loading", &store);

    let mut random = 88_172_645_463_325_252_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        row_key((random % rows + 1) as i64, 0)
    };
    let reads = 500_000;
    for _ in 0..reads {
        black_box(store.get(&next())?.ok_or("missing")?);
    }
    let at = Instant::now();
    for _ in 0..reads {
        black_box(store.get(&next())?.ok_or("missing")?);
    }
    println!("get: {} ns", at.elapsed().as_nanos() / reads);
    let view = store.view()?;
    let at = Instant::now();
    for _ in 0..reads {
        black_box(view.read(&next(), |_, record| record.len())?.ok_or("missing")?);
    }
    println!("view.read: {} ns", at.elapsed().as_nanos() / reads);

    let count = |range: std::ops::Range<RowKey>| {
        let mut seen = 0_usize;
        view.for_each_row(range.start, range.end, |_, _, record| {
            seen += usize::from(!black_box(record).is_empty());
            ControlFlow::Continue(())
        })
        .map(|()| seen)
    };
    let at = Instant::now();
    let seen = count(row_key(0, 0)..row_key(i64::MAX, 0))?;
    println!("scan: {:.0} rows/s ({seen} rows)", rate(seen as u64, at.elapsed()));
    let ranges = view.split(16)?;
    let (at, turn, total) = (Instant::now(), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(range) = ranges.get(turn.fetch_add(1, Ordering::Relaxed)) {
                    total.fetch_add(count(range.clone()).unwrap_or(0), Ordering::Relaxed);
                }
            });
        }
    });
    println!("scan on 2 threads: {:.0} rows/s", rate(total.load(Ordering::Relaxed) as u64, at.elapsed()));
    drop(view);

    // The file as a crash would leave it: copied while it is open.
    let crashed = directory.path().join("crashed");
    std::fs::copy(&path, &crashed)?;
    std::fs::File::open(&crashed)?.sync_all()?;
    let at = Instant::now();
    let after_crash = Backend::open(Storage::File(crashed.clone()), Options::default())?;
    println!("open after a crash: {:?}", at.elapsed());
    let at = Instant::now();
    drop(after_crash);
    println!("close: {:?}", at.elapsed());
    drop(store);
    let at = Instant::now();
    let store = open()?;
    println!("open: {:?}", at.elapsed());

    let at = Instant::now();
    let removed: Vec<RowKey> =
        (1..=rows).filter(|main| main % 10 != 0).map(|main| row_key(main as i64, 0)).collect();
    let count = removed.len() as u64;
    store.delete_rows(removed);
    let mut flushes = 0;
    let mut worst = Duration::ZERO;
    loop {
        let at = Instant::now();
        let flushed = store.flush()?;
        worst = worst.max(at.elapsed());
        flushes += 1;
        if !flushed.more {
            break;
        }
    }
    println!(
        "remove 9 of 10: {:.0} rows/s in {flushes} flushes, slowest {worst:?}",
        rate(count, at.elapsed())
    );
    report("after removing", &store);
    let at = Instant::now();
    let done = store.reclaim()?;
    println!("reclaim: {done} in {:?}", at.elapsed());
    report("after reclaiming", &store);
    std::fs::copy(&path, &crashed)?;
    std::fs::File::open(&crashed)?.sync_all()?;
    let at = Instant::now();
    let after_crash = Backend::open(Storage::File(crashed), Options::default())?;
    println!("open after a crash: {:?}", at.elapsed());
    drop(after_crash);
    let at = Instant::now();
    let hash = store.hash_tables()?;
    println!("hash {hash:08x} in {:?}", at.elapsed());
    Ok(())
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn report(when: &str, store: &Backend) {
    println!("{when}: file {} MB, in use {} MB", store.size() / 1_000_000, store.size_in_use() / 1_000_000);
}
