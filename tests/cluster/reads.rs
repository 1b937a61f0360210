//! No linearizable read ever tells of a time before it was asked.

use std::time::Duration;

use anyhow::{Context as _, Result};
use etcd_client::GetOptions;
use tests::{Cluster, Link, Plan, Signal, until};

/// How many reads wait for the leader to wake.
const READS: usize = 50;

/// Reads that a member finds waiting when it wakes are answered with what is written by then, or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_slept_through_its_deposition_answers_nothing_stale() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let mut answered = 0;
    for round in 0..5_i64 {
        let leader = cluster.leader().await?;
        let others = cluster.others(leader);
        let mut before = Vec::new();
        // Connections that exist when it falls asleep: there the requests wait.
        for _ in 0..READS {
            let mut client = cluster.client_within(&[leader], Duration::from_secs(20)).await?;
            client.put("k", "old", None).await?;
            before.push(client);
        }
        cluster.pause(leader)?;
        cluster.leader_of(&others).await?;
        let mut writer = cluster.client(&others).await?;
        let written = writer.put("k", format!("new {round}"), None).await?;
        let revision = written.header().context("a header")?.revision();
        // All of these are asked after the write was acknowledged.
        let reads: Vec<_> = before
            .into_iter()
            .map(|mut client| tokio::spawn(async move { client.get("k", None).await }))
            .collect();
        // The more of them have reached the sleeper's sockets the better, but none has to.
        tokio::time::sleep(Duration::from_millis(20)).await;
        cluster.resume(leader)?;
        for read in reads {
            // An error is no answer.
            let Ok(answer) = read.await? else { continue };
            answered += 1;
            let found = answer.kvs().first().context("the key is there")?;
            assert_eq!(found.value_str()?, format!("new {round}"));
            assert!(answer.header().context("a header")?.revision() >= revision);
        }
        cluster.leader().await?;
    }
    println!("{answered} of {} reads were answered", 5 * READS);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_never_go_back_while_a_leader_sleeps_for_moments() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let mut client = cluster.client(&[0, 1, 2]).await?;
    let acknowledged = |put: &etcd_client::PutResponse| put.header().map_or(0, |header| header.revision());
    let mut last = acknowledged(&client.put("k", "first", None).await?);
    for round in 0..20_u64 {
        let leader = cluster.leader().await?;
        let mut at_leader = cluster.client(&[leader]).await?;
        let mut at_other = cluster.client(&[cluster.others(leader)[0]]).await?;
        cluster.signal(leader, Signal::STOP)?;
        let reader = tokio::spawn(async move { at_leader.get("k", None).await });
        // Around the time at which the others lose patience.
        tokio::time::sleep(Duration::from_millis(100 * (round % 20))).await;
        let put = at_other.put("k", round.to_string(), None);
        cluster.signal(leader, Signal::CONT)?;
        // Which may get lost between two leaders; then nobody knows whether it was done.
        let written = put.await.ok().map(|put| acknowledged(&put));
        if let Ok(answer) = reader.await? {
            let revision = answer.header().context("a header")?.revision();
            assert!(revision >= last, "revision {revision} after {last} was acknowledged");
        }
        let after = until("a member reads", async || at_other.get("k", None).await.ok()).await?;
        let revision = after.header().context("a header")?.revision();
        if let Some(written) = written {
            assert_eq!(after.kvs()[0].value_str()?, round.to_string());
            assert!(revision >= written, "revision {revision} after {written} was acknowledged");
        }
        last = revision;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_cut_off_answers_serializable_reads_only() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).links()).await?;
    let leader = cluster.leader().await?;
    let alone = cluster.others(leader)[0];
    let mut client = cluster.client(&[leader]).await?;
    client.put("k", "old", None).await?;
    cluster.same_data(&[0, 1, 2]).await?;
    cluster.links().set_around(alone, 3, Link::Stalled);
    client.put("k", "new", None).await?;
    let mut at_alone = cluster.client_within(&[alone], Duration::from_secs(3)).await?;
    let serializable = at_alone.get("k", Some(GetOptions::new().with_serializable())).await?;
    assert_eq!(serializable.kvs()[0].value_str()?, "old");
    assert!(at_alone.get("k", None).await.is_err(), "it cannot know");
    cluster.links().heal();
    cluster.leader().await?;
    let mut at_alone = cluster.client(&[alone]).await?;
    assert_eq!(at_alone.get("k", None).await?.kvs()[0].value_str()?, "new");
    Ok(())
}
