//! What a round of replication costs between two members on this machine: an append there, an
//! acknowledgement back. `cargo run --release -p peer --example bench`
//!
//! Each line: appends under way at a time, entries in each, rounds a second, and the processor time
//! that one round takes on both sides together.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use peer::{Events, Peers, Receipt, Settings};
use raft::{Body, Entry, EntryKind, Index, Message, NodeId, Term};
use tokio::sync::mpsc;

const LEADER: u64 = 1;
const FOLLOWER: u64 = 2;
const RUN: Duration = Duration::from_secs(3);

/// Answers appends with acknowledgements, and acknowledgements with appends.
#[derive(Default)]
struct Echo {
    peers: OnceLock<Peers>,
    entries: AtomicU64,
    next: AtomicU64,
    rounds: AtomicU64,
}

impl Echo {
    fn append(&self) -> Message {
        let count = self.entries.load(Ordering::Relaxed);
        let prev = self.next.fetch_add(count, Ordering::Relaxed);
        let data: Arc<[u8]> = Arc::from([7; 256]);
        let entry = |index| Entry {
            term: Term(2),
            index: Index(index),
            kind: EntryKind::Normal,
            data: Arc::clone(&data),
        };
        let entries = (prev + 1..=prev + count).map(entry).collect();
        let body = Body::Append { prev_index: Index(prev), prev_term: Term(2), entries, commit: Index(prev) };
        Message { to: NodeId(FOLLOWER), from: NodeId(LEADER), term: Term(2), body }
    }
}

impl Events for Echo {
    fn receive(&self, messages: &mut Vec<Message>) {
        let mut answers = Vec::new();
        for message in messages.drain(..) {
            match message.body {
                Body::Append { prev_index, entries, .. } => {
                    let index = Index(prev_index.0 + entries.len() as u64);
                    let body = Body::AppendResponse { index, reject: None };
                    let (to, from) = (message.from, message.to);
                    answers.push(Message { to, from, term: Term(2), body });
                }
                _ => {
                    self.rounds.fetch_add(1, Ordering::Relaxed);
                    if self.entries.load(Ordering::Relaxed) > 0 {
                        answers.push(self.append());
                    }
                }
            }
        }
        self.peers.get().unwrap().send(answers);
    }
    fn receive_snapshot(&self, _: Message, _: PathBuf, _: Receipt) {}
    fn is_removed(&self, _: u64) -> bool {
        false
    }
    fn unreachable(&self, _: u64) {}
    fn gone(&self, _: u64) {}
    fn snapshot_sent(&self, _: u64, _: bool) {}
    fn removed_here(&self) {}
}

fn member(id: u64) -> (Arc<Echo>, Peers, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dir = std::env::temp_dir().join(format!("cairn-peer-bench-{}-{id}", std::process::id()));
    let settings = Settings::new(id, 7, vec![url.clone()], dir, Duration::from_secs(1));
    let echo = Arc::new(Echo::default());
    let peers = Peers::start(settings, Arc::clone(&echo) as Arc<dyn Events>).unwrap();
    echo.peers.set(peers.clone()).ok().unwrap();
    peers.serve(listener, mpsc::channel(1).0);
    (echo, peers, url)
}

/// Processor time of this process so far.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let own: u64 = stat.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let all = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    let all: u64 = all.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum();
    Duration::from_nanos(all.max(own))
}

fn main() {
    let (leader, leader_peers, leader_url) = member(LEADER);
    let (_follower, follower_peers, follower_url) = member(FOLLOWER);
    leader_peers.add(FOLLOWER, &[follower_url]);
    follower_peers.add(LEADER, &[leader_url]);
    let attached = |peers: &Peers| peers.status()[0].listening == 2;
    while !attached(&leader_peers) || !attached(&follower_peers) {
        thread::sleep(Duration::from_millis(10));
    }
    println!("under way  entries   rounds/s  µs of processor a round");
    for (under_way, entries) in [(1, 1), (1, 50), (1, 500), (4, 1), (16, 1), (64, 1), (64, 10)] {
        leader.entries.store(entries, Ordering::Relaxed);
        let (before, used, start) = (leader.rounds.load(Ordering::Relaxed), processor(), Instant::now());
        for _ in 0..under_way {
            leader_peers.send(vec![leader.append()]);
        }
        thread::sleep(RUN);
        let rounds = (leader.rounds.load(Ordering::Relaxed) - before) as f64;
        let cost = (processor() - used).as_secs_f64() * 1e6 / rounds;
        println!("{under_way:9}  {entries:7}  {:9.0}  {cost:8.2}", rounds / start.elapsed().as_secs_f64());
        leader.entries.store(0, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(200));
    }
    leader_peers.stop();
    follower_peers.stop();
}
