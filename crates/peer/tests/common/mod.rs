//! A member that writes down what its peers tell it, and a few messages to tell.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod raw;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use peer::{Events, Measured, Other, Peers, Receipt, Settings};
use raft::{Body, ConfState, Entry, EntryKind, Index, Message, NodeId, Snapshot, SnapshotMeta, Term};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// No wait of a test is longer; none that succeeds comes near.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const CLUSTER: u64 = 0xc1a5;

#[derive(Default)]
pub struct Seen {
    pub messages: Vec<Message>,
    /// How many calls brought them.
    pub batches: usize,
    pub snapshots: Vec<(Message, PathBuf)>,
    /// Whether it takes its time over what it has been sent.
    pub keeps_receipts: bool,
    pub receipts: Vec<Receipt>,
    pub removed: Vec<u64>,
    pub unreachable: Vec<u64>,
    pub gone: Vec<(u64, Instant)>,
    pub sent: Vec<(u64, bool)>,
    pub removed_here: usize,
    pub failed: Vec<String>,
    pub round_trips: Vec<u64>,
    /// Whether to panic at the next message.
    pub fragile: bool,
}

/// What a member has been told so far.
#[derive(Default)]
pub struct Record {
    seen: Mutex<Seen>,
    news: Condvar,
}

impl Record {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen());
        self.news.notify_all();
    }

    /// Waits until something is so.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        drop(self.once(what, is_so));
    }

    /// What has been told by then.
    pub fn once(&self, what: &str, is_so: impl Fn(&Seen) -> bool) -> MutexGuard<'_, Seen> {
        let (seen, late) = self.news.wait_timeout_while(self.seen(), PATIENCE, |seen| !is_so(seen)).unwrap();
        assert!(!late.timed_out(), "in vain: {what}");
        seen
    }
}

impl Events for Record {
    fn receive(&self, messages: &mut Vec<Message>) {
        if self.seen().fragile {
            panic!("a broken raft");
        }
        self.note(|seen| {
            seen.batches += 1;
            seen.messages.append(messages);
        });
    }
    fn receive_snapshot(&self, message: Message, file: PathBuf, receipt: Receipt) {
        self.note(|seen| {
            seen.snapshots.push((message, file));
            if seen.keeps_receipts {
                seen.receipts.push(receipt);
            } else {
                receipt.taken();
            }
        });
    }
    fn is_removed(&self, id: u64) -> bool {
        self.seen().removed.contains(&id)
    }
    fn unreachable(&self, id: u64) {
        self.note(|seen| seen.unreachable.push(id));
    }
    fn gone(&self, id: u64) {
        self.note(|seen| seen.gone.push((id, Instant::now())));
    }
    fn snapshot_sent(&self, to: u64, arrived: bool) {
        self.note(|seen| seen.sent.push((to, arrived)));
    }
    fn removed_here(&self) {
        self.note(|seen| seen.removed_here += 1);
    }
    fn failed(&self, cause: &str) {
        self.note(|seen| seen.failed.push(cause.to_owned()));
    }
    fn measured(&self, id: u64, what: Measured) {
        if let Measured::RoundTrip(_) = what {
            self.note(|seen| seen.round_trips.push(id));
        }
    }
}

/// A member as its peers see it.
pub struct Member {
    pub id: u64,
    pub url: String,
    pub peers: Peers,
    pub record: Arc<Record>,
    pub dir: TempDir,
    pub other: mpsc::Receiver<Other>,
}

impl Member {
    pub fn start(id: u64) -> Member {
        Member::start_on(id, TcpListener::bind("127.0.0.1:0").unwrap(), |_| {})
    }

    pub fn start_on(id: u64, listener: TcpListener, change: impl FnOnce(&mut Settings)) -> Member {
        let url = format!("http://{}", listener.local_addr().unwrap());
        Member::start_behind(id, url, listener, change)
    }

    pub fn start_behind(
        id: u64,
        url: String,
        listener: impl Into<tls::Listener>,
        change: impl FnOnce(&mut Settings),
    ) -> Member {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = dir.path().join("snap");
        let mut settings = Settings::new(id, CLUSTER, vec![url.clone()], snapshots, Duration::from_secs(1));
        change(&mut settings);
        let record = Arc::new(Record::default());
        let peers = Peers::start(settings, Arc::clone(&record) as Arc<dyn Events>).unwrap();
        let (sender, other) = mpsc::channel(16);
        peers.serve(listener, sender);
        Member { id, url, peers, record, dir, other }
    }

    pub fn knows(&self, other: &Member) {
        self.peers.add(other.id, std::slice::from_ref(&other.url));
    }

    pub fn snapshot_dir(&self) -> PathBuf {
        self.dir.path().join("snap")
    }

    /// Files that lie where databases arrive.
    pub fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.snapshot_dir()).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Waits until what `other` sends comes by streams.
    pub fn hears(&self, other: &Member) {
        until("streams", || {
            other.peers.status().iter().any(|status| status.id == self.id && status.listening == 2)
        });
    }
}

/// Waits for what nobody tells.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Two members that know each other.
pub fn pair() -> (Member, Member) {
    let (one, two) = (Member::start(1), Member::start(2));
    one.knows(&two);
    two.knows(&one);
    (one, two)
}

pub fn message(from: u64, to: u64, term: u64, body: Body) -> Message {
    Message { to: NodeId(to), from: NodeId(from), term: Term(term), body }
}

pub fn heartbeat(from: u64, to: u64, commit: u64) -> Message {
    message(from, to, 1, Body::Heartbeat { commit: Index(commit), context: Arc::from([]) })
}

pub fn entry(term: u64, index: u64, data: &[u8]) -> Entry {
    Entry { term: Term(term), index: Index(index), kind: EntryKind::Normal, data: data.into() }
}

/// An append of `count` entries after `prev`, all of `term`.
pub fn append(from: u64, to: u64, term: u64, prev: u64, count: u64, data: &[u8]) -> Message {
    let entries = (1..=count).map(|at| entry(term, prev + at, data)).collect();
    let (prev_index, prev_term) = (Index(prev), Term(if prev == 0 { 0 } else { term }));
    message(from, to, term, Body::Append { prev_index, prev_term, entries, commit: Index(prev) })
}

pub fn snapshot(from: u64, to: u64, index: u64) -> Message {
    let conf_state = ConfState { voters: vec![NodeId(1), NodeId(2)], ..ConfState::default() };
    let meta = SnapshotMeta { conf_state, index: Index(index), term: Term(1) };
    message(from, to, 1, Body::Snapshot(Snapshot { meta, data: b"meta".as_slice().into() }))
}
