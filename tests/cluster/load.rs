//! Clients that work on a cluster while it is being broken, and the check of all they were told.
//!
//! Each client sends one request after the other, turning to the next member when one fails, and
//! writes down what it asked and what it was told. In the end the whole history is read back, and the
//! answers are held against it: every acknowledged write is there, at its revision, once; every read
//! saw what was there at its moment ([`sim::linearizability`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, EventType, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
    WatchOptions, WatchResponse,
};
use sim::linearizability::{self as lin, Body, Figures, History, Request, RequestId, Response};
use tests::support::Dice;
use tests::{Cluster, connect, same_data, until};
use tokio::task::JoinHandle;

const CLIENTS: u64 = 8;
/// Few, so that clients meet.
const KEYS: u64 = 6;
/// Of all keys of the load.
pub(crate) const PREFIX: &str = "load/";
/// After so long the outcome of a request is unknown.
const LIMIT: Duration = Duration::from_secs(2);
/// Steps of the search for an order; it needs a few for each request.
const STEPS: usize = 50_000_000;

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    begun: Instant,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    history: Mutex<History>,
    /// Revisions of acknowledged writes, and their keys.
    writes: Mutex<BTreeMap<i64, String>>,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn begin(&self, request: Request) -> RequestId {
        self.history.lock().expect("nobody panics with the history").begin(self.now(), request)
    }

    fn finish(&self, id: RequestId, response: Response) {
        let now = self.now();
        self.history.lock().expect("nobody panics with the history").finish(id, now, response);
    }
}

impl Load {
    /// Sets clients to work on some members.
    pub(crate) fn start(cluster: &Cluster, places: &[usize]) -> Self {
        Self::start_at(&cluster.endpoints(places))
    }

    /// Sets clients to work on the members at some endpoints.
    pub(crate) fn start_at(endpoints: &[String]) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            history: Mutex::new(History::default()),
            writes: Mutex::new(BTreeMap::new()),
        });
        let clients = (0..CLIENTS).map(|number| {
            let worker = Worker {
                number,
                turn: 0,
                dice: Dice(number + 1),
                known: BTreeMap::new(),
                shared: Arc::clone(&shared),
                endpoints: endpoints.to_vec(),
            };
            tokio::spawn(worker.run())
        });
        Self { clients: clients.collect(), shared }
    }

    /// How many writes were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged; how long that took.
    pub(crate) async fn progress(&self, more: u64) -> Result<Duration> {
        let (begun, goal) = (Instant::now(), self.acknowledged() + more);
        until("writes go on", async || (self.acknowledged() >= goal).then_some(())).await?;
        Ok(begun.elapsed())
    }

    /// Ends the load and checks everything that the clients were told against what is there, as the
    /// member at `place` tells it; then that all of `places` hold the same.
    pub(crate) async fn finish(self, cluster: &Cluster, places: &[usize]) -> Result<Figures> {
        self.finish_at(&cluster.endpoints(places)).await.with_context(|| cluster.last_words())
    }

    /// As [`Load::finish`], with the members at some endpoints.
    pub(crate) async fn finish_at(self, endpoints: &[String]) -> Result<Figures> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await?;
        }
        let end = until("a last write is acknowledged", async || last_write(endpoints).await.ok()).await?;
        let events = history(&endpoints[0], end).await?;

        let mut history = self.shared.history.lock().expect("nobody panics with the history").clone();
        let mut changes: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
        for event in &events {
            changes.entry(event.revision).or_default().insert(event.key.clone());
            if let Some(value) = &event.value {
                history.saw(event.key.as_bytes(), value, event.revision);
            }
        }
        for (revision, key) in &*self.shared.writes.lock().expect("nobody panics with the writes") {
            let there = changes.get(revision).is_some_and(|keys| keys.contains(key));
            ensure!(there, "the write of {key} that was acknowledged at revision {revision} is lost");
        }
        history.know_all(events.into_iter().map(|event| (event.revision, event.key.into_bytes())));
        let figures = history.check(STEPS).map_err(|violation| anyhow::anyhow!("{violation}"))?;
        same_data(endpoints).await?;
        println!("{figures:?}");
        Ok(figures)
    }
}

/// Writes something behind all of the load; its revision. A member that is just being sent a snapshot
/// may never learn what became of a write which that contains, so this may have to be tried again.
pub(crate) async fn last_write(endpoints: &[String]) -> Result<i64> {
    let mut client = connect(endpoints, LIMIT).await?;
    let written = client.put(format!("{PREFIX}~"), "the end", None).await?;
    Ok(written.header().context("a header")?.revision())
}

/// A change, as a watcher is told of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) revision: i64,
    key: String,
    /// None for a deletion.
    value: Option<Vec<u8>>,
}

/// The changes that a message tells of.
pub(crate) fn events_of(message: &WatchResponse) -> Result<Vec<Event>> {
    let event = |event: &etcd_client::Event| {
        let kv = event.kv().context("an event has a key")?;
        let value = (event.event_type() == EventType::Put).then(|| kv.value().to_vec());
        Ok(Event { revision: kv.mod_revision(), key: kv.key_str()?.to_owned(), value })
    };
    message.events().iter().map(event).collect()
}

/// Every change of the load's keys up to a revision.
pub(crate) async fn history(endpoint: &str, end: i64) -> Result<Vec<Event>> {
    let mut client = Client::connect([endpoint], None).await?;
    let options = WatchOptions::new().with_prefix().with_start_revision(1);
    let mut watch = client.watch(PREFIX, Some(options)).await?;
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| event.revision < end) {
        let message = tokio::time::timeout(tests::PATIENCE, watch.message()).await;
        let message = message.context("the history ends early")??.context("the watch goes on")?;
        ensure!(!message.canceled(), "the watch was cancelled: {}", message.cancel_reason());
        events.extend(events_of(&message)?);
    }
    Ok(events)
}

struct Worker {
    number: u64,
    turn: u64,
    dice: Dice,
    /// The modification revisions that this client has seen last.
    known: BTreeMap<String, i64>,
    shared: Arc<Shared>,
    endpoints: Vec<String>,
}

impl Worker {
    async fn run(mut self) {
        let mut at = self.number as usize;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let endpoint = self.endpoints[at % self.endpoints.len()].clone();
            at += 1;
            let Ok(mut client) = connect(&[endpoint], LIMIT).await else {
                // All members may be gone for a moment; this only keeps the processor free.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while !self.shared.stop.load(Ordering::Relaxed) {
                if self.step(&mut client).await.is_err() {
                    break;
                }
            }
        }
    }

    fn key(&mut self) -> String {
        format!("{PREFIX}{}", self.dice.below(KEYS))
    }

    fn value(&mut self) -> String {
        self.turn += 1;
        format!("{}-{}", self.number, self.turn)
    }

    /// One request; an error if its outcome is not known.
    async fn step(&mut self, client: &mut Client) -> Result<()> {
        let (key, value) = (self.key(), self.value());
        match self.dice.below(20) {
            0..=8 => self.put(client, key, value).await,
            9..=13 => self.get(client, key, None).await,
            14 => self.get(client, PREFIX.to_owned(), Some("load0".to_owned())).await,
            15 => self.delete(client, key).await,
            _ => {
                let other = self.key();
                self.swap(client, key, value, other).await
            }
        }
    }

    fn acknowledge(&self, revision: i64, key: &str) {
        self.shared.writes.lock().expect("nobody panics with the writes").insert(revision, key.to_owned());
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    async fn put(&mut self, client: &mut Client, key: String, value: String) -> Result<()> {
        let request = Request::Put { key: bytes(&key), value: bytes(&value), lease: 0 };
        let id = self.shared.begin(request);
        let answer = client.put(key.clone(), value, Some(PutOptions::new().with_prev_key())).await?;
        let revision = answer.header().context("a header")?.revision();
        let previous = Some(answer.prev_key().map(pair));
        self.shared.finish(id, Response { revision, body: Body::Put { previous } });
        self.acknowledge(revision, &key);
        self.known.insert(key, revision);
        Ok(())
    }

    async fn get(&mut self, client: &mut Client, key: String, end: Option<String>) -> Result<()> {
        let request = Request::Range { key: bytes(&key), end: end.as_deref().map(bytes) };
        let id = self.shared.begin(request);
        let options = end.map(|end| GetOptions::new().with_range(end));
        let answer = match client.get(key.clone(), options).await {
            Ok(answer) => answer,
            Err(error) => {
                self.shared.history.lock().expect("nobody panics with the history").fail(id);
                return Err(error.into());
            }
        };
        for kv in answer.kvs() {
            self.known.insert(kv.key_str()?.to_owned(), kv.mod_revision());
        }
        let revision = answer.header().context("a header")?.revision();
        let body = Body::Range(answer.kvs().iter().map(pair).collect());
        self.shared.finish(id, Response { revision, body });
        Ok(())
    }

    async fn delete(&mut self, client: &mut Client, key: String) -> Result<()> {
        let id = self.shared.begin(Request::Delete { key: bytes(&key), end: None });
        let answer = client.delete(key.clone(), Some(DeleteOptions::new().with_prev_key())).await?;
        let revision = answer.header().context("a header")?.revision();
        let previous = Some(answer.prev_kvs().iter().map(pair).collect());
        let body = Body::Delete { deleted: answer.deleted(), previous };
        self.shared.finish(id, Response { revision, body });
        if answer.deleted() > 0 {
            self.acknowledge(revision, &key);
        }
        self.known.insert(key, 0);
        Ok(())
    }

    /// Writes two keys if one of them is as this client has seen it last, and reads them if not.
    async fn swap(&mut self, client: &mut Client, key: String, value: String, other: String) -> Result<()> {
        let known = self.known.get(&key).copied().unwrap_or_default();
        let both = if key == other { vec![key.clone()] } else { vec![key.clone(), other] };
        let puts = both.iter().map(|key| {
            let value = format!("{value}/{key}");
            Request::Put { key: bytes(key), value: bytes(&value), lease: 0 }
        });
        let gets = both.iter().map(|key| Request::Range { key: bytes(key), end: None });
        let compare = lin::Compare {
            key: bytes(&key),
            target: lin::Target::ModRevision(known),
            order: lin::Order::Equal,
        };
        let id = self.shared.begin(Request::Txn {
            compare: vec![compare],
            success: puts.collect(),
            failure: gets.collect(),
        });
        let previous = || Some(PutOptions::new().with_prev_key());
        let puts = both.iter().map(|key| TxnOp::put(key.clone(), format!("{value}/{key}"), previous()));
        let txn = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, known)])
            .and_then(puts.collect::<Vec<_>>())
            .or_else(both.iter().map(|key| TxnOp::get(key.clone(), None)).collect::<Vec<_>>());
        let answer = client.txn(txn).await?;
        let revision = answer.header().context("a header")?.revision();
        let mut bodies = Vec::new();
        for (response, key) in answer.op_responses().into_iter().zip(&both) {
            bodies.push(match response {
                TxnOpResponse::Put(put) => {
                    self.acknowledge(revision, key);
                    self.known.insert(key.clone(), revision);
                    Body::Put { previous: Some(put.prev_key().map(pair)) }
                }
                TxnOpResponse::Get(get) => {
                    let found = get.kvs().first().map_or(0, |kv| kv.mod_revision());
                    self.known.insert(key.clone(), found);
                    Body::Range(get.kvs().iter().map(pair).collect())
                }
                _ => bail!("an answer to something else"),
            });
        }
        let body = Body::Txn { succeeded: answer.succeeded(), bodies };
        self.shared.finish(id, Response { revision, body });
        Ok(())
    }
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn pair(kv: &etcd_client::KeyValue) -> lin::KeyValue {
    lin::KeyValue {
        key: kv.key().to_vec(),
        value: kv.value().to_vec(),
        create_revision: kv.create_revision(),
        mod_revision: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}
