//! Whatever is written comes back: against a plain map, with sizes from nothing to several MiB.
//! `SEED=7 cargo test -p bolt --test twin` runs one seed; `KEEP=directory` keeps the files, for bbolt's
//! own `check`.
#![allow(clippy::unwrap_used)]

use bolt::{MAX_KEY, PAGE, Reader, Writer, digest};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};

type Twin = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let start = self.next();
        let mut bytes = start.to_le_bytes().repeat(length / 8 + 1);
        bytes.truncate(length);
        bytes
    }

    /// Mostly short, sometimes nearly as long as `limit`, or about a page.
    fn length(&mut self, limit: usize) -> usize {
        let length = match self.below(10) {
            0 => 0,
            1..=5 => self.below(64),
            6 => PAGE - 100 + self.below(200),
            7 => self.below(PAGE / 2),
            8 => self.below(limit / 16),
            _ => limit - self.below(limit / 4),
        };
        length.min(limit)
    }
}

fn twin(chance: &mut Chance) -> Twin {
    let mut twin = Twin::new();
    let largest_key = [16, 300, 3000, MAX_KEY][chance.below(4)];
    let largest_value = [32, 300, 5000, 70_000, 4 << 20][chance.below(5)];
    // A bucket of about 100 kB or three of the largest pairs; many pairs where they are small.
    let most = (1 + 1_000_000 / (largest_key + largest_value)).clamp(4, 2000);
    for _ in 0..chance.below(6) {
        let length = 1 + chance.below(20);
        let bucket = twin.entry(chance.bytes(length)).or_default();
        for _ in 0..chance.below(most) {
            let (key, value) = (chance.length(largest_key).max(1), chance.length(largest_value));
            bucket.insert(chance.bytes(key), chance.bytes(value));
        }
    }
    twin
}

fn put_all<F: Write>(twin: &Twin, writer: &mut Writer<F>) {
    for (bucket, pairs) in twin {
        writer.bucket(bucket).unwrap();
        for (key, value) in pairs {
            writer.put(bucket, key, value).unwrap();
        }
    }
}

fn write(twin: &Twin) -> Vec<u8> {
    let mut writer = Writer::create(Cursor::new(Vec::new())).unwrap();
    put_all(twin, &mut writer);
    writer.finish().unwrap().into_inner()
}

/// The same to where one cannot go back.
fn stream(twin: &Twin) -> Vec<u8> {
    let mut writer = Writer::measure().unwrap();
    put_all(twin, &mut writer);
    let (_, layout) = writer.end().unwrap();
    let mut writer = Writer::stream(Vec::new(), &layout).unwrap();
    put_all(twin, &mut writer);
    let (file, written) = writer.end().unwrap();
    assert_eq!((written, layout.size()), (layout, file.len() as u64));
    file
}

fn read(file: &[u8]) -> Twin {
    let mut reader = Reader::open(Cursor::new(file)).unwrap();
    let names: Vec<Vec<u8>> = reader.buckets().map(<[u8]>::to_vec).collect();
    let mut twin = Twin::new();
    for name in names {
        let bucket = twin.entry(name.clone()).or_default();
        let mut pairs = reader.pairs(&name).unwrap();
        while let Some((key, value)) = pairs.next().unwrap() {
            assert!(bucket.last_key_value().is_none_or(|(last, _)| &last[..] < key));
            bucket.insert(key.to_vec(), value.to_vec());
        }
    }
    twin
}

#[test]
fn what_is_written_comes_back() {
    let only = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in only.map_or(0..200, |seed: u64| seed..seed + 1) {
        println!("SEED={seed}");
        let twin = twin(&mut Chance(seed));
        let mut file = write(&twin);
        assert_eq!(file.len() % PAGE, 0);
        assert!(read(&file) == twin);
        assert!(stream(&twin) == file);
        if let Some(directory) = std::env::var_os("KEEP") {
            std::fs::write(std::path::Path::new(&directory).join(format!("{seed}.db")), &file).unwrap();
        }
        if file.len() > 300_000 {
            continue;
        }
        let size = file.len();
        let mut with_digest = Cursor::new(std::mem::take(&mut file));
        digest::append(&mut with_digest).unwrap();
        assert_eq!(digest::verify(&mut with_digest).unwrap(), size as u64);
        let file = with_digest.into_inner();
        assert!(digest::is_present(file.len() as u64) && !digest::is_present(size as u64));
        assert_eq!(Reader::open(Cursor::new(&file)).unwrap().size(), size as u64);
        assert!(read(&file) == twin);
    }
}

#[test]
fn many_small_pairs() {
    let mut writer = Writer::create(Cursor::new(Vec::new())).unwrap();
    for n in 0..200_000u64 {
        writer.put(b"key", &n.to_be_bytes(), b"a value of some bytes").unwrap();
    }
    let file = writer.finish().unwrap().into_inner();
    let mut reader = Reader::open(Cursor::new(&file)).unwrap();
    let mut next = 0u64;
    let count = |key: &[u8], value: &[u8]| {
        assert_eq!((key, value), (&next.to_be_bytes()[..], &b"a value of some bytes"[..]));
        next += 1;
        Ok::<_, bolt::Error>(())
    };
    reader.for_each(b"key", count).unwrap();
    assert_eq!(next, 200_000);
}
