//! The commands of the golden scripts, run against a log on a disk in memory.
//!
//! ```text
//! create segment=600   found ...   append 1@1=a 1@2=b state=1/7/0      (term@index=data, term/vote/commit)
//! sync   prepare   restart    snapshot 1@2    release 2    files    dump
//! lose SEGMENT SECTOR         zeros over one sector, as if it had never been written
//! flip SEGMENT BYTE BIT       cut SEGMENT LENGTH        delete SEGMENT
//! open 2                      opens behind entry 2
//! install 1@2 1/7/0           a snapshot of another member, with this hard state
//! read 2 5 1000               beside the writer: what follows entry 2 up to 5, in so many bytes
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DIR, create, entry, marker, open, state};
use crate::disk::Disk;
use crate::memory::MemoryDisk;
use crate::record::{self, Kind};
use crate::segment::{Reader, SegmentName, Step};
use crate::{Options, Wal, WalError};
use raft::{Entry, HardState, Index};

pub(super) struct Script {
    disk: Arc<MemoryDisk>,
    wal: Option<Wal>,
    segment_bytes: u64,
}

impl Script {
    pub(super) fn new() -> Script {
        Script { disk: Arc::default(), wal: None, segment_bytes: 64 << 10 }
    }

    /// Runs one line and returns what it prints.
    pub(super) fn run(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap();
        let args: Vec<&str> = words.collect();
        let result = match command {
            "create" => {
                for arg in &args {
                    self.segment_bytes = arg.strip_prefix("segment=").unwrap().parse().unwrap();
                }
                self.wal = Some(create(&self.disk, self.segment_bytes));
                return String::new();
            }
            "found" => {
                let (hard_state, entries) = parse(&args);
                let (disk, dir) = (self.disk.clone(), Path::new(DIR));
                let options = Options { segment_bytes: self.segment_bytes };
                Wal::found(disk, dir, b"metadata", options, hard_state.as_ref(), &entries)
                    .map(|wal| self.wal = Some(wal))
            }
            "append" => self.append(&args),
            "snapshot" => {
                let (term, index) = pair(args[0], '@');
                self.wal().append_snapshot(&marker(term, index))
            }
            "install" => {
                let (term, index) = pair(args[0], '@');
                let (hard_state, _) = parse(&[&format!("state={}", args[1])]);
                self.wal().append_install(&marker(term, index), &hard_state.unwrap())
            }
            "read" => return self.read(&args),
            "sync" => self.wal().sync(),
            "prepare" => self.wal().prepare(),
            "release" => self.wal().release_to(Index(args[0].parse().unwrap())),
            "restart" => {
                self.wal = None;
                Ok(())
            }
            "open" => return self.open(args[0].parse().unwrap()),
            "files" => return self.files(),
            "dump" => return self.dump(),
            "lose" | "flip" | "cut" | "delete" => return self.harm(command, &args),
            other => panic!("no such command: {other}"),
        };
        result.map_or_else(|e| format!("error: {e}\n"), |()| String::new())
    }

    fn wal(&mut self) -> &mut Wal {
        self.wal.as_mut().expect("a log is open")
    }

    fn append(&mut self, args: &[&str]) -> Result<(), WalError> {
        let (hard_state, entries) = parse(args);
        self.wal().append(hard_state.as_ref(), &entries)
    }

    fn open(&mut self, from: u64) -> String {
        self.wal = None;
        let (wal, recovered) = match open(&self.disk, self.segment_bytes, from) {
            Ok(opened) => opened,
            // The advice at the end is the same for all of them.
            Err(e) => return format!("error: {}\n", e.to_string().split(". Nothing was").next().unwrap()),
        };
        self.wal = Some(wal);
        let mut out = String::new();
        let hs = recovered.hard_state;
        let vote = hs.vote.map_or(0, |id| id.0);
        writeln!(out, "state={}/{vote}/{} snapshot={}", hs.term, hs.commit, recovered.snapshot.index)
            .unwrap();
        if let Some(repair) = recovered.repaired {
            let file = repair.file.file_name().unwrap().to_str().unwrap().to_owned();
            writeln!(out, "cut {file} at {}: {}", repair.offset, repair.reason).unwrap();
        }
        if let Some(meta) = recovered.install {
            writeln!(out, "to be installed: {}@{}", meta.term, meta.index).unwrap();
        }
        write!(out, "after {}:", recovered.begins_after).unwrap();
        for e in &recovered.entries {
            write!(out, " {}@{}={}", e.term, e.index, shorten(&e.data)).unwrap();
        }
        out + "\n"
    }

    fn read(&mut self, args: &[&str]) -> String {
        let number = |at: usize| args[at].parse::<u64>().unwrap();
        let bytes = args.get(2).map_or(usize::MAX, |_| number(2) as usize);
        let reader = self.wal().reader();
        match reader.read(Index(number(0)), Index(number(1)), bytes) {
            Err(e) => format!("error: {}\n", e.to_string().split(". Nothing was").next().unwrap()),
            Ok(None) => "it is not there\n".into(),
            Ok(Some((term, entries))) => {
                let entries = entries.iter().map(|e| format!(" {}@{}={}", e.term, e.index, shorten(&e.data)));
                format!("after {}@{}:{}\n", term, args[0], entries.collect::<String>())
            }
        }
    }

    fn files(&self) -> String {
        let mut out = String::new();
        for (path, data) in self.disk.image() {
            let used = data.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1).next_multiple_of(8);
            let name = path.file_name().unwrap().to_str().unwrap();
            writeln!(out, "{name} {used} of {}", data.len()).unwrap();
        }
        out
    }

    fn dump(&self) -> String {
        let mut out = String::new();
        for path in self.disk.image().into_keys() {
            let Some(name) = SegmentName::parse(path.file_name().unwrap().to_str().unwrap()) else {
                continue;
            };
            writeln!(out, "{}", name.file_name()).unwrap();
            let file = self.disk.open(&path).unwrap();
            let mut reader = Reader::new(&*file, &path, None).unwrap();
            while let Step::Record { header, at } = reader.step().unwrap() {
                let text = describe(header.kind, reader.data(), header.crc, name.seq, at);
                writeln!(out, "{at:6} {:08x} {text}", header.crc).unwrap();
            }
        }
        out
    }

    fn harm(&mut self, how: &str, args: &[&str]) -> String {
        self.wal = None;
        let mut image = self.disk.image();
        let number = |i: usize| args[i].parse::<usize>().unwrap();
        let path = segment_path(image.keys(), number(0) as u64);
        let data = image.get_mut(&path).unwrap();
        match how {
            "lose" => {
                let from = number(1) * 512;
                let to = data.len().min(from + 512);
                data[from..to].fill(0);
            }
            "flip" => data[number(1)] ^= 1 << number(2),
            "cut" => data.truncate(number(1)),
            _ => {
                image.remove(&path);
            }
        }
        self.disk = MemoryDisk::from_image(&image);
        String::new()
    }
}

fn segment_path<'a>(mut paths: impl Iterator<Item = &'a PathBuf>, seq: u64) -> PathBuf {
    let name = |path: &Path| SegmentName::parse(path.file_name()?.to_str()?);
    paths.find(|path| path.starts_with(DIR) && name(path).is_some_and(|n| n.seq == seq)).unwrap().clone()
}

fn parse(args: &[&str]) -> (Option<HardState>, Vec<Entry>) {
    let mut entries = Vec::new();
    let mut hard_state = None;
    for arg in args {
        let (name, value) = arg.split_once('=').unwrap();
        if name == "state" {
            let mut numbers = value.split('/').map(|n| n.parse().unwrap());
            let mut next = || numbers.next().unwrap();
            hard_state = Some(state(next(), next(), next()));
        } else {
            let (term, index) = pair(name, '@');
            entries.push(entry(term, index, &expand(value)));
        }
    }
    (hard_state, entries)
}

fn pair(text: &str, at: char) -> (u64, u64) {
    let (a, b) = text.split_once(at).unwrap();
    (a.parse().unwrap(), b.parse().unwrap())
}

/// `abc` stands for itself, `x*700` for 700 of them.
fn expand(text: &str) -> Vec<u8> {
    match text.split_once('*') {
        Some((what, times)) => what.repeat(times.parse().unwrap()).into_bytes(),
        None => text.as_bytes().to_vec(),
    }
}

fn shorten(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data).into_owned();
    if text.len() > 20 { format!("{}*{}", &text[..1], text.len()) } else { text }
}

fn describe(kind: Kind, data: &[u8], crc: u32, seq: u64, at: u64) -> String {
    match kind {
        Kind::Metadata => format!("metadata {}", String::from_utf8_lossy(data)),
        Kind::Entry => {
            let e = record::decode_entry(data).unwrap();
            format!("entry {}@{}={}", e.term, e.index, shorten(&e.data))
        }
        Kind::State => {
            let s = record::decode_state(data).unwrap();
            format!("state {}/{}/{}", s.term, s.vote.map_or(0, |id| id.0), s.commit)
        }
        Kind::Snapshot => {
            let m = record::decode_snapshot(data).unwrap();
            format!("snapshot {}@{}", m.term, m.index)
        }
        Kind::Crc if data == record::mark_proof(crc, seq, at) => "mark".into(),
        Kind::Crc => "crc".into(),
    }
}
