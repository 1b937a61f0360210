//! Links that are cut, in both directions and in one.

use std::time::Duration;

use anyhow::Result;
use tests::support::{Dice, count};
use tests::{Cluster, Link, Plan, until};

use crate::load::Load;

const SOME: u64 = 300;

/// Timers at which a follower that is cut off campaigns soon, and a busy machine causes no election.
const PATIENT: [&str; 4] = ["--heartbeat-interval", "200", "--election-timeout", "4000"];

async fn leader_cut_off(link: Link) -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).links()).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    for _ in 0..2 {
        load.progress(SOME).await?;
        let leader = cluster.leader().await?;
        cluster.links().set_around(leader, 3, link);
        let others = cluster.others(leader);
        cluster.leader_of(&others).await?;
        let mut deposed = cluster.client_within(&[leader], Duration::from_secs(3)).await?;
        let write = deposed.put("cut off", "", None).await;
        assert!(write.is_err(), "a member without the others acknowledges a write");
        let read = deposed.get("cut off", None).await;
        assert!(read.is_err(), "a member without the others answers a linearizable read");
        load.progress(SOME).await?;
        cluster.links().heal();
        cluster.leader().await?;
    }
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_behind_a_silent_partition_is_replaced_and_comes_back() -> Result<()> {
    leader_cut_off(Link::Stalled).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_connections_are_refused_is_replaced_and_comes_back() -> Result<()> {
    leader_cut_off(Link::Refused).await
}

/// A member that campaigns in vain must not depose anybody when it comes back.
async fn follower_cut_off(link: Link) -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).links().flags(&PATIENT)).await?;
    let (leader, term) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    let follower = cluster.others(leader)[0];
    let load = Load::start(&cluster, &cluster.others(follower));
    load.progress(SOME).await?;
    cluster.links().set_around(follower, 3, link);
    until("a follower that is cut off gives its leader up", async || {
        cluster.status(follower).await.filter(|status| status.leader() == 0)
    })
    .await?;
    load.progress(SOME).await?;
    cluster.links().heal();
    assert_eq!(cluster.leader_and_term_of(&[0, 1, 2]).await?, (leader, term));
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    assert_eq!(cluster.leader_and_term_of(&[0, 1, 2]).await?, (leader, term));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_a_silent_partition_does_not_disturb_the_leader() -> Result<()> {
    follower_cut_off(Link::Stalled).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_connections_are_refused_does_not_disturb_the_leader() -> Result<()> {
    follower_cut_off(Link::Refused).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_hears_all_but_its_leader_does_not_disturb_it() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).links().flags(&PATIENT)).await?;
    let (leader, term) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    let [follower, other] = cluster.others(leader)[..] else { panic!("three members") };
    let load = Load::start(&cluster, &[leader, other]);
    cluster.links().set_both(leader, follower, Link::Stalled);
    until("it gives its leader up", async || {
        cluster.status(follower).await.filter(|status| status.leader() == 0)
    })
    .await?;
    load.progress(SOME).await?;
    assert_eq!(cluster.leader_and_term_of(&[leader, other]).await?, (leader, term));
    cluster.links().heal();
    assert_eq!(cluster.leader_and_term_of(&[0, 1, 2]).await?, (leader, term));
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

/// A leader that is heard but does not hear, or the other way round, gives way to one that does both.
async fn half_deaf(hears: bool) -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).links()).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    load.progress(SOME).await?;
    let leader = cluster.leader().await?;
    let others = cluster.others(leader);
    for &other in &others {
        let (from, to) = if hears { (leader, other) } else { (other, leader) };
        cluster.links().set(from, to, Link::Stalled);
    }
    until("another member leads", async || {
        let status = cluster.status(others[0]).await?;
        others.iter().find(|&&place| cluster.id(place) == status.leader()).copied()
    })
    .await?;
    load.progress(SOME).await?;
    cluster.links().heal();
    cluster.leader().await?;
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody_gives_way() -> Result<()> {
    half_deaf(false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_hears_gives_way() -> Result<()> {
    half_deaf(true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_links_delay_writes_and_nothing_else() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).links().flags(&PATIENT)).await?;
    let (leader, term) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        cluster.links().set_both(one, other, Link::Slow(Duration::from_millis(50)));
    }
    load.progress(100).await?;
    assert_eq!(cluster.leader_and_term_of(&[0, 1, 2]).await?, (leader, term));
    cluster.links().heal();
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

/// What may happen next to a cluster that has seen it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anything_at_any_time() -> Result<()> {
    let turns = count("CAIRN_TEST_CHAOS_TURNS", 40);
    let seed = count("CAIRN_TEST_CHAOS_SEED", std::process::id() as usize) as u64;
    println!("CAIRN_TEST_CHAOS_SEED={seed} CAIRN_TEST_CHAOS_TURNS={turns}");
    let mut dice = Dice(seed);
    let mut cluster = Cluster::start(Plan::of(3).links().flags(&["--snapshot-count", "300"])).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    load.progress(SOME).await?;
    let mut stopped = None;
    for _ in 0..turns {
        let (place, other) = (dice.below(3) as usize, dice.below(3) as usize);
        match dice.below(10) {
            0 | 1 if stopped.is_none() => {
                cluster.kill(place)?;
                stopped = Some((place, true));
            }
            2 | 3 if stopped.is_none() => {
                cluster.pause(place)?;
                stopped = Some((place, false));
            }
            0..=3 => go_on(&mut cluster, &mut stopped)?,
            4 => cluster.links().set_around(place, 3, Link::Stalled),
            5 => cluster.links().set_around(place, 3, Link::Refused),
            6 if place != other => cluster.links().set(place, other, Link::Stalled),
            7 if place != other => cluster.links().set_both(place, other, Link::Refused),
            8 => {
                let link = Link::Slow(Duration::from_millis(dice.below(150)));
                cluster.links().set_around(place, 3, link);
            }
            _ => cluster.links().heal(),
        }
        // This is not to wait for anything: it is how long the fault lasts.
        tokio::time::sleep(Duration::from_millis(50 + dice.below(1_000))).await;
    }
    go_on(&mut cluster, &mut stopped)?;
    cluster.links().heal();
    cluster.ready().await?;
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    Ok(())
}

fn go_on(cluster: &mut Cluster, stopped: &mut Option<(usize, bool)>) -> Result<()> {
    match stopped.take() {
        Some((place, true)) => cluster.start_member(place),
        Some((place, false)) => cluster.resume(place),
        None => Ok(()),
    }
}
