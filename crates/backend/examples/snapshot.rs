//! What it takes to send a state and to take one in, and what writers feel of it meanwhile.
//! `cargo run --release -p backend --example snapshot [rows] [bytes]`

#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backend::{Backend, Options, Row, Seal, Storage, Target, row_key};
use bytes::Bytes;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let rows: u64 = numbers.next().unwrap_or(1_000_000);
    let size = numbers.next().unwrap_or(1_000) as usize;
    let dir = tempfile::tempdir()?;
    let open = |name: &str| Backend::open(Storage::File(dir.path().join(name)), Options::default());
    let (store, other) = (open("store")?, open("other")?);
    let mut index = 0;
    while index < rows {
        index = write(&store, index, size, 1_000);
        if store.buffered_bytes() >= Options::default().flush_bytes {
            while store.flush()?.more {}
        }
    }
    store.flush_all()?;
    println!(
        "{rows} rows of {size} B, {} MB in use, peak memory {} MB",
        mb(store.size_in_use()),
        peak_memory()
    );

    let path = dir.path().join("body");
    let quiet = while_writing(&store, &mut index, size, || {
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    println!("3 s of writes alone: slowest batch {quiet:?}");
    let started = Instant::now();
    let mut at = None;
    let slowest = while_writing(&store, &mut index, size, || {
        let export = store.export()?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        export.write_to(BufWriter::new(file))?;
        at = Some(export.consistent().clone());
        Ok(())
    })?;
    let at = at.ok_or("no export")?;
    println!(
        "export under writes: {:?}, {} MB, slowest batch {slowest:?}, peak memory {} MB",
        started.elapsed(),
        mb(path.metadata()?.len()),
        peak_memory()
    );
    let started = Instant::now();
    backend::inspect(BufReader::new(File::open(&path)?), &at, |_, _, _| ())?;
    println!("inspect: {:?}", started.elapsed());
    let started = Instant::now();
    let incoming = other.receive(BufReader::new(File::open(&path)?), at, Target::Beside)?;
    let received = started.elapsed();
    incoming.take_place()?.publish();
    println!("receive: {received:?}, in place after {:?}", started.elapsed() - received);
    println!("peak memory {} MB", peak_memory());
    Ok(())
}

/// Writes batches of ten rows at some 20,000 rows a second, flushed by another thread, for as long as
/// `work` takes; returns how long the slowest batch took.
fn while_writing(
    store: &Backend,
    index: &mut u64,
    size: usize,
    work: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let stop = AtomicBool::new(false);
    let begin = *index;
    std::thread::scope(|scope| {
        let flusher = scope.spawn(|| -> Result<(), backend::Error> {
            while !stop.load(Ordering::Relaxed) {
                if store.wait_for_work(Duration::from_millis(100)) {
                    store.flush()?;
                }
            }
            Ok(())
        });
        let writer = scope.spawn(|| {
            let (mut at, mut slowest) = (begin, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                at = write(store, at, size, 10);
                slowest = slowest.max(started.elapsed());
                std::thread::sleep(Duration::from_micros(500));
            }
            (at, slowest)
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let (reached, slowest) = writer.join().map_err(|_| "the writer panicked")?;
        flusher.join().map_err(|_| "the flusher panicked")??;
        *index = reached;
        done.map(|()| slowest)
    })
}

fn write(store: &Backend, index: u64, size: usize, count: u64) -> u64 {
    for main in index + 1..=index + count {
        let record = Bytes::from(vec![main as u8; size]);
        store.insert_row(row_key(main as i64, 0), Row { tombstone: false, record });
    }
    store.seal(Seal { index: index + count, term: 1, ..Seal::default() });
    index + count
}

fn mb(bytes: u64) -> u64 {
    bytes >> 20
}

/// The most memory that the process ever had, where the system tells.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) >> 10
}
