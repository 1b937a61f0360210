//! Watchers that go on through another member when theirs is gone: nothing lost, nothing twice,
//! nothing out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::WatchOptions;
use tests::{Cluster, Plan, System, connect, until};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::load::{Event, Load, PREFIX, events_of, history, last_write};
use crate::members::{fill_too_much, keep_few_entries};

const SOME: u64 = 300;

/// One that follows the load, resuming through the next member whenever a stream fails or is silent.
struct Follower {
    /// The last revision of which it has everything.
    seen: Arc<AtomicI64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<Vec<Event>>>,
}

impl Follower {
    fn start(endpoints: Vec<String>, first: usize, patience: Duration) -> Self {
        let (seen, stop) = (Arc::new(AtomicI64::new(0)), watch::Sender::new(false));
        let task = tokio::spawn(follow(endpoints, first, patience, Arc::clone(&seen), stop.subscribe()));
        Self { seen, stop, task }
    }

    /// Waits until it has all up to a revision, ends it and gives what it has seen.
    async fn finish(self, end: i64) -> Result<Vec<Event>> {
        until("a watcher has everything", async || {
            (self.seen.load(Ordering::Relaxed) >= end || self.task.is_finished()).then_some(())
        })
        .await?;
        self.stop.send_replace(true);
        self.task.await?
    }
}

async fn follow(
    endpoints: Vec<String>,
    first: usize,
    patience: Duration,
    seen: Arc<AtomicI64>,
    mut stop: watch::Receiver<bool>,
) -> Result<Vec<Event>> {
    let mut all: Vec<Event> = Vec::new();
    let mut at = first;
    while !*stop.borrow() {
        let endpoint = endpoints[at % endpoints.len()].clone();
        at += 1;
        let next = all.last().map_or(1, |event| event.revision + 1);
        let options = WatchOptions::new().with_prefix().with_start_revision(next);
        let opened = async {
            let mut client = connect(&[endpoint], Duration::from_secs(3_600)).await?;
            anyhow::Ok(client.watch(PREFIX, Some(options)).await?)
        };
        let Ok(Ok(mut watch)) = tokio::time::timeout(patience, opened).await else {
            // The member may be gone; this only keeps the processor free until it is another's turn.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout(patience, watch.message()) => message,
                _ = stop.wait_for(|stop| *stop) => return Ok(all),
            };
            let Ok(Ok(Some(message))) = message else { break };
            if message.canceled() {
                break;
            }
            let last = all.last().map_or(0, |event| event.revision);
            let events = events_of(&message)?;
            // A revision comes whole, so the next message begins after it.
            ensure!(
                events.first().is_none_or(|event| event.revision > last.max(next - 1)),
                "revision {} after {last}, asked from {next}",
                events[0].revision
            );
            ensure!(events.is_sorted_by_key(|event| event.revision), "out of order");
            all.extend(events);
            seen.store(all.last().map_or(0, |event| event.revision), Ordering::Relaxed);
        }
    }
    Ok(all)
}

/// Ends the load and compares what each watcher saw with the history.
async fn compare(cluster: &Cluster, load: Load, followers: Vec<Follower>, places: &[usize]) -> Result<()> {
    load.finish(cluster, places).await?;
    let endpoints = cluster.endpoints(places);
    let end = until("a last write is acknowledged", async || last_write(&endpoints).await.ok()).await?;
    let all = history(&endpoints[0], end).await?;
    for (number, follower) in followers.into_iter().enumerate() {
        let seen = follower.finish(end).await.with_context(|| format!("watcher {number}"))?;
        let parted = all.iter().zip(&seen).position(|(was, told)| was != told);
        assert_eq!(parted.map(|at| (&all[at], &seen[at])), None, "watcher {number}");
        assert_eq!(seen.len(), all.len(), "watcher {number}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_go_on_while_members_are_killed_and_paused() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).flags(&["--snapshot-count", "300"])).await?;
    let endpoints = cluster.endpoints(&[0, 1, 2]);
    let patience = Duration::from_secs(1);
    let followers: Vec<Follower> =
        (0..6).map(|first| Follower::start(endpoints.clone(), first, patience)).collect();
    let load = Load::start(&cluster, &[0, 1, 2]);
    for round in 0..6 {
        load.progress(SOME).await?;
        let leader = cluster.leader().await?;
        let place = if round % 2 == 0 { leader } else { cluster.others(leader)[0] };
        if round < 4 {
            cluster.kill(place)?;
            load.progress(SOME).await?;
            cluster.restart(place).await?;
        } else {
            cluster.pause(place)?;
            load.progress(SOME).await?;
            cluster.resume(place)?;
            cluster.leader().await?;
        }
    }
    compare(&cluster, load, followers, &[0, 1, 2]).await
}

/// Watchers stay with a member that falls behind, is sent a snapshot, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_a_member_that_is_sent_a_snapshot_miss_nothing() -> Result<()> {
    if System::under_test() == System::Etcd {
        println!("SKIPPED: watchers of etcd 3.5.1 go back in time then (etcd-io/etcd 15271)");
        return Ok(());
    }
    let mut cluster = Cluster::start(keep_few_entries(Plan::of(3).calm())).await?;
    let leader = cluster.leader().await?;
    let behind = cluster.others(leader)[0];
    let others = cluster.others(behind);
    let load = Load::start(&cluster, &others);
    let endpoint = vec![cluster.endpoint(behind)];
    let patience = Duration::from_secs(3_600);
    let followers: Vec<Follower> =
        (0..4).map(|first| Follower::start(endpoint.clone(), first, patience)).collect();
    load.progress(SOME).await?;
    for _ in 0..2 {
        // Paused, so that its streams stay; and then so much is written that only a snapshot helps.
        cluster.pause(behind)?;
        fill_too_much(&cluster, &others).await?;
        load.progress(SOME).await?;
        cluster.resume(behind)?;
        load.progress(SOME).await?;
        cluster.leader().await?;
    }
    compare(&cluster, load, followers, &[0, 1, 2]).await
}
