//! Members that are killed and paused under load.

use anyhow::Result;
use tests::{Cluster, Plan};

use crate::load::Load;

/// Enough writes for every client to have had several turns.
const SOME: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_again_and_again_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).flags(&["--snapshot-count", "500"])).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    for _ in 0..4 {
        load.progress(SOME).await?;
        let leader = cluster.leader().await?;
        cluster.kill(leader)?;
        load.progress(SOME).await?;
        cluster.restart(leader).await?;
    }
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_are_killed_again_and_again_lose_nothing() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    for _ in 0..2 {
        let leader = cluster.leader().await?;
        for follower in cluster.others(leader) {
            load.progress(SOME).await?;
            cluster.kill(follower)?;
            load.progress(SOME).await?;
            cluster.restart(follower).await?;
        }
    }
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_killed_at_once_come_back_with_everything() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).flags(&["--snapshot-count", "200"])).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    for _ in 0..3 {
        load.progress(SOME).await?;
        for place in cluster.places() {
            cluster.kill(place)?;
        }
        for place in cluster.places() {
            cluster.start_member(place)?;
        }
        cluster.ready().await?;
    }
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_paused_is_replaced_and_follows_when_it_goes_on() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    for _ in 0..3 {
        load.progress(SOME).await?;
        let leader = cluster.leader().await?;
        cluster.pause(leader)?;
        let others = cluster.others(leader);
        cluster.leader_of(&others).await?;
        load.progress(SOME).await?;
        cluster.resume(leader)?;
        cluster.leader().await?;
    }
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_paused_holds_nobody_up_and_catches_up() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).calm()).await?;
    let (leader, term) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    let follower = cluster.others(leader)[0];
    let load = Load::start(&cluster, &cluster.others(follower));
    for _ in 0..3 {
        cluster.pause(follower)?;
        load.progress(SOME).await?;
        cluster.resume(follower)?;
        load.progress(SOME).await?;
    }
    load.finish(&cluster, &[0, 1, 2]).await?;
    assert_eq!(cluster.leader_and_term_of(&[0, 1, 2]).await?, (leader, term));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    for round in 0..2 {
        for place in cluster.places() {
            load.progress(SOME).await?;
            if round == 0 {
                cluster.terminate(place).await?;
            } else {
                // Whoever sends SIGKILL has no patience.
                cluster.kill(place)?;
            }
            load.progress(SOME).await?;
            cluster.restart(place).await?;
        }
    }
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_go_on_without_two() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(5)).await?;
    let load = Load::start(&cluster, &[0, 1, 2, 3, 4]);
    load.progress(SOME).await?;
    let leader = cluster.leader().await?;
    let other = cluster.others(leader)[0];
    cluster.kill(leader)?;
    cluster.pause(other)?;
    load.progress(SOME).await?;
    cluster.start_member(leader)?;
    cluster.resume(other)?;
    cluster.ready().await?;
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2, 3, 4]).await?;
    Ok(())
}
