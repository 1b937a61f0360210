//! How long writes rest when a leader goes. The figures are the business of `benches failover`; here
//! are bounds that a busy machine keeps, too.

use std::time::{Duration, Instant};

use anyhow::Result;
use tests::{Cluster, Plan, System};

/// Puts through whichever member accepts it; how long that took.
async fn next_write(cluster: &Cluster, places: &[usize]) -> Result<Duration> {
    let begun = Instant::now();
    let mut at = 0;
    while begun.elapsed() < tests::PATIENCE {
        let place = places[at % places.len()];
        at += 1;
        // A member that knows of no leader lets a request wait; another one may know better.
        let Ok(mut client) = cluster.client_within(&[place], Duration::from_millis(500)).await else {
            continue;
        };
        if client.put("next", "", None).await.is_ok() {
            return Ok(begun.elapsed());
        }
    }
    anyhow::bail!("no write in {:?}: {}", begun.elapsed(), cluster.last_words())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_resume_soon_after_a_leader_was_killed() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let mut rests = Vec::new();
    for _ in 0..5 {
        let leader = cluster.leader().await?;
        let others = cluster.others(leader);
        cluster.kill(leader)?;
        rests.push(next_write(&cluster, &others).await?);
        cluster.restart(leader).await?;
    }
    println!("writes resumed after {rests:?}");
    let limit = match System::under_test() {
        System::Cairn => Duration::from_secs(5),
        System::Etcd => Duration::from_secs(15),
    };
    assert!(rests.iter().all(|rest| *rest < limit), "{rests:?}");
    cluster.same_data(&[0, 1, 2]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_end_hands_over_first() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).calm()).await?;
    let mut rests = Vec::new();
    for _ in 0..5 {
        let leader = cluster.leader().await?;
        let others = cluster.others(leader);
        let begun = Instant::now();
        cluster.terminate(leader).await?;
        next_write(&cluster, &others).await?;
        rests.push(begun.elapsed());
        cluster.restart(leader).await?;
    }
    println!("ended, and written again after {rests:?}");
    // With these timers an election would take ten seconds at least.
    assert!(rests.iter().all(|rest| *rest < Duration::from_secs(9)), "{rests:?}");
    cluster.same_data(&[0, 1, 2]).await?;
    Ok(())
}
