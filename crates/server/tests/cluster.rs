//! Several members in one process: elections, forwarding, snapshots, changes of members.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{LeaseGrantRequest, LeaseTimeToLiveRequest, RequestOp, TxnRequest};
use server::{ClusterState, Config, Error, StartError, cluster_id, member_id};
use support::{Place, Running, at_last, found, join, leader, put, ready, restart, until};

#[test]
fn whoever_is_asked_all_answer_alike() {
    let directory = tempfile::tempdir().unwrap();
    let members = found(directory.path(), &["a", "b", "c"]);
    let ids: Vec<u64> = members
        .iter()
        .map(|running| member_id(std::slice::from_ref(&running.place.url), "etcd-cluster"))
        .collect();
    for (running, id) in members.iter().zip(&ids) {
        assert_eq!(running.id(), *id);
        assert_eq!(running.member().cluster_id(), cluster_id(&ids));
    }
    for (number, running) in members.iter().enumerate() {
        let value = number.to_string();
        running.put("k", &value).unwrap();
        for other in &members {
            assert_eq!(other.get("k").unwrap().as_deref(), Some(value.as_str()), "by {}", other.place.name);
        }
    }
    // What each of them has told of itself is known to all, and so is the version of the cluster.
    for running in &members {
        until("all are introduced", || {
            let cluster = running.member().cluster();
            cluster.members.values().all(|member| !member.client_urls.is_empty())
        });
        until("the cluster has a version", || {
            running.member().cluster().version.as_deref() == Some(server::CLUSTER_VERSION)
        });
    }
    for running in members {
        running.stop();
    }
}

#[test]
fn a_leader_that_stops_hands_over_and_comes_back_as_a_follower() {
    let directory = tempfile::tempdir().unwrap();
    let mut members = found(directory.path(), &["a", "b", "c"]);
    for round in 0..3 {
        let at = leader(&members);
        let stopped = members.remove(at).stop();
        let began = Instant::now();
        let value = format!("{round}");
        members[0].put("k", &value).unwrap();
        let took = began.elapsed();
        // Were its silence noticed instead, this would take an election timeout at least.
        assert!(took < Duration::from_millis(300), "writes resumed after {took:?}");
        let term = members[0].member().raft().term();
        members.push(restart(&stopped));
        ready(&members);
        assert_eq!(members[2].get("k").unwrap(), Some(value));
        assert_eq!(members[0].member().raft().term(), term, "who comes back disturbs nobody");
    }
    for running in members {
        running.stop();
    }
}

/// Nobody leads, so nothing can have entered a log: requests wait, and are carried out once.
#[test]
fn what_entered_nobody_s_log_waits_for_a_leader() {
    let directory = tempfile::tempdir().unwrap();
    let mut members = found(directory.path(), &["a", "b", "c"]);
    members[0].put("k", "0").unwrap();
    let others: Vec<Place> = members.split_off(1).into_iter().map(Running::stop).collect();
    let alone = &members[0];
    until("it knows that nobody leads", || alone.member().raft().leader() == 0);
    let before = alone.member().store().current_revision();
    let waiting: Vec<_> = (0..10)
        .map(|number| {
            let request = put(&format!("w{number}"), "x");
            alone.begin(move |member| async move { member.propose(request).await })
        })
        .collect();
    let reading = alone.begin(|member| async move { member.linearize().await });
    let back = restart(&others[0]);
    for answer in waiting {
        answer.recv_timeout(support::PATIENCE).unwrap().unwrap().unwrap();
    }
    reading.recv_timeout(support::PATIENCE).unwrap().unwrap();
    assert_eq!(alone.member().store().current_revision(), before + 10, "each of them once");
    back.stop();
    for running in members {
        running.stop();
    }
}

#[test]
fn without_a_quorum_requests_time_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut members = found(directory.path(), &["a", "b", "c"]);
    let rest = members.split_off(1);
    for running in rest {
        running.stop();
    }
    let alone = members.pop().unwrap();
    until("it knows that nobody leads", || alone.member().raft().leader() == 0);
    let began = Instant::now();
    let writing = alone.begin(|member| async move { member.propose(put("k", "1")).await.map(|_| ()) });
    let reading = alone.begin(|member| async move { member.linearize().await });
    assert_eq!(writing.recv_timeout(support::PATIENCE).unwrap(), Err(Error::Timeout));
    assert_eq!(reading.recv_timeout(support::PATIENCE).unwrap(), Err(Error::Timeout));
    assert!(began.elapsed() >= alone.member().config().request_timeout());
    alone.stop();
}

#[test]
fn leadership_goes_where_it_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let members = found(directory.path(), &["a", "b", "c"]);
    for running in &members {
        let (at, to) = (leader(&members), running.id());
        if members[at].id() == to {
            continue;
        }
        members[at].member().transfer_leader(to);
        for other in &members {
            until("all follow the new one", || other.member().raft().leader() == to);
        }
        members[at].put("k", "v").unwrap();
    }
    for running in members {
        running.stop();
    }
}

/// What a follower passes on while leadership is on its way arrives at whoever leads next: none of it
/// is lost, or a client would wait until its request times out.
#[test]
fn nothing_is_lost_on_the_way_to_a_leader_that_hands_over() {
    const MOVES: usize = 30;
    let directory = tempfile::tempdir().unwrap();
    let members = found(directory.path(), &["a", "b", "c"]);
    let (asked, rest) = members.split_first().unwrap();
    let moved = Arc::new(AtomicBool::new(false));
    let slowest = {
        let moved = Arc::clone(&moved);
        asked.begin(move |member| async move {
            let mut slowest = Duration::ZERO;
            while !moved.load(Ordering::Acquire) {
                let began = Instant::now();
                member.propose(put("k", "v")).await.unwrap().unwrap();
                slowest = slowest.max(began.elapsed());
            }
            slowest
        })
    };
    for turn in 0..MOVES {
        let to = rest[turn % 2].id();
        until("it leads", || {
            // Who has just been elected does not hand over before it has been told so again.
            members[leader(&members)].member().transfer_leader(to);
            asked.member().raft().leader() == to
        });
    }
    moved.store(true, Ordering::Release);
    let slowest = slowest.recv_timeout(support::PATIENCE).unwrap();
    assert!(slowest < Duration::from_secs(3), "one request took {slowest:?}");
    for running in members {
        running.stop();
    }
}

/// How many times a histogram of a member has been moved.
fn samples(running: &Running, name: &str) -> u64 {
    let text = String::from_utf8(server::scrape(running.member())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}_count ")));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// The bytes that push a segment of the log out.
const MUCH: usize = 70;

/// A member that has missed more than the log holds is sent the state instead, and once: the next one
/// would be made while it still looks through the first, if that counted as arrived. While it takes the
/// state in, it hears its leader and answers from the old one. It goes on from there, and ends up with the
/// same data.
#[test]
fn a_member_that_missed_too_much_is_sent_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let (places, listeners): (Vec<_>, Vec<_>) =
        ["a", "b", "c"].iter().map(|name| Place::new(directory.path(), name)).unzip();
    let start = |place: &Place, listener| {
        // Another leader would make another snapshot, as would the same one after a dial that was given up.
        let election_timeout = Duration::from_secs(2);
        let config =
            Config { snapshot_count: 10, catchup_entries: 5, election_timeout, ..place.config(&places) };
        Running::start(place, listener, config).unwrap()
    };
    let mut members: Vec<Running> =
        places.iter().zip(listeners).map(|(place, listener)| start(place, listener)).collect();
    ready(&members);
    let at = (leader(&members) + 1) % 3;
    members[at].put("before", "1").unwrap();
    let missing = members.remove(at).stop();
    // It takes its time to look through so many.
    for number in 0..400 {
        let puts = (0..128).map(|at| put(&format!("r{number}/{at}"), "x")).map(Request::RequestPut);
        let success = puts.map(|put| RequestOp { request: Some(put) }).collect();
        let rows = TxnRequest { success, ..TxnRequest::default() };
        members[0].run(|member| async move { member.propose(rows).await }).unwrap().unwrap();
    }
    let big = "x".repeat(1 << 20);
    for number in 0..MUCH {
        members[0].put(&format!("k{}", number % 7), &format!("{number}{big}")).unwrap();
    }
    // The log lets go of what redb holds, and that is flushed every few seconds. Each flush is noted that
    // comes so and so many entries after the one before.
    for running in &members {
        until("the log has let go of its first segment", || {
            running.put("small", "x").unwrap();
            let first = std::fs::read_dir(running.member().config().wal_dir()).unwrap();
            !first.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("0000000000000000-"))
        });
    }
    let back = start(&missing, missing.listen());
    let installing = || back.member().metrics().snapshot_installs.get() > 0;
    until("it takes the state in", installing);
    let (term, mut answers) = (back.member().raft().term(), 0);
    while installing() {
        let read = support::find(back.member(), "before");
        let picture = back.member().raft_picture();
        assert_eq!(read.as_deref(), Some("1"));
        assert_eq!(
            (picture.hard_state.term.0, picture.leader.is_some()),
            (term, true),
            "it hears its leader"
        );
        answers += u32::from(installing());
    }
    assert!(answers >= 20, "{answers} answers while it took the state in");
    let revision = members[0].member().store().current_revision();
    until("it has caught up", || back.member().store().current_revision() == revision);
    let received: u64 = back.member().peers().status().iter().map(|peer| peer.snapshots_received).sum();
    let made: u64 =
        members.iter().map(|running| running.member().metrics().backend_snapshot.get_sample_count()).sum();
    let terms = (term, back.member().raft().term());
    assert_eq!((made, received), (1, 1), "snapshots, made and received; from and to term {terms:?}");
    for name in ["etcd_snap_db_fsync_duration_seconds", "etcd_snap_db_save_total_duration_seconds"] {
        assert_eq!((samples(&back, name), samples(&members[0], name)), (1, 0), "{name}");
    }
    for name in [
        "etcd_snap_fsync_duration_seconds",
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        "etcd_debugging_snap_save_total_duration_seconds",
    ] {
        assert!(samples(&members[0], name) > 0, "{name}: the log was let go of, so that was noted");
    }
    back.put("after", "1").unwrap();
    let hash = |running: &Running| running.member().store().hash_kv(0).unwrap();
    let all: Vec<&Running> = members.iter().chain([&back]).collect();
    for running in &all {
        until("it has what was written last", || support::find(running.member(), "after").is_some());
    }
    assert_eq!(hash(all[0]).hash, hash(all[2]).hash);
    assert_eq!(hash(all[1]).hash, hash(all[2]).hash);
    let left = std::fs::read_dir(back.member().config().snapshot_dir()).unwrap().count();
    assert_eq!(left, 0, "what was installed is not kept");
    // And it starts again from what it was sent.
    let place = back.stop();
    let again = restart(&place);
    assert_eq!(again.get("after").unwrap().as_deref(), Some("1"));
    again.stop();
    for running in members {
        running.stop();
    }
}

#[test]
fn a_member_joins_is_promoted_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut members = found(directory.path(), &["a", "b", "c"]);
    members[0].put("k", "1").unwrap();
    let (place, listener) = Place::new(directory.path(), "d");
    let url = place.url.clone();
    let at = leader(&members);
    let (added, _) = members[at].run(move |member| async move {
        let (member, url) = (&member, &[url]);
        at_last("connections that have lasted for a while, or the cluster counts as sick", || async {
            let added = member.add_member(url, true).await;
            added.inspect_err(|error| assert_eq!(*error, server::ChangeError::Unhealthy)).ok()
        })
        .await
    });
    let mut cluster: Vec<Place> = members.iter().map(|running| running.place.clone()).collect();
    cluster.push(place.clone());
    let joined = join(&place, listener, &cluster).unwrap();
    assert_eq!(joined.id(), added.id);
    until("it has the log", || support::find(joined.member(), "k").is_some());
    until("it knows that it is a learner", || joined.member().is_learner());
    let id = joined.id();
    let at = leader(&members);
    members[at].run(move |member| async move {
        let member = &member;
        at_last("the learner to keep up", || async {
            let promoted = member.promote_member(id, None).await;
            promoted.inspect_err(|error| assert_eq!(*error, server::ChangeError::LearnerNotReady)).ok()
        })
        .await
    });
    until("it knows of its vote", || !joined.member().is_learner());
    members.push(joined);
    members[3].put("k", "2").unwrap();

    let gone = members.pop().unwrap();
    members[0].run(move |member| async move { member.remove_member(id).await.unwrap() });
    gone.run(|member| async move { member.removed().await });
    let place = gone.stop();
    match Running::start(&place, place.listen(), place.config(&[])) {
        Err(error) => assert!(matches!(error, StartError::Removed(removed) if removed == id), "{error}"),
        // It heard of it from its peers before the log said so, and does again.
        Ok(running) => {
            running.run(|member| async move { member.removed().await });
            running.stop();
        }
    }
    members[1].put("k", "3").unwrap();
    for running in members {
        running.stop();
    }
}

/// The leader takes one change of members at a time; those who ask by way of a follower at the same moment
/// are answered all the same, as soon as it is their turn.
#[test]
fn changes_of_members_at_one_moment_are_all_answered() {
    const ROUNDS: usize = 20;
    let directory = tempfile::tempdir().unwrap();
    let members = found(directory.path(), &["a", "b", "c"]);
    let at = leader(&members);
    let followers: Vec<&Running> =
        members.iter().filter(|running| running.id() != members[at].id()).collect();
    for _ in 0..ROUNDS {
        let asked: Vec<_> = followers
            .iter()
            .map(|running| {
                let (id, url) = (running.id(), running.place.url.clone());
                running.begin(move |member| async move { member.update_member(id, &[url]).await.map(|_| ()) })
            })
            .collect();
        for answer in asked {
            // One that is dropped is not answered until its request times out.
            assert_eq!(answer.recv_timeout(support::PATIENCE).unwrap(), Ok(()));
        }
    }
    for running in members {
        running.stop();
    }
}

#[test]
fn a_leader_that_is_removed_is_not_missed_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let mut members = found(directory.path(), &["a", "b", "c"]);
    let at = leader(&members);
    let removed = members.remove(at);
    let id = removed.id();
    removed.run(move |member| async move {
        let member = &member;
        at_last("connections that have lasted for a while", || async {
            let removed = member.remove_member(id).await;
            removed.inspect_err(|error| assert_eq!(*error, server::ChangeError::Unhealthy)).ok()
        })
        .await
    });
    let began = Instant::now();
    for running in &members {
        until("there is another leader", || ![0, id].contains(&running.member().raft().leader()));
    }
    let took = began.elapsed();
    // Were its silence noticed instead, this would take an election timeout at least.
    assert!(took < Duration::from_millis(300), "there was none for {took:?}");
    members[0].put("k", "v").unwrap();
    removed.run(|member| async move { member.removed().await });
    removed.stop();
    for running in members {
        running.stop();
    }
}

/// What a lease has left is noted now and then, and a restart goes on from the last note (L5); a renewal
/// takes the note back.
#[test]
fn a_checkpoint_keeps_a_restart_from_extending_a_lease() {
    const TTL: i64 = 1_000;
    const KEPT: i64 = 1;
    const RENEWED: i64 = 2;
    let directory = tempfile::tempdir().unwrap();
    let (place, listener) = Place::new(directory.path(), "a");
    let places = [place.clone()];
    let start = |listener| {
        let config = Config { checkpoint_interval: Duration::from_secs(1), ..place.config(&places) };
        let running = Running::start(&place, listener, config).unwrap();
        ready(std::slice::from_ref(&running));
        running
    };
    let noted = |running: &Running, id| {
        let stored = running.member().lessor().lock().stored();
        stored.into_iter().find(|lease| lease.id.0 == id).unwrap().remaining_ttl
    };
    let running = start(listener);
    for id in [KEPT, RENEWED] {
        let grant = LeaseGrantRequest { id, ttl: TTL };
        running.run(move |member| async move { member.propose(grant).await }).unwrap().unwrap();
    }
    for id in [KEPT, RENEWED] {
        until("two seconds of it are noted to be over", || (1..=TTL - 2).contains(&noted(&running, id)));
    }
    let renewed = running.run(|member| async move { member.renew_lease(RENEWED).await });
    assert_eq!(renewed.unwrap(), TTL);
    assert_eq!(noted(&running, RENEWED), 0);
    running.stop();
    let running = start(place.listen());
    let left = |id| {
        let request = LeaseTimeToLiveRequest { id, keys: false };
        let answer =
            running.run(move |member| async move { member.lease_time_to_live(request).await }).unwrap();
        assert_eq!(answer.granted_ttl, TTL);
        answer.ttl
    };
    // A new leader adds an election timeout, and what is left is told in whole seconds.
    let (kept, renewed) = (left(KEPT), left(RENEWED));
    assert!((1..=TTL - 1).contains(&kept), "{kept} s left of a lease that had less than {TTL} s");
    assert!(renewed > kept, "{renewed} s left of a lease that was renewed, {kept} s of the other one");
    running.stop();
}

#[test]
fn an_empty_disk_under_a_known_id_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut members = found(directory.path(), &["a", "b", "c"]);
    let cluster: Vec<Place> = members.iter().map(|running| running.place.clone()).collect();
    let lost = members.remove(2);
    let id = lost.id();
    until("the others know of it", || {
        let known = members[0].member().cluster();
        known.members.get(&id).is_some_and(|member| !member.client_urls.is_empty())
    });
    until("the cluster has a version", || members[0].member().cluster().version.is_some());
    let place = lost.stop();
    std::fs::remove_dir_all(&place.data_dir).unwrap();
    let refused = |state| {
        let config = Config { cluster_state: state, ..place.config(&cluster) };
        Running::start(&place, place.listen(), config).err().unwrap().to_string()
    };
    let words = format!("member {id:x} has already been bootstrapped");
    assert_eq!(refused(ClusterState::New), words);
    assert!(refused(ClusterState::Existing).starts_with(&words));
    let (stranger, listener) = Place::new(directory.path(), "d");
    let error = join(&stranger, listener, &[cluster, vec![stranger.clone()]].concat()).err().unwrap();
    assert!(error.to_string().ends_with(": member count is unequal"), "{error}");
    for running in members {
        running.stop();
    }
}

#[test]
fn one_of_three_goes_on_alone() {
    let directory = tempfile::tempdir().unwrap();
    let members = found(directory.path(), &["a", "b", "c"]);
    members[0].put("k", "1").unwrap();
    let places: Vec<Place> = members.into_iter().map(Running::stop).collect();
    let forced = |place: &Place| {
        let config = Config { force_new_cluster: true, ..place.config(&[]) };
        Running::start(place, place.listen(), config).unwrap()
    };
    for _ in 0..2 {
        let alone = forced(&places[1]);
        ready(std::slice::from_ref(&alone));
        assert_eq!(alone.get("k").unwrap().as_deref(), Some("1"));
        until("the others are gone", || alone.member().cluster().members.len() == 1);
        assert_eq!(alone.member().cluster().voters(), [alone.id()]);
        alone.stop();
    }
    let alone = restart(&places[1]);
    alone.put("k", "2").unwrap();
    assert_eq!(alone.get("k").unwrap().as_deref(), Some("2"));
    alone.stop();
}
