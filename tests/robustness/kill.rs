//! `kill -9` in the middle of load, many times: what was acknowledged is there, nothing is done
//! twice, and revisions never go back.
//!
//! Each writer owns a part of the keys and some leases, and knows at every moment what they must
//! be: what was acknowledged, or, where the server died while a request was on its way, what that
//! request would have made of it. Every transaction carries a counter that it compares and raises,
//! so one that is lost, or done twice, fails the compare of the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, GetOptions, LeaseGrantOptions, PutOptions,
    Txn, TxnOp, WatchOptions,
};
use tests::Server;

const ROUNDS: u64 = 15;
const WRITERS: i64 = 8;

/// What a writer's part of the store holds: values with the lease that each key is attached to.
#[derive(Clone, Default, PartialEq, Debug)]
struct State {
    keys: BTreeMap<String, (String, i64)>,
    leases: BTreeSet<i64>,
    count: i64,
}

/// What the writers of a round share.
#[derive(Default)]
struct Round {
    done: AtomicU64,
    stop: AtomicBool,
    /// The highest revision that anything was acknowledged at, and that a compaction was.
    revision: AtomicI64,
    compacted: AtomicI64,
}

struct Writer {
    number: i64,
    state: State,
    /// What the request on its way makes of it.
    attempt: State,
}

impl Writer {
    fn key(&self, name: impl std::fmt::Display) -> String {
        format!("w{}/{name}", self.number)
    }

    fn counter(&self) -> String {
        self.key("counter")
    }

    /// Works until the server is gone or the round is over.
    async fn run(mut self, mut client: Client, round: Arc<Round>) -> Self {
        while !round.stop.load(Ordering::Relaxed) {
            let Ok(revision) = self.step(&mut client, &round).await else { break };
            round.revision.fetch_max(revision, Ordering::Relaxed);
            round.done.fetch_add(1, Ordering::Relaxed);
            self.state = self.attempt.clone();
        }
        self
    }

    /// One request, or one grant and one request.
    async fn step(&mut self, client: &mut Client, round: &Round) -> Result<i64> {
        self.attempt = self.state.clone();
        let turn = self.state.count;
        let some_lease = self.state.leases.iter().next().copied();
        match (turn % 7, some_lease) {
            (5, Some(id)) if turn % 3 == 0 => {
                self.attempt.leases.remove(&id);
                self.attempt.keys.retain(|_, (_, lease)| *lease != id);
                let revoked = client.lease_revoke(id).await?;
                // The counter stands still, so the next step must be another one.
                let revision = revoked.header().context("a header")?.revision();
                self.state = self.attempt.clone();
                self.count(client, Vec::new()).await.map(|counted| counted.max(revision))
            }
            (5, _) => {
                let id = (self.number + 1) * 1_000_000 + turn;
                // It is there already if the server died between the grant and what follows.
                if self.attempt.leases.insert(id) {
                    client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(id))).await?;
                    self.state = self.attempt.clone();
                }
                let key = self.key(format!("leased{}", turn % 5));
                self.attempt.keys.insert(key.clone(), (turn.to_string(), id));
                let put = TxnOp::put(key, turn.to_string(), Some(PutOptions::new().with_lease(id)));
                self.count(client, vec![put]).await
            }
            (6, _) => {
                if turn % 4 == 2 {
                    let to = round.revision.load(Ordering::Relaxed) - 20;
                    let physical = (turn % 8 == 2).then(|| CompactionOptions::new().with_physical());
                    match client.compact(to, physical).await {
                        Ok(_) => {
                            round.compacted.fetch_max(to, Ordering::Relaxed);
                        }
                        // Another writer's was further.
                        Err(error) if error.to_string().contains("has been compacted") => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                self.count(client, Vec::new()).await
            }
            (4, _) => {
                // A whole range goes, and one key of it comes again in the same revision.
                let prefix = self.key("k");
                self.attempt.keys.retain(|key, _| !key.starts_with(&prefix));
                let delete = TxnOp::delete(prefix, Some(DeleteOptions::new().with_prefix()));
                let again = self.key("r");
                self.attempt.keys.insert(again.clone(), (turn.to_string(), 0));
                self.count(client, vec![delete, TxnOp::put(again, turn.to_string(), None)]).await
            }
            (3, _) => {
                let key = self.key(format!("k{}", turn % 4));
                self.attempt.keys.remove(&key);
                self.count(client, vec![TxnOp::delete(key, None)]).await
            }
            (width, _) => {
                let mut operations = Vec::new();
                for offset in 0..=width {
                    let key = self.key(format!("k{}", (turn + offset) % 9));
                    self.attempt.keys.insert(key.clone(), (turn.to_string(), 0));
                    operations.push(TxnOp::put(key, turn.to_string(), None));
                }
                self.count(client, operations).await
            }
        }
    }

    /// Does `operations` and raises the counter, if it is what it must be.
    async fn count(&mut self, client: &mut Client, mut operations: Vec<TxnOp>) -> Result<i64> {
        let (before, key) = (self.state.count, self.counter());
        self.attempt.count = before + 1;
        operations.push(TxnOp::put(key.clone(), (before + 1).to_string(), None));
        let compare = if before == 0 {
            Compare::version(key.clone(), CompareOp::Equal, 0)
        } else {
            Compare::value(key.clone(), CompareOp::Equal, before.to_string())
        };
        let response = client.txn(Txn::new().when([compare]).and_then(operations)).await?;
        assert!(response.succeeded(), "{key} is not {before} any more: a write was lost or done twice");
        Ok(response.header().context("a header")?.revision())
    }

    /// Compares with what the server holds, and takes over what became of the last attempt.
    async fn check(&mut self, client: &mut Client, leases: &BTreeSet<i64>) -> Result<()> {
        let found = client.get(self.key(""), Some(GetOptions::new().with_prefix())).await?;
        let mut state = State::default();
        for kv in found.kvs() {
            if kv.key_str()? == self.counter() {
                state.count = kv.value_str()?.parse()?;
                assert_eq!(kv.version(), state.count, "every raise of {} counts once", self.counter());
            } else {
                state.keys.insert(kv.key_str()?.to_owned(), (kv.value_str()?.to_owned(), kv.lease()));
            }
        }
        let own = (self.number + 1) * 1_000_000;
        state.leases = leases.range(own..own + 1_000_000).copied().collect();
        assert!(
            state == self.state || state == self.attempt,
            "writer {}: {state:?} is neither what was acknowledged, {:?}, nor what was attempted, {:?}",
            self.number,
            self.state,
            self.attempt
        );
        self.attempt = state.clone();
        self.state = state;
        Ok(())
    }
}

/// What `HashKV` says of the current revision, and that revision.
async fn hash(client: &mut Client, revision: i64) -> Result<(u32, i64, i64)> {
    let answer = client.hash_kv(revision).await?;
    Ok((answer.hash(), answer.compact_version(), answer.hash_revision()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_done_twice() -> Result<()> {
    let directory = tempfile::tempdir()?;
    // Small numbers, so that snapshot records and segment releases happen often.
    let mut server = Server::start(directory.path(), &["--snapshot-count", "200"])?;
    let mut writers: Vec<Writer> = (0..WRITERS)
        .map(|number| Writer { number, state: State::default(), attempt: State::default() })
        .collect();
    let (mut last_revision, mut last_compacted, mut compared) = (0, 0, 0);
    for number in 0..ROUNDS {
        let round = Arc::new(Round::default());
        round.revision.store(last_revision, Ordering::Relaxed);
        round.compacted.store(last_compacted, Ordering::Relaxed);
        let mut running = Vec::new();
        for writer in writers.drain(..) {
            running.push(tokio::spawn(writer.run(server.client().await?, Arc::clone(&round))));
        }
        // Later rounds die later, so that the crash meets different moments of the flusher. Every
        // third dies at rest: then nothing at all may differ.
        let enough = 40 + number * 60;
        let mut client = server.client().await?;
        let mut hashed = None;
        while round.done.load(Ordering::Relaxed) < enough {
            assert!(
                running.iter().any(|writer| !writer.is_finished()),
                "round {number}: every writer was refused"
            );
            let revision = round.revision.load(Ordering::Relaxed);
            hashed = hash(&mut client, revision).await.ok().filter(|_| revision > 0).or(hashed);
        }
        let at_rest = number % 3 == 2;
        let stopped = if at_rest {
            round.stop.store(true, Ordering::Relaxed);
            for writer in running {
                writers.push(writer.await?);
            }
            hashed = Some(hash(&mut client, 0).await?);
            server.kill()?
        } else {
            let stopped = server.kill()?;
            round.stop.store(true, Ordering::Relaxed);
            for writer in running {
                writers.push(writer.await?);
            }
            stopped
        };

        server = stopped.start()?;
        let mut client = server.client().await?;
        let current = hash(&mut client, 0).await?;
        if let Some((before, compacted, revision)) = hashed {
            assert!(current.2 >= revision, "revision {} after {revision}", current.2);
            if at_rest {
                assert_eq!(
                    current,
                    (before, compacted, revision),
                    "round {number}: (hash, compacted, revision)"
                );
            }
            if current.1 == compacted {
                let after = hash(&mut client, revision).await?;
                assert_eq!(
                    after,
                    (before, compacted, revision),
                    "round {number}: (hash, compacted, revision)"
                );
                compared += 1;
            }
        }
        let newest = round.revision.load(Ordering::Relaxed);
        assert!(current.2 >= newest, "revision {} is below {newest}, which was acknowledged", current.2);
        last_revision = current.2;
        let compacted = round.compacted.load(Ordering::Relaxed);
        assert!(
            current.1.max(0) >= compacted,
            "compacted to {} after {compacted} was acknowledged",
            current.1
        );
        last_compacted = current.1.max(0);
        let leases = client.leases().await?.leases().iter().map(|lease| lease.id()).collect();
        for writer in &mut writers {
            writer.check(&mut client, &leases).await?;
        }
    }
    assert!(last_compacted > 0, "compactions happened");
    assert!(compared >= ROUNDS / 3, "{compared} hashes were compared across a crash");
    Ok(())
}

/// One key's events, as far as two looks at the same history can be compared.
type Seen = Vec<(i64, Vec<u8>, Vec<u8>)>;

/// Reads events until the server is gone or `newest` has come.
async fn watch(mut client: Client, seen: &mut Seen, newest: i64) -> Result<()> {
    let next = seen.last().map_or(2, |last| last.0 + 1);
    let options = WatchOptions::new().with_prefix().with_start_revision(next);
    let mut watch = client.watch("r", Some(options)).await?;
    while seen.last().is_none_or(|last| last.0 < newest) {
        let Ok(Some(message)) = watch.message().await else { return Ok(()) };
        for event in message.events() {
            let kv = event.kv().context("a key")?;
            let next = seen.last().map_or(2, |last| last.0 + 1);
            assert_eq!(kv.mod_revision(), next, "every revision once, in order, across crashes");
            seen.push((kv.mod_revision(), kv.key().to_vec(), kv.value().to_vec()));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_resumes_misses_nothing_and_has_seen_nothing_that_is_lost() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut server = Server::start(directory.path(), &[])?;
    let mut seen = Seen::new();
    for round in 0..8_u64 {
        let done = Arc::new(AtomicU64::new(0));
        let mut writers = Vec::new();
        for number in 0..8 {
            let (mut client, done) = (server.client().await?, Arc::clone(&done));
            writers.push(tokio::spawn(async move {
                while client.put(format!("r{number}"), format!("{round}"), None).await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        let client = server.client().await?;
        let watcher = tokio::spawn(async move {
            watch(client, &mut seen, i64::MAX).await?;
            anyhow::Ok(seen)
        });
        while done.load(Ordering::Relaxed) < 60 + 50 * round {
            tokio::task::yield_now().await;
        }
        let stopped = server.kill()?;
        seen = watcher.await??;
        for writer in writers {
            writer.await?;
        }
        server = stopped.start()?;
        let mut client = server.client().await?;
        let current = client.get("r", None).await?.header().context("a header")?.revision();
        let told = seen.last().map_or(0, |last| last.0);
        assert!(current >= told, "round {round}: revision {current}, but a watcher was told of {told}");
        assert!(current >= i64::try_from(done.load(Ordering::Relaxed))?);
        watch(client, &mut seen, current).await?;
    }
    // A watcher that has never been away is told the same.
    let mut again = Seen::new();
    watch(server.client().await?, &mut again, seen.last().map_or(0, |last| last.0)).await?;
    assert!(again == seen, "history has changed");
    Ok(())
}
