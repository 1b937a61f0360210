//! Real etcd as the other member of a cluster of two: it must take our streams and open its own, be
//! elected by our vote, replicate to us, and send and take databases. Its log, its votes and its wire
//! format are the judge of ours.
//!
//! Needs `CAIRN_ETCD_BIN_DIR`; without it nothing is tested, and that is said.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use common::{PATIENCE, message, until};
use http::HeaderValue;
use node::{Effect, Input, Node};
use peer::{Events, Measured, Peers, Receipt, Settings, client};
use raft::{
    Body, ConfState, Config, Context, Entry, HardState, Index, Message, NodeId, Restored, Snapshot,
    SnapshotMeta, Term,
};
use sha1::{Digest as _, Sha1};

const TOKEN: &str = "cairn-peer-test";

/// What the follower is told by its peer.
enum Told {
    Messages(Vec<Message>),
    Snapshot(PathBuf),
    Sent(bool),
    RoundTrip,
}

struct Ears(Sender<Told>);

impl Ears {
    fn tell(&self, told: Told) {
        // The test may have ended.
        let _ = self.0.send(told);
    }
}

impl Events for Ears {
    fn receive(&self, messages: &mut Vec<Message>) {
        self.tell(Told::Messages(std::mem::take(messages)));
    }
    fn receive_snapshot(&self, _: Message, file: PathBuf, receipt: Receipt) {
        self.tell(Told::Snapshot(file));
        receipt.taken();
    }
    fn is_removed(&self, _: u64) -> bool {
        false
    }
    fn unreachable(&self, _: u64) {}
    fn gone(&self, _: u64) {}
    fn snapshot_sent(&self, _: u64, arrived: bool) {
        self.tell(Told::Sent(arrived));
    }
    fn removed_here(&self) {
        panic!("nobody was removed");
    }
    fn measured(&self, _: u64, what: Measured) {
        if let Measured::RoundTrip(_) = what {
            self.tell(Told::RoundTrip);
        }
    }
}

/// The least that is a follower: its disk is always in time, its machine a list.
struct Follower {
    node: Node,
    peers: Peers,
    told: Receiver<Told>,
    applied: Vec<Entry>,
    snapshots: Vec<PathBuf>,
    sent: Vec<bool>,
    round_trips: usize,
    names: Vec<&'static str>,
}

impl Follower {
    /// A member of `voters` that has what etcd's bootstrap puts into a log of two, and has been in
    /// `term`. It never campaigns.
    fn node(id: u64, voters: [u64; 2], term: Term) -> Node {
        let conf_state = ConfState { voters: voters.map(NodeId).to_vec(), ..ConfState::default() };
        let restored = Restored {
            hard_state: HardState { term, vote: None, commit: Index(2) },
            snapshot: SnapshotMeta { conf_state, index: Index(2), term: Term(1) },
            entries: Vec::new(),
            applied: Index(2),
        };
        let config = Config { election_ticks: 1_000_000, ..Config::new(NodeId(id), 1) };
        Node::new(config, restored).unwrap()
    }

    /// Follows until something is so.
    fn run(&mut self, what: &str, is_so: impl Fn(&Follower) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "in vain: {what}; heard {:?}", self.names);
            match self.told.recv_timeout(Duration::from_millis(100)) {
                Ok(Told::Messages(messages)) => {
                    for message in messages {
                        if !self.names.contains(&message.body.name()) {
                            self.names.push(message.body.name());
                        }
                        self.handle(Input::Receive(message));
                    }
                }
                Ok(Told::Snapshot(file)) => self.snapshots.push(file),
                Ok(Told::Sent(arrived)) => self.sent.push(arrived),
                Ok(Told::RoundTrip) => self.round_trips += 1,
                Err(_) => self.handle(Input::Tick),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut effects = Vec::new();
            self.node.handle(input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Persist(persist) => inputs.push(Input::Persisted(persist.id)),
                    Effect::Send(messages) => self.peers.send(messages),
                    Effect::Apply(entries) => {
                        inputs.extend(entries.last().map(|last| Input::Applied(last.index)));
                        self.applied.extend(entries);
                    }
                    _ => {}
                }
            }
        }
    }

    fn has_applied(&self, text: &str) -> bool {
        self.applied.iter().any(|entry| entry.data.windows(text.len()).any(|bytes| bytes == text.as_bytes()))
    }
}

/// etcd's process; ended when dropped.
struct Etcd {
    process: Child,
    client_url: String,
    log: PathBuf,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("etcd's last words:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// A port that was free a moment ago.
fn free_url() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

struct Cluster {
    dir: PathBuf,
    etcd_url: String,
    our_url: String,
}

impl Cluster {
    fn start_etcd(&self, binary: &Path, client_url: &str) -> Etcd {
        let log = self.dir.join("etcd.log");
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let process = Command::new(binary)
            .args(["--name", "it", "--initial-cluster-token", TOKEN, "--snapshot-count", "10"])
            .args(["--initial-cluster", &format!("it={},us={}", self.etcd_url, self.our_url)])
            .args(["--listen-peer-urls", &self.etcd_url, "--initial-advertise-peer-urls", &self.etcd_url])
            .args(["--listen-client-urls", client_url, "--advertise-client-urls", client_url])
            .arg("--data-dir")
            .arg(self.dir.join("etcd"))
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .unwrap();
        Etcd { process, client_url: client_url.to_owned(), log }
    }

    /// The id that etcd gives a member.
    fn member_id(url: &str) -> u64 {
        first_eight(&[url.as_bytes(), TOKEN.as_bytes()].concat())
    }

    fn id(&self) -> u64 {
        let mut ids = [Cluster::member_id(&self.etcd_url), Cluster::member_id(&self.our_url)];
        ids.sort_unstable();
        first_eight(&ids.map(u64::to_be_bytes).concat())
    }
}

fn first_eight(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(Sha1::digest(bytes)[..8].try_into().unwrap())
}

/// Puts a value by way of etcd's JSON gateway, from a thread of its own.
fn put(url: &str, value: &str) -> std::thread::JoinHandle<()> {
    // `a2V5` is "key".
    let body = format!("{{\"key\":\"a2V5\",\"value\":\"{}\"}}", base64(value.as_bytes()));
    let url = url.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let kind = HeaderValue::from_static("application/json");
        let tls = tls::Client::default();
        let asked = client::post(&tls, &url, "/v3/kv/put", kind, body.into(), PATIENCE);
        let answer = runtime.block_on(asked).unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.body());
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |three: &[u8]| {
        let number = three.iter().fold(0u32, |number, &byte| number << 8 | u32::from(byte));
        let number = number << (8 * (3 - three.len()));
        (0..4)
            .map(move |at| {
                if at <= three.len() { DIGITS[(number >> (18 - 6 * at)) as usize & 63] as char } else { '=' }
            })
            .collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

#[test]
fn etcd_takes_us_for_one_of_its_own() {
    let Some(bin) = std::env::var_os("CAIRN_ETCD_BIN_DIR") else {
        eprintln!("SKIPPED: real etcd as a peer; CAIRN_ETCD_BIN_DIR does not name its binaries");
        return;
    };
    let etcd_binary = Path::new(&bin).join("etcd");
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let our_url = format!("http://{}", listener.local_addr().unwrap());
    let cluster = Cluster { dir: dir.path().to_owned(), etcd_url: free_url(), our_url };
    let (it, us) = (Cluster::member_id(&cluster.etcd_url), Cluster::member_id(&cluster.our_url));
    let client_url = free_url();
    let etcd = cluster.start_etcd(&etcd_binary, &client_url);

    let (sender, told) = mpsc::channel();
    let snapshots = dir.path().join("our-snapshots");
    let urls = vec![cluster.our_url.clone()];
    let settings = Settings::new(us, cluster.id(), urls, snapshots.clone(), Duration::from_secs(1));
    let peers = Peers::start(settings, Arc::new(Ears(sender))).unwrap();
    peers.add(it, std::slice::from_ref(&cluster.etcd_url));

    // Nobody listens to us yet, so messages go one by one.
    until("etcd's streams", || peers.active_since(it).is_some());
    let nothing = Body::HeartbeatResponse { context: Context::from([]) };
    peers.send(vec![message(us, it, 1, nothing)]);
    until("an answer to a post", || peers.status()[0].sent_bytes > 0);

    let (other, mut questions) = tokio::sync::mpsc::channel::<peer::Other>(16);
    std::thread::spawn(move || {
        while let Some((request, answer)) = questions.blocking_recv() {
            let text = match request.uri().path() {
                "/version" => "{\"etcdserver\":\"3.5.1\",\"etcdcluster\":\"3.5.0\"}",
                _ => "[]",
            };
            let _ = answer.send(http::Response::new(text.into()));
        }
    });
    peers.serve(listener, other);
    let voters = [it, us];
    let mut follower = Follower {
        node: Follower::node(us, voters, Term(1)),
        peers: peers.clone(),
        told,
        applied: Vec::new(),
        snapshots: Vec::new(),
        sent: Vec::new(),
        round_trips: 0,
        names: Vec::new(),
    };

    // It asks us for our vote, gets it, and leads.
    follower.run("a leader", |follower| follower.node.leader() == Some(NodeId(it)));
    assert!(["MsgPreVote", "MsgVote", "MsgApp"].iter().all(|name| follower.names.contains(name)));
    follower.run("its listening", |follower| follower.peers.status()[0].listening == 2);

    // It commits what we acknowledge, and we get what was put.
    let value = |number: usize| format!("value-{number}-{}", "x".repeat(number * 100));
    let puts: Vec<_> = (0..30).map(|number| put(&etcd.client_url, &value(number))).collect();
    follower.run("all values", |follower| (0..30).all(|number| follower.has_applied(&value(number))));
    let large = "y".repeat(1_000_000);
    let last = put(&etcd.client_url, &large);
    follower.run("a large value", |follower| follower.has_applied(&large));
    follower.run("answers", |_| last.is_finished() && puts.iter().all(|put| put.is_finished()));
    puts.into_iter().chain([last]).for_each(|put| put.join().unwrap());
    assert!(follower.names.contains(&"MsgHeartbeat"), "{:?}", follower.names);

    // A database from us: of a term that is over, so that it is taken and then let lie.
    let database = dir.path().join("ours.db");
    let data: Vec<u8> = (0..5_000_000u32).map(|n| (n * 7) as u8).collect();
    fs::write(&database, &data).unwrap();
    let conf_state = ConfState { voters: voters.map(NodeId).to_vec(), ..ConfState::default() };
    let meta = SnapshotMeta { conf_state, index: Index(3), term: Term(1) };
    let snapshot = Body::Snapshot(Snapshot { meta, data: Arc::from([]) });
    peers.send_snapshot(message(us, it, 1, snapshot), database);
    follower.run("its verdict", |follower| !follower.sent.is_empty());
    assert_eq!(follower.sent, [true]);
    let arrived = dir.path().join("etcd/member/snap/0000000000000003.snap.db");
    assert!(fs::read(arrived).unwrap() == data);
    follower.run("a round trip", |follower| follower.round_trips > 0);

    // It starts again, while we have forgotten everything after the bootstrap: its log begins behind
    // that, so we get a database.
    drop(etcd);
    until("the end of etcd", || peers.active_since(it).is_none());
    let term = follower.node.hard_state().term;
    follower.node = Follower::node(us, voters, term);
    let etcd = cluster.start_etcd(&etcd_binary, &client_url);
    follower.run("a database", |follower| !follower.snapshots.is_empty());
    let file = follower.snapshots.remove(0);
    assert_eq!(file.parent(), Some(snapshots.as_path()));
    let head = fs::read(&file).unwrap();
    assert!(head.len() >= 4096 && head[16..20] == [0xed, 0xda, 0x0c, 0xed], "bbolt's magic number");
    assert!(follower.node.leader() == Some(NodeId(it)));
    let status = &peers.status()[0];
    assert_eq!((status.snapshots_received, status.received_failures), (1, 0), "{status:?}");
    drop(etcd);
}
