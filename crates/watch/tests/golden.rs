//! Transcripts of what a client sees. Each file under `golden/` is one claim: blocks of commands, a line of
//! dashes, and everything that the commands printed. `UPDATE_GOLDEN=1` rewrites what they print.
//!
//! | command                   | what it does                                                            |
//! | ------------------------- | ----------------------------------------------------------------------- |
//! | `put k v`, `delete k`     | one transaction, published at once                                      |
//! | `txn put k v; delete k`   | several changes in one revision                                         |
//! | `batch put k v; put k v`  | several revisions in one batch                                          |
//! | `quiet put k v`           | a transaction that the hub is not told of yet                           |
//! | `publish`, `skip`         | tell it; or only that something was lost up to now                      |
//! | `newest`, `all`           | tell it of the last revision alone; of all of them, known or not        |
//! | `compact n`               | compact the store                                                       |
//! | `hub name=value …`        | start over with these bounds                                            |
//! | `open s`, `close s`       | a stream                                                                |
//! | `create s range options`  | a watcher: `k`, `k..l` or `k..`; `start=n id=n prev_kv noput nodelete notify fragment` |
//! | `cancel s id`, `progress s`, `refuse s reason` | requests on a stream                               |
//! | `pull s`, `next s`        | everything there is to send; or one step                                |
//! | `tick seconds`, `counts`, `woken` | the clock; metrics; streams with news                           |
//! | `break on`, `break off`   | whether reads of history fail                                           |
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::WatchResponse;
use api::key_range::KeyRange;
use api::mvccpb::KeyValue;
use bytes::Bytes;
use common::{Change, Memory};
use watch::{Hub, Options, StreamId, WatchRequest};

struct World {
    store: Memory,
    hub: Hub,
    streams: BTreeMap<String, StreamId>,
}

impl World {
    fn new(options: Options) -> World {
        World { store: Memory::default(), hub: Hub::with_options(1, options), streams: BTreeMap::new() }
    }

    fn run(&mut self, line: &str, out: &mut String) {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let current = self.store.revision;
        let stream = |world: &World| world.streams[words[0]];
        match command {
            "put" | "delete" => {
                self.store.commit(&changes(line));
                self.publish();
            }
            "txn" => {
                self.store.commit(&changes(rest));
                self.publish();
            }
            "batch" | "quiet" => {
                for part in rest.split(';') {
                    self.store.commit(&changes(part));
                }
                if command == "batch" {
                    self.publish();
                }
            }
            "publish" => self.publish(),
            "skip" => self.hub.skip_to(current),
            "newest" => self.hub.publish(&Arc::new(self.store.batch(current, current))),
            "all" => self.hub.publish(&Arc::new(self.store.batch(2, current))),
            "compact" => self.store.compact(words[0].parse().unwrap()),
            "hub" => *self = World::new(options(&words)),
            "open" => {
                let id = self.hub.open_stream();
                self.streams.insert(words[0].into(), id);
            }
            "close" => self.hub.close_stream(stream(self)),
            "create" => self.hub.create(stream(self), request(&words[1..]), current),
            "cancel" => self.hub.cancel(stream(self), words[1].parse().unwrap(), current),
            "progress" => self.hub.request_progress(stream(self), current),
            "refuse" => self.hub.refuse(stream(self), &words[1..].join(" "), current),
            "tick" => self.hub.tick(Duration::from_secs(words[0].parse().unwrap())),
            "break" => self.store.broken.set(words[0] == "on"),
            "next" => match self.hub.next(stream(self), &self.store) {
                Ok(Some(frame)) => writeln!(out, "{}", show(&frame.to_message())).unwrap(),
                Ok(None) if self.hub.has_more(stream(self)) => writeln!(out, "nothing yet").unwrap(),
                Ok(None) => writeln!(out, "nothing").unwrap(),
                Err(error) => writeln!(out, "error: {error}").unwrap(),
            },
            "pull" => {
                let stream = stream(self);
                let before = out.len();
                while self.hub.has_more(stream) {
                    if let Some(frame) = self.hub.next(stream, &self.store).unwrap() {
                        assert_eq!(frame.encoded_len(), frame.to_bytes().len());
                        writeln!(out, "{}", show(&frame.to_message())).unwrap();
                    }
                }
                if out.len() == before {
                    writeln!(out, "nothing").unwrap();
                }
            }
            "counts" => {
                let c = self.hub.counts();
                let pending = c.pending_events;
                let (held, sent) = (c.pending_bytes > 0, c.sent_events);
                let (all, slow) = (c.watchers, c.slow_watchers);
                let streams = c.streams;
                writeln!(
                    out,
                    "streams={streams} watchers={all} slow={slow} pending={pending} held={held} sent={sent}"
                )
                .unwrap();
            }
            "woken" => {
                let mut woken = Vec::new();
                self.hub.take_woken(&mut woken);
                let name = |id| self.streams.iter().find(|(_, known)| **known == id).unwrap().0.as_str();
                let names: Vec<&str> = woken.into_iter().map(name).collect();
                writeln!(out, "woken: {}", names.join(" ")).unwrap();
            }
            _ => panic!("no such command: {line}"),
        }
    }

    fn publish(&mut self) {
        let batch = self.store.batch(self.hub.revision() + 1, self.store.revision);
        self.hub.publish(&Arc::new(batch));
    }
}

fn changes(text: &str) -> Vec<Change> {
    let change = |part: &str| match part.split_whitespace().collect::<Vec<_>>()[..] {
        ["put", key, value] => match value.split_once('*') {
            Some((one, times)) => Change::Put(key.into(), one.repeat(times.parse().unwrap())),
            None => Change::Put(key.into(), value.into()),
        },
        ["delete", key] => Change::Delete(key.into()),
        _ => panic!("no such change: {part}"),
    };
    text.split(';').map(change).collect()
}

fn options(words: &[&str]) -> Options {
    let mut options = Options::default();
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        let number: usize = value.parse().unwrap();
        match name {
            "stream_bytes" => options.stream_bytes = number,
            "stream_entries" => options.stream_entries = number,
            "hub_bytes" => options.hub_bytes = number,
            "spared_bytes" => options.spared_bytes = number,
            "response_bytes" => options.response_bytes = number,
            "response_events" => options.response_events = number,
            "fragment_bytes" => options.fragment_bytes = number,
            "frames_per_step" => options.frames_per_step = number,
            "step_rows" => options.step_rows = number,
            _ => panic!("no such bound: {word}"),
        }
    }
    options
}

fn request(words: &[&str]) -> WatchRequest {
    let key = |text: &str| Bytes::from(text.to_string());
    let range = match words[0].split_once("..") {
        None => KeyRange::Key(key(words[0])),
        Some((start, "")) => KeyRange::From(key(start)),
        Some((start, end)) => KeyRange::range(key(start), key(end)),
    };
    let mut request = WatchRequest::new(range);
    for word in &words[1..] {
        match word.split_once('=').unwrap_or((word, "")) {
            ("start", revision) => request.start_revision = revision.parse().unwrap(),
            ("id", id) => request.watch_id = id.parse().unwrap(),
            ("prev_kv", _) => request.prev_kv = true,
            ("noput", _) => request.filters.no_put = true,
            ("nodelete", _) => request.filters.no_delete = true,
            ("notify", _) => request.progress_notify = true,
            ("fragment", _) => request.fragment = true,
            _ => panic!("no such option: {word}"),
        }
    }
    request
}

fn show(response: &WatchResponse) -> String {
    let mut kind = Vec::new();
    if response.created {
        kind.push("created");
    }
    if response.canceled {
        kind.push("canceled");
    }
    if !response.events.is_empty() {
        kind.push("events");
    }
    if kind.is_empty() {
        kind.push("progress");
    }
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let mut out = format!("{} id={} revision={revision}", kind.join(" "), response.watch_id);
    if response.compact_revision != 0 {
        write!(out, " compact_revision={}", response.compact_revision).unwrap();
    }
    if !response.cancel_reason.is_empty() {
        write!(out, " reason=\"{}\"", response.cancel_reason).unwrap();
    }
    if response.fragment {
        write!(out, " fragment").unwrap();
    }
    for event in &response.events {
        let kv = event.kv.as_ref().unwrap();
        let kind = if event.r#type == 1 { "delete" } else { "put" };
        write!(out, " | {kind} {}", pair(kv)).unwrap();
        if let Some(prev) = &event.prev_kv {
            write!(out, " was {}", pair(prev)).unwrap();
        }
    }
    out
}

fn pair(kv: &KeyValue) -> String {
    let text = |bytes: &Bytes| match bytes.len() {
        0..=12 => String::from_utf8_lossy(bytes).into_owned(),
        len => format!("({len} bytes)"),
    };
    match kv.version {
        0 => format!("{}@{}", text(&kv.key), kv.mod_revision),
        version => format!("{}={}@{}v{version}", text(&kv.key), text(&kv.value), kv.mod_revision),
    }
}

fn replay(script: &str) -> String {
    let mut world = World::new(Options::default());
    let mut out = String::new();
    for (at, block) in script.split("\n\n").enumerate() {
        let commands = block.split_once("\n---").map_or(block, |(commands, _)| commands).trim_matches('\n');
        if at > 0 {
            out.push('\n');
        }
        writeln!(out, "{commands}").unwrap();
        let mut printed = String::new();
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            world.run(line, &mut printed);
        }
        if !printed.is_empty() {
            write!(out, "---\n{printed}").unwrap();
        }
    }
    out
}

#[test]
fn the_transcripts_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the transcripts are gone: {files:?}");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        let replayed = replay(&script);
        if update {
            std::fs::write(&file, replayed).unwrap();
        } else if replayed != script {
            println!("==== {}\n{replayed}", file.display());
            wrong.push(file);
        }
    }
    assert!(wrong.is_empty(), "these read differently now (shown above): {wrong:?}");
}
