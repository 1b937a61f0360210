//! Logs made of any bytes: what fuzz targets call, and the tests that repeat what these have found.
//!
//! Most random bytes end at the first checksum. So one way in takes a script and writes records by it, of
//! any kind, content and order, with checksums and marks that hold, and only then does damage to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::{ConfState, Entry, EntryKind, HardState, Index, NodeId, SnapshotMeta, Term};

use crate::memory::MemoryDisk;
use crate::record::{Encoder, Kind, SENSELESS};
use crate::segment::SegmentName;
use crate::{Options, Recovered, Wal, WalError};

const DIR: &str = "/wal";

/// The size past which segments are cut that are written here, in bytes.
const SEGMENT: u64 = 4096;

/// Opens a log that `input` makes: its first byte says by which of the two ways.
///
/// # Panics
/// If what is read breaks a promise of [`Recovered`], or if the log cannot be gone on with.
pub fn log(input: &[u8]) {
    match input.split_first() {
        Some((way, rest)) if way % 2 == 0 => segment(rest),
        Some((_, rest)) => records(rest),
        None => {}
    }
}

/// A log of one segment that consists of `input` but for its first byte, which says how many of the first entries
/// the database has.
fn segment(input: &[u8]) {
    let Some((&from, bytes)) = input.split_first() else { return };
    let name = SegmentName { seq: 0, first: 0 };
    let files = BTreeMap::from([(name.path(Path::new(DIR)), bytes.to_vec())]);
    check(&files, u64::from(from));
}

/// A log of the records that `script` names, with good checksums, and then damaged as it says.
fn records(script: &[u8]) {
    let mut script = Script(script);
    // The database's own index is believed.
    let from = script.number() % (1 << 62);
    let damage = (script.byte(), script.byte());
    check(&written(&mut script, damage), from);
}

/// The files that a script makes.
fn written(script: &mut Script<'_>, (damage, place): (u8, u8)) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut encoder = Encoder::default();
    let mut files = BTreeMap::new();
    let mut name = SegmentName { seq: 0, first: 0 };
    let (mut term, mut index) = (1, 0_u64);
    head(&mut encoder);
    while !script.0.is_empty() {
        match script.byte() % 16 {
            // The next entry, of the same term or a later one; others more often than not are nonsense.
            0..=4 => {
                index = index.wrapping_add(1);
                encoder.entry(&entry(term, index, script.short()));
            }
            5 => term = script.number(),
            6 => {
                index = script.number();
                encoder.entry(&entry(term, index, script.short()));
            }
            7 => {
                let vote = Some(NodeId(script.number())).filter(|node| node.0 != 0);
                encoder.state(&HardState { term: Term(term), vote, commit: Index(script.number()) });
            }
            8 => {
                let voters = script.short().iter().map(|&id| NodeId(id.into())).collect();
                let conf_state = ConfState { voters, ..ConfState::default() };
                encoder.snapshot(&SnapshotMeta {
                    conf_state,
                    index: Index(script.number()),
                    term: Term(term),
                });
            }
            9..=11 => encoder.mark(name.seq, encoder.buf.len() as u64),
            12 => {
                files.insert(name.path(Path::new(DIR)), std::mem::take(&mut encoder.buf));
                name = SegmentName { seq: name.seq + 1, first: index.wrapping_add(script.byte().into()) };
                head(&mut encoder);
            }
            13 => encoder.record(Kind::Crc, None),
            other => {
                let kinds = [Kind::Metadata, Kind::Entry, Kind::State, Kind::Crc, Kind::Snapshot];
                let kind = kinds[script.byte() as usize % kinds.len()];
                encoder.record(kind, (other == 14).then(|| [script.short(), &[]]));
            }
        }
    }
    let mut last = std::mem::take(&mut encoder.buf);
    let at = last.len() * usize::from(place) / 256;
    match damage % 8 {
        0 => last.truncate(at),
        1 => {
            // A sector that never reached the disk.
            let from = at / 512 * 512;
            let to = last.len().min(from + 512);
            last[from..to].fill(0);
        }
        2 => {
            if let Some(byte) = last.get_mut(at) {
                *byte ^= 1 << (damage / 8 % 8);
            }
        }
        3 => last.extend_from_slice(&[place; 24]),
        4 => last.resize(last.len() + 8 * usize::from(place), 0),
        _ => {}
    }
    files.insert(name.path(Path::new(DIR)), last);
    files
}

fn head(encoder: &mut Encoder) {
    encoder.crc();
    encoder.metadata(b"metadata");
}

fn entry(term: u64, index: u64, data: &[u8]) -> Entry {
    Entry { term: Term(term), index: Index(index), kind: EntryKind::Normal, data: data.into() }
}

fn open(disk: &Arc<MemoryDisk>, from: u64) -> Result<(Wal, Recovered), WalError> {
    Wal::open_with(disk.clone(), Path::new(DIR), Index(from), Options { segment_bytes: SEGMENT })
}

/// Whatever the files hold: they are refused, or give a log that keeps every promise and can be gone on with.
fn check(files: &BTreeMap<PathBuf, Vec<u8>>, from: u64) {
    let disk = MemoryDisk::from_image(files);
    let Ok((wal, recovered)) = open(&disk, from) else { return };
    let Recovered { begins_after, hard_state, .. } = recovered;
    let (mut last, mut term) = (begins_after, Term(0));
    for entry in &recovered.entries {
        assert_eq!(entry.index, last.next(), "contiguous");
        assert!(entry.term >= term, "terms do not fall");
        (last, term) = (entry.index, entry.term);
    }
    assert!(hard_state.commit <= last, "{} committed of {last}", hard_state.commit);
    assert!(recovered.entries.is_empty() || hard_state.term >= term, "the term is that of the log, or later");
    if let Some(install) = &recovered.install {
        assert_eq!(install.index, begins_after);
    }

    // Reading beside the writer tells the same.
    if recovered.install.is_none()
        && let Some((_, read)) =
            wal.reader().read(begins_after, last, usize::MAX).expect("it was read before")
    {
        assert_eq!(read, recovered.entries);
    }
    drop(wal);

    // It is whole now, and says the same once more.
    let (mut wal, again) = open(&disk, from).expect("what was read once is read again");
    assert_eq!(again, Recovered { repaired: None, ..recovered.clone() });

    // And it goes on.
    let (index, term) = (last.0 + 1, hard_state.term.0 + 1);
    if index.max(term) >= SENSELESS {
        return;
    }
    let state = HardState { term: Term(term), vote: None, commit: hard_state.commit };
    let next = entry(term, index, b"next");
    let written = wal.append(Some(&state), std::slice::from_ref(&next)).and_then(|()| wal.sync());
    written.expect("the disk is a good one");
    drop(wal);
    let (_, after) = open(&disk, from).expect("what was written is read");
    assert_eq!(after.entries.last(), Some(&next));
    assert_eq!(after.hard_state, state);
}

/// Bytes, taken one after the other; zeros where there are no more.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let (&byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        byte
    }

    /// Small for the most part, else at an end of what there is.
    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..0xf0 => u64::from(small),
            power @ 0xf0..=0xfd => (1 << (power - 0xf0 + 30)) | u64::from(self.byte()),
            0xfe => u64::MAX / 2 + u64::from(self.byte() % 4),
            0xff => u64::MAX - u64::from(self.byte() % 4),
        }
    }

    /// Up to 255 bytes, their count before them; a count that is odd stands for sixteen times as many zeros.
    fn short(&mut self) -> &'a [u8] {
        const ZEROS: [u8; 16 * 255] = [0; 16 * 255];
        let length = usize::from(self.byte());
        if length % 2 == 1 {
            return &ZEROS[..16 * length];
        }
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// What the fuzzer has found worth keeping, see tests/fuzz.
    #[test]
    fn logs_of_the_corpus_are_read_or_refused() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/wal");
        let files = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path());
        assert!(files.map(|file| super::log(&std::fs::read(file).unwrap())).count() > 0);
    }
}
