//! Database files made of any bytes: what fuzz targets call, and the tests that repeat what these have found.
//!
//! Of random bytes none have a meta page with a good checksum. So one way in puts two of them, and page ids,
//! into whatever it is given.

use std::io::Cursor;

use crate::page::{HEADER, Header, META_PAGE, Meta, NO_FREE_LIST};
use crate::{Reader, Writer, digest};

/// Reads all of a file that `input` makes: its first byte says by which of the two ways.
///
/// # Panics
/// If what is read breaks a promise of [`Reader`].
pub fn database(input: &[u8]) {
    match input.split_first() {
        Some((way, rest)) if way % 2 == 0 => file(rest),
        Some((_, rest)) => pages(rest),
        None => {}
    }
}

/// A file that consists of `bytes`.
fn file(bytes: &[u8]) {
    let _ = digest::verify(&mut Cursor::new(bytes));
    check(bytes);
}

/// A file whose pages have 1 KiB each and consist of `bytes`, but for two meta pages in front that fit them, and
/// for each page its own number where its id stands. The first byte says which page is the root.
fn pages(bytes: &[u8]) {
    const PAGE: usize = 1024;
    let Some((&root, bytes)) = bytes.split_first() else { return };
    let mut file = vec![0; 2 * PAGE];
    file.extend_from_slice(bytes);
    file.resize(file.len().next_multiple_of(PAGE), 0);
    for (id, page) in file.chunks_mut(PAGE).enumerate() {
        page[..8].copy_from_slice(&(id as u64).to_le_bytes());
    }
    let pages = (file.len() / PAGE) as u64;
    for id in 0..2 {
        let header = Header { id, flags: META_PAGE, count: 0, overflow: 0 };
        let root = u64::from(root) % pages;
        let meta = Meta { page_size: PAGE as u32, root, free_list: NO_FREE_LIST, pages, transaction: id };
        let at = id as usize * PAGE;
        file[at..at + HEADER].copy_from_slice(&header.encode());
        let meta = meta.encode();
        file[at + HEADER..at + HEADER + meta.len()].copy_from_slice(&meta);
    }
    check(&file);
}

/// A good file gives pairs in order, no more bytes than it has, and a copy that gives the same.
fn check(bytes: &[u8]) {
    let Some(found) = all(bytes) else { return };
    let size: usize =
        found.iter().flat_map(|(_, pairs)| pairs).map(|(key, value)| key.len() + value.len()).sum();
    assert!(size <= bytes.len(), "{size} bytes out of {}", bytes.len());
    let mut copy = Writer::create(Cursor::new(Vec::new())).expect("memory can be written");
    for (bucket, pairs) in &found {
        assert!(pairs.is_sorted_by(|one, other| one.0 < other.0), "out of order");
        copy.bucket(bucket).expect("what was read can be written");
        for (key, value) in pairs {
            copy.put(bucket, key, value).expect("what was read can be written");
        }
    }
    let copy = copy.finish().expect("memory can be written").into_inner();
    assert_eq!(all(&copy), Some(found));
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Every bucket with its pairs, if all of the file can be read.
fn all(bytes: &[u8]) -> Option<Vec<(Vec<u8>, Pairs)>> {
    let mut reader = Reader::open(Cursor::new(bytes)).ok()?;
    let names: Vec<Vec<u8>> = reader.buckets().map(<[u8]>::to_vec).collect();
    let mut found = Vec::new();
    for name in names {
        let mut pairs = Pairs::new();
        let mut left = reader.pairs(&name).ok()?;
        while let Some((key, value)) = left.next().ok()? {
            pairs.push((key.to_vec(), value.to_vec()));
        }
        found.push((name, pairs));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// What the fuzzer has found worth keeping, see tests/fuzz.
    #[test]
    fn files_of_the_corpus_are_read_or_refused() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/bolt");
        let files = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path());
        assert!(files.map(|file| super::database(&std::fs::read(file).unwrap())).count() > 0);
    }
}
