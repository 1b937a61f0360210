//! Members that leave, join, learn, and come back after having missed much.

use anyhow::{Context as _, Result};
use etcd_client::{Client, GetOptions, PutOptions};
use tests::support::{count, get, refusal};
use tests::{Cluster, Plan, System, until};
use tokio::task::JoinSet;

use crate::load::Load;

const SOME: u64 = 300;
/// gRPC's codes.
const FAILED_PRECONDITION: i32 = 9;
const UNAVAILABLE: i32 = 14;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_is_replaced_under_load() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    load.progress(SOME).await?;
    cluster.kill(0)?;
    replace(&mut cluster, 0).await?;
    load.progress(SOME).await?;
    cluster.pause(1)?;
    replace(&mut cluster, 1).await?;
    load.progress(SOME).await?;
    load.finish(&cluster, &[2, 3, 4]).await?;
    // Nobody is left of those that the clients knew.
    replace(&mut cluster, 2).await?;
    cluster.same_data(&[3, 4, 5]).await?;
    cluster.client(&[3]).await?.put("all", "new", None).await?;
    Ok(())
}

async fn replace(cluster: &mut Cluster, leaving: usize) -> Result<()> {
    let runs = cluster.running().contains(&leaving);
    cluster.remove(leaving).await?;
    if runs {
        cluster.ended(leaving).await?;
    }
    let joining = cluster.add(System::under_test(), false).await?;
    cluster.start_member(joining)?;
    let running: Vec<usize> = cluster.running().into_iter().filter(|place| *place != leaving).collect();
    cluster.leader_of(&running).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_removed_stops_and_says_why() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    load.progress(SOME).await?;
    let leader = cluster.leader().await?;
    let follower = cluster.others(leader)[0];
    let says_why = |cluster: &Cluster, place: usize| {
        let log = cluster.log(place);
        assert!(log.contains("permanently removed from the cluster"), "{}", cluster.last_words());
    };
    cluster.remove(follower).await?;
    cluster.ended(follower).await?;
    says_why(&cluster, follower);
    load.progress(SOME).await?;

    let third = cluster.others(leader).into_iter().find(|place| *place != follower).context("a third")?;
    load.finish(&cluster, &[leader, third]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hands_over_and_stops() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    load.progress(SOME).await?;
    let leader = cluster.leader().await?;
    let others = cluster.others(leader);
    cluster.remove(leader).await?;
    cluster.ended(leader).await?;
    let log = cluster.log(leader);
    assert!(log.contains("permanently removed from the cluster"), "{}", cluster.last_words());
    cluster.leader_of(&others).await?;
    load.progress(SOME).await?;
    load.finish(&cluster, &others).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_learns_before_it_is_promoted() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    load.progress(SOME).await?;
    let learner = cluster.add(System::under_test(), true).await?;
    let mut client = cluster.client(&[0, 1, 2]).await?;
    // Nobody has started it.
    let early = refusal(client.member_promote(cluster.id(learner)).await);
    let text = "etcdserver: can only promote a learner member which is in sync with leader";
    assert_eq!(early, (FAILED_PRECONDITION, text.to_owned()));

    cluster.start_member(learner)?;
    cluster.ready().await?;
    let status = cluster.status(learner).await.context("the learner answers")?;
    assert!(status.is_learner());
    let mut at_learner = cluster.client(&[learner]).await?;
    let refused = refusal(at_learner.put("k", "v", None).await);
    // 3.5 said `Unavailable`.
    let code = if System::under_test() == System::Etcd { UNAVAILABLE } else { FAILED_PRECONDITION };
    assert_eq!(refused, (code, "etcdserver: rpc not supported for learner".to_owned()));
    at_learner.get("k", Some(GetOptions::new().with_serializable())).await?;

    let id = cluster.id(learner);
    until("the learner is promoted", async || client.member_promote(id).await.ok()).await?;
    until("the learner is a voter", async || {
        cluster.status(learner).await.filter(|status| !status.is_learner())
    })
    .await?;
    let again = refusal(client.member_promote(id).await);
    assert_eq!(again.1, "etcdserver: can only promote a learner member");

    // Four voters need three; without the promoted one these would be two.
    let leader = cluster.leader().await?;
    let gone = cluster.others(leader).into_iter().find(|place| *place != learner).context("a follower")?;
    cluster.kill(gone)?;
    load.progress(SOME).await?;
    cluster.restart(gone).await?;
    load.finish(&cluster, &[0, 1, 2, learner]).await?;
    Ok(())
}

/// With so few entries in the log that a member soon needs a snapshot.
pub(crate) fn keep_few_entries(plan: Plan) -> Plan {
    let plan = plan.flags(&["--snapshot-count", "1000"]);
    match System::under_test() {
        System::Cairn => plan.flags(&["--snapshot-catchup-entries", "100"]),
        // 3.5.1 has no flag for it.
        System::Etcd => plan,
    }
}

/// So much that a member which missed it can only be sent a snapshot.
pub(crate) async fn fill_too_much(cluster: &Cluster, places: &[usize]) -> Result<()> {
    match System::under_test() {
        // What is on the leader's disk is sent from there, and that is up to two segments of the log.
        System::Cairn => fill(cluster, places, 2_500, 80_000).await,
        System::Etcd => fill(cluster, places, 7_000, 100).await,
    }
}

/// Puts so many values of so many bytes, several at a time.
pub(crate) async fn fill(cluster: &Cluster, places: &[usize], puts: usize, length: usize) -> Result<()> {
    const AT_ONCE: usize = 64;
    let mut writers = JoinSet::new();
    for number in 0..AT_ONCE {
        let mut client: Client = cluster.client(&[places[number % places.len()]]).await?;
        writers.spawn(async move {
            for put in (number..puts).step_by(AT_ONCE) {
                let key = format!("fill/{}", put % 5_000);
                client.put(key, vec![b'x'; length], None).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}

/// How many snapshots a member has taken in, by its metrics.
pub(crate) fn snapshots_received(cluster: &Cluster, place: usize) -> Result<usize> {
    metric(cluster, place, "etcd_network_snapshot_receive_success")
}

/// What a metric comes to, over all its labels.
fn metric(cluster: &Cluster, place: usize, name: &str) -> Result<usize> {
    let endpoint = cluster.endpoint(place);
    let (_, port) = endpoint.rsplit_once(':').context("a port")?;
    let metrics = get(port.parse()?, "/metrics")?.body;
    let values = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let counts = values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(counts.sum::<f64>() as usize)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_much_is_sent_a_snapshot() -> Result<()> {
    let more = count("CAIRN_TEST_MISSED_ENTRIES", 0);
    let mut cluster = Cluster::start(keep_few_entries(Plan::of(3).calm())).await?;
    let (leader, term) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    let follower = cluster.others(leader)[0];
    let others = cluster.others(follower);
    let mut client = cluster.client(&others).await?;
    let lease = client.lease_grant(3_600, None).await?.id();
    client.put("leased", "v", Some(PutOptions::new().with_lease(lease))).await?;
    cluster.kill(follower)?;
    fill(&cluster, &others, more, 100).await?;
    fill_too_much(&cluster, &others).await?;
    let load = Load::start(&cluster, &others);
    load.progress(SOME).await?;
    let begun = std::time::Instant::now();
    cluster.restart(follower).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    println!("the same data again {:?} after its start", begun.elapsed());
    let received = snapshots_received(&cluster, follower)?;
    match System::under_test() {
        System::Cairn => assert_eq!(received, 1, "{}", cluster.last_words()),
        System::Etcd => assert!(received > 0, "{}", cluster.last_words()),
    }
    for (place, times) in [(leader, "send"), (follower, "receive")] {
        let times = format!("etcd_network_snapshot_{times}_total_duration_seconds_count");
        assert!(metric(&cluster, place, &times)? > 0, "{times}");
    }
    assert_eq!(cluster.leader_and_term_of(&[0, 1, 2]).await?, (leader, term));

    // What came with the snapshot is of use: its leases, its history, its members, and it can lead.
    let mut client = cluster.client(&[follower]).await?;
    assert!(client.lease_time_to_live(lease, None).await?.ttl() > 3_000);
    let id = cluster.id(follower);
    cluster.client(&[leader]).await?.move_leader(id).await?;
    until("the member leads", async || cluster.status(follower).await.filter(|status| status.leader() == id))
        .await?;
    client.put("led", "by it", None).await?;
    client.lease_revoke(lease).await?;
    assert_eq!(client.get("leased", None).await?.count(), 0);
    cluster.kill(follower)?;
    cluster.restart(follower).await?;
    cluster.same_data(&[0, 1, 2]).await?;
    Ok(())
}

/// Entries that are on the leader's disk and in nobody's memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_a_little_more_than_memory_holds_catches_up() -> Result<()> {
    let missed = count("CAIRN_TEST_MISSED_ENTRIES", 5_000);
    let mut cluster = Cluster::start(keep_few_entries(Plan::of(3).calm())).await?;
    let (leader, term) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    let follower = cluster.others(leader)[0];
    let others = cluster.others(follower);
    cluster.kill(follower)?;
    fill(&cluster, &others, missed, 100).await?;
    let load = Load::start(&cluster, &others);
    load.progress(SOME).await?;
    let begun = std::time::Instant::now();
    cluster.restart(follower).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    println!("{missed} entries missed, the same data again {:?} after its start", begun.elapsed());
    assert_eq!(cluster.leader_and_term_of(&[0, 1, 2]).await?, (leader, term));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_a_cluster_with_history_is_sent_all_of_it() -> Result<()> {
    let mut cluster = Cluster::start(keep_few_entries(Plan::of(3))).await?;
    fill_too_much(&cluster, &[0, 1, 2]).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    let joining = cluster.add(System::under_test(), false).await?;
    cluster.start_member(joining)?;
    cluster.ready().await?;
    load.progress(SOME).await?;
    load.finish(&cluster, &[joining, 0, 1, 2]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_back_does_not_disturb_the_leader() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).calm()).await?;
    let (leader, term) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    let follower = cluster.others(leader)[0];
    let load = Load::start(&cluster, &cluster.others(follower));
    for _ in 0..3 {
        cluster.kill(follower)?;
        load.progress(SOME).await?;
        cluster.restart(follower).await?;
        assert_eq!(cluster.leader_and_term_of(&[0, 1, 2]).await?, (leader, term));
    }
    load.finish(&cluster, &[0, 1, 2]).await?;
    assert_eq!(cluster.leader_and_term_of(&[0, 1, 2]).await?, (leader, term));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_was_wiped_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let load = Load::start(&cluster, &[0, 1, 2]);
    load.progress(SOME).await?;
    let leader = cluster.leader().await?;
    let wiped = cluster.others(leader)[0];
    cluster.kill(wiped)?;
    cluster.wipe(wiped)?;
    cluster.start_member(wiped)?;
    let status = cluster.ended(wiped).await?;
    assert!(!status.success(), "{status}");
    assert!(cluster.log(wiped).contains("has already been bootstrapped"), "{}", cluster.last_words());
    load.progress(SOME).await?;
    load.finish(&cluster, &cluster.others(wiped)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_in_a_members_place_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).calm()).await?;
    let (leader, term) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    let place = cluster.others(leader)[0];
    let others = cluster.others(place);
    let load = Load::start(&cluster, &others);
    load.progress(SOME).await?;
    cluster.kill(place)?;
    cluster.wipe(place)?;
    // Another token makes another cluster of the same addresses.
    cluster.flags_mut().extend(["--initial-cluster-token".to_owned(), "another".to_owned()]);
    cluster.start_member(place)?;
    until("both sides tell of the other cluster", async || {
        let told = |place: usize| cluster.log(place).to_lowercase().contains("cluster id mismatch");
        (told(place) && others.iter().any(|&other| told(other))).then_some(())
    })
    .await
    .with_context(|| cluster.last_words())?;
    load.progress(SOME).await?;
    assert_eq!(cluster.leader_and_term_of(&others).await?, (leader, term));
    load.finish(&cluster, &others).await?;
    Ok(())
}
