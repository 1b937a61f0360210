//! Cairn and real etcd in one cluster: each side leads, follows, joins, catches up by log and by
//! snapshot, and in the end all hold the same.
//!
//! Needs real etcd, from the directory that `CAIRN_ETCD_BIN_DIR` names; without it these tests say so
//! and pass. `scripts/install-etcd` brings 3.5.1; 3.7.1 passes as well. `CAIRN_TEST_SYSTEM` has no
//! effect on them.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{AlarmAction, AlarmType, Client, PutOptions};
use tests::support::get;
use tests::{Cluster, Plan, System, until};

use System::{Cairn, Etcd};

use crate::load::Load;
use crate::members::{fill, snapshots_received};

const SOME: u64 = 300;
/// etcd 3.5 keeps 5000 entries behind a snapshot, whatever its flags say.
const MORE_THAN_ETCD_KEEPS: usize = 7_000;
/// Cairn sends old entries from its WAL as long as they are in it: some segments of 64 MB.
const MORE_THAN_CAIRN_KEEPS: usize = 3_500;
const LARGE: usize = 40_000;

/// What a cluster of Cairn alone speaks.
const CAIRNS_VERSION: &str = "3.7.0";

/// The version that a cluster of this etcd and Cairn speaks; none if there is no etcd here.
fn joint_version() -> Option<String> {
    let Some(directory) = tests::etcd_directory() else {
        eprintln!("SKIPPED: CAIRN_ETCD_BIN_DIR is not set; see scripts/install-etcd");
        return None;
    };
    let told = Command::new(directory.join("etcd")).arg("--version").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let version = told.lines().find_map(|line| line.strip_prefix("etcd Version: ")).unwrap();
    let (minor, _) = version.rsplit_once('.').unwrap();
    Some(format!("{minor}.0"))
}

fn plan(systems: &[System]) -> Plan {
    Plan { systems: systems.to_vec(), ..Plan::of(0) }
}

/// Waits until a member leads, having asked the leader to hand over.
async fn lead(cluster: &mut Cluster, place: usize) -> Result<()> {
    let leader = cluster.leader().await?;
    if leader == place {
        return Ok(());
    }
    let id = cluster.id(place);
    cluster.client(&[leader]).await?.move_leader(id).await?;
    ensure!(cluster.leader().await? == place, "{}", cluster.last_words());
    Ok(())
}

/// The version that the cluster speaks, as a member tells it.
fn cluster_version(cluster: &Cluster, place: usize) -> Result<String> {
    let endpoint = cluster.endpoint(place);
    let (_, port) = endpoint.rsplit_once(':').context("a port")?;
    let told = get(port.parse()?, "/version")?.body;
    let (_, rest) = told.split_once(r#""etcdcluster":""#).with_context(|| told.clone())?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

async fn version_becomes(cluster: &Cluster, places: &[usize], version: &str) -> Result<()> {
    for &place in places {
        until("the cluster's version", async || {
            cluster_version(cluster, place).ok().filter(|told| told == version)
        })
        .await
        .with_context(|| format!("{version} at member {place}: {}", cluster.last_words()))?;
    }
    Ok(())
}

/// Waits until every member tells the same of all members, names and addresses included.
async fn same_members(cluster: &Cluster, places: &[usize]) -> Result<()> {
    let mut told = Vec::new();
    let same = until("all members tell the same of each other", async || {
        told.clear();
        for &place in places {
            let mut members = Vec::new();
            let mut client = cluster.client(&[place]).await.ok()?;
            for member in client.member_list().await.ok()?.members() {
                let urls = (member.peer_urls().to_vec(), member.client_urls().to_vec());
                members.push((member.id(), member.name().to_owned(), urls, member.is_learner()));
            }
            members.sort();
            told.push(members);
        }
        let whole = told[0].len() == places.len() && told[0].iter().all(|member| !member.2.1.is_empty());
        (whole && told.iter().all(|other| *other == told[0])).then_some(())
    });
    same.await.with_context(|| format!("{told:#x?}"))
}

/// Forgets old revisions, all but the last one.
async fn compact(client: &mut Client) -> Result<()> {
    let revision = client.put("last", "", None).await?.header().context("a header")?.revision();
    client.compact(revision - 1, None).await?;
    Ok(())
}

/// Requests of every kind through one member, so that each of them is applied by both systems.
async fn every_kind(client: &mut Client, mark: &str) -> Result<()> {
    use etcd_client::{Compare, CompareOp, Txn, TxnOp};
    let lease = client.lease_grant(600, None).await?.id();
    let key = |name: &str| format!("kinds/{mark}/{name}");
    client.put(key("leased"), "v", Some(PutOptions::new().with_lease(lease))).await?;
    for number in 0..10 {
        client.put(key("many"), number.to_string(), None).await?;
    }
    client.put(key("gone"), "v", None).await?;
    client.delete(key("gone"), None).await?;
    let compare = Compare::version(key("many"), CompareOp::Equal, 10);
    let branch = [TxnOp::put(key("txn"), "v", None), TxnOp::delete(key("many"), None)];
    let txn = client.txn(Txn::new().when([compare]).and_then(branch)).await?;
    ensure!(txn.succeeded(), "ten versions");
    let (mut keeper, mut renewed) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    ensure!(renewed.message().await?.is_some_and(|answer| answer.ttl() == 600), "the lease is renewed");
    ensure!(client.lease_time_to_live(lease, None).await?.ttl() > 590, "the lease lives");
    client.lease_revoke(lease).await?;
    ensure!(client.get(key("leased"), None).await?.count() == 0, "the lease takes its key along");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_found_a_cluster_and_each_leads_it() -> Result<()> {
    let Some(version) = joint_version() else { return Ok(()) };
    let all = [0, 1, 2];
    let mut cluster = Cluster::start(plan(&[Etcd, Cairn, Etcd])).await?;
    version_becomes(&cluster, &all, &version).await?;
    same_members(&cluster, &all).await?;
    let load = Load::start(&cluster, &all);
    for leader in [1, 0, 1, 2] {
        lead(&mut cluster, leader).await?;
        for place in all {
            let mark = format!("{leader}.{place}");
            every_kind(&mut cluster.client(&[place]).await?, &mark).await.with_context(|| mark)?;
        }
        load.progress(SOME).await?;
    }
    load.finish(&cluster, &all).await?;
    for place in all {
        lead(&mut cluster, place).await?;
        compact(&mut cluster.client(&[place]).await?).await?;
        cluster.same_data(&all).await?;
    }
    Ok(())
}

/// Under a load that is checked, with a leader of either kind killed and paused, and followers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fails_as_leader_and_as_follower() -> Result<()> {
    if joint_version().is_none() {
        return Ok(());
    }
    let all = [0, 1, 2];
    let mut cluster = Cluster::start(plan(&[Cairn, Etcd, Cairn])).await?;
    let load = Load::start(&cluster, &all);
    for (leader, victim) in [(0, 0), (1, 1), (0, 1), (1, 0)] {
        lead(&mut cluster, leader).await?;
        load.progress(SOME).await?;
        cluster.kill(victim)?;
        load.progress(SOME).await?;
        cluster.restart(victim).await?;
    }
    for leader in [1, 0] {
        lead(&mut cluster, leader).await?;
        cluster.pause(leader)?;
        let others = cluster.others(leader);
        cluster.leader_of(&others).await?;
        load.progress(SOME).await?;
        cluster.resume(leader)?;
        cluster.leader().await?;
        load.progress(SOME).await?;
    }
    load.finish(&cluster, &all).await?;
    same_members(&cluster, &all).await
}

/// A lease that one system granted ends on time under the other, and takes its key along everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_expire_under_the_other_system() -> Result<()> {
    const TTL: i64 = 5;
    let Some(version) = joint_version() else { return Ok(()) };
    let all = [0, 1, 2];
    let mut cluster = Cluster::start(plan(&[Etcd, Cairn, Etcd])).await?;
    version_becomes(&cluster, &all, &version).await?;
    for (granting, expiring) in [(0, 1), (1, 0)] {
        lead(&mut cluster, granting).await?;
        let mut client = cluster.client(&[2]).await?;
        let (short, long) =
            (client.lease_grant(TTL, None).await?.id(), client.lease_grant(600, None).await?.id());
        let of = |lease| Some(PutOptions::new().with_lease(lease));
        client.put("short", "v", of(short)).await?;
        client.put("long", "v", of(long)).await?;
        lead(&mut cluster, expiring).await?;
        // A new leader begins the time anew.
        let begun = Instant::now();
        until("the lease ends", async || {
            let kept = client.get("short", None).await.ok()?.count();
            (kept == 0).then_some(())
        })
        .await?;
        let took = begun.elapsed().as_secs_f64();
        ensure!(took > TTL as f64 - 1.0, "{took} s");
        ensure!(took < 4.0 * TTL as f64, "{took} s");
        ensure!(client.lease_time_to_live(short, None).await?.ttl() == -1, "the lease is gone");
        for place in all {
            let mut client = cluster.client(&[place]).await?;
            ensure!(client.lease_time_to_live(long, None).await?.ttl() > 500, "the other one is not");
            ensure!(client.get("long", None).await?.count() == 1, "nor is its key");
        }
        client.lease_revoke(long).await?;
        cluster.same_data(&all).await?;
    }
    Ok(())
}

/// etcd looks for differences itself: when it starts, and again and again as the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_finds_no_corruption() -> Result<()> {
    let Some(version) = joint_version() else { return Ok(()) };
    if version != "3.5.0" {
        eprintln!("SKIPPED: these flags are of 3.5");
        return Ok(());
    }
    let all = [0, 1, 2];
    let mut cluster = Cluster::start(plan(&[Etcd, Cairn, Cairn])).await?;
    version_becomes(&cluster, &all, &version).await?;
    every_kind(&mut cluster.client(&all).await?, "before").await?;
    compact(&mut cluster.client(&all).await?).await?;
    let flags = cluster.flags_mut();
    flags.extend(
        ["--experimental-initial-corrupt-check", "--experimental-corrupt-check-time=1s"].map(String::from),
    );
    cluster.kill(0)?;
    cluster.restart(0).await?;
    assert!(cluster.log(0).contains("initial corruption checking passed"), "{}", cluster.last_words());
    lead(&mut cluster, 0).await?;
    let checked = r#""finished peer corruption check","number-of-peers-checked":2"#;
    until("three checks", async || (cluster.log(0).matches(checked).count() >= 3).then_some(())).await?;
    fill(&cluster, &all, 1_000, 100).await?;
    let now = cluster.log(0).matches(checked).count();
    until("another check", async || (cluster.log(0).matches(checked).count() > now).then_some(())).await?;
    let alarms = cluster.client(&[0]).await?.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    assert!(alarms.alarms().is_empty(), "{alarms:?}");
    for word in ["found hash mismatch", "found different", "failed to check", "invalid character"] {
        assert!(!cluster.log(0).contains(word), "{word}: {}", cluster.last_words());
    }
    cluster.same_data(&all).await?;
    Ok(())
}

/// A cluster of etcd becomes one of Cairn, member by member, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_migrates_from_etcd_to_cairn() -> Result<()> {
    let Some(version) = joint_version() else { return Ok(()) };
    let mut cluster = Cluster::start(plan(&[Etcd; 3]).flags(&["--snapshot-count", "1000"])).await?;
    fill(&cluster, &[0, 1, 2], MORE_THAN_ETCD_KEEPS, 100).await?;
    let mut load = Some(Load::start(&cluster, &[0, 1, 2]));
    for leaving in 0..3 {
        if leaving == 2
            && let Some(load) = load.take()
        {
            // Next goes the last member that these clients know.
            load.finish(&cluster, &[2, 3, 4]).await?;
        }
        cluster.remove(leaving).await?;
        cluster.ended(leaving).await?;
        let joining = cluster.add(Cairn, false).await?;
        cluster.start_member(joining)?;
        let now = cluster.running();
        cluster.leader_of(&now).await?;
        cluster.ready().await?;
        if let Some(load) = &load {
            load.progress(SOME).await?;
        }
        same_members(&cluster, &now).await?;
        if leaving == 0 {
            assert!(snapshots_received(&cluster, joining)? > 0, "{}", cluster.last_words());
            version_becomes(&cluster, &now, &version).await?;
            lead(&mut cluster, joining).await?;
        }
    }
    // With nobody left who speaks less, the cluster speaks more.
    version_becomes(&cluster, &[3, 4, 5], CAIRNS_VERSION).await?;
    cluster.same_data(&[3, 4, 5]).await?;
    // All of it came with snapshots, and survives a restart of everybody.
    for place in [3, 4, 5] {
        cluster.kill(place)?;
    }
    for place in [3, 4, 5] {
        cluster.start_member(place)?;
    }
    cluster.ready().await?;
    same_members(&cluster, &[3, 4, 5]).await?;
    cluster.same_data(&[3, 4, 5]).await?;
    Ok(())
}

/// The other way: etcd is sent Cairn's snapshot, starts again from it, and leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_catches_up_by_cairns_snapshot() -> Result<()> {
    let Some(version) = joint_version() else { return Ok(()) };
    // The first one keeps the cluster at a version that etcd 3.5 can join.
    let few = ["--snapshot-count", "1000"];
    let mut cluster = Cluster::start(plan(&[Etcd, Cairn, Cairn]).flags(&few).calm()).await?;
    version_becomes(&cluster, &[0, 1, 2], &version).await?;
    // Only Cairn has this flag.
    let flags = cluster.flags_mut();
    flags.extend(["--snapshot-catchup-entries", "100"].map(str::to_owned));
    for place in [1, 2] {
        cluster.kill(place)?;
        cluster.restart(place).await?;
    }
    let flags = cluster.flags_mut();
    flags.truncate(flags.len() - 2);
    lead(&mut cluster, 1).await?;
    every_kind(&mut cluster.client(&[1]).await?, "before").await?;

    // One that missed much, and one that is new.
    cluster.kill(0)?;
    fill(&cluster, &[1, 2], MORE_THAN_CAIRN_KEEPS, LARGE).await?;
    let load = Load::start(&cluster, &[1, 2]);
    cluster.restart(0).await?;
    load.progress(SOME).await?;
    load.finish(&cluster, &[0, 1, 2]).await?;
    assert_eq!(snapshots_received(&cluster, 0)?, 1, "{}", cluster.last_words());
    let joining = cluster.add(Etcd, false).await?;
    cluster.start_member(joining)?;
    cluster.ready().await?;
    let all = [joining, 0, 1, 2];
    cluster.same_data(&all).await?;
    assert_eq!(snapshots_received(&cluster, joining)?, 1, "{}", cluster.last_words());
    same_members(&cluster, &all).await?;

    for place in [0, joining] {
        cluster.kill(place)?;
        cluster.restart(place).await?;
        lead(&mut cluster, place).await?;
        let mut client = cluster.client(&[place]).await?;
        every_kind(&mut client, &format!("led by {place}")).await?;
        compact(&mut client).await?;
        cluster.same_data(&all).await?;
    }
    same_members(&cluster, &all).await
}

/// etcd is careful about versions: so is Cairn in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_of_an_older_version_does_not_join_a_newer_cluster() -> Result<()> {
    let Some(version) = joint_version() else { return Ok(()) };
    if version == CAIRNS_VERSION {
        eprintln!("SKIPPED: this etcd is not older");
        return Ok(());
    }
    let mut cluster = Cluster::start(plan(&[Cairn])).await?;
    version_becomes(&cluster, &[0], CAIRNS_VERSION).await?;
    let joining = cluster.add(Etcd, true).await?;
    cluster.start_member(joining)?;
    let status = cluster.ended(joining).await?;
    assert!(!status.success(), "{status}");
    let log = cluster.log(joining);
    assert!(log.contains("incompatible with current running cluster"), "{}", cluster.last_words());
    Ok(())
}

/// A learner of either kind learns from a leader of the other, and is promoted by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learners_are_promoted_across() -> Result<()> {
    let Some(version) = joint_version() else { return Ok(()) };
    let mut cluster = Cluster::start(plan(&[Etcd, Cairn, Etcd])).await?;
    version_becomes(&cluster, &[0, 1, 2], &version).await?;
    for (leader, system) in [(0, Cairn), (1, Etcd)] {
        lead(&mut cluster, leader).await?;
        let learner = cluster.add(system, true).await?;
        cluster.start_member(learner)?;
        cluster.ready().await?;
        let follower = if leader == 0 { 1 } else { 2 };
        let mut client = cluster.client(&[follower]).await?;
        let id = cluster.id(learner);
        until("the learner is promoted", async || client.member_promote(id).await.ok()).await?;
        until("the learner is a voter", async || {
            cluster.status(learner).await.filter(|status| !status.is_learner())
        })
        .await?;
        lead(&mut cluster, learner).await?;
        every_kind(&mut cluster.client(&[learner]).await?, &format!("led by {learner}")).await?;
        let all: Vec<usize> = cluster.places().collect();
        cluster.same_data(&all).await?;
        same_members(&cluster, &all).await?;
    }
    Ok(())
}
