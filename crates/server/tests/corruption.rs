//! Members whose data is damaged are found, and named: by each of the three checks, whoever leads.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::Duration;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmRequest, AlarmType, CompactionRequest};
use apply::Rejection;
use server::Config;
use support::{Running, found_with, leader, put, ready, until};

/// How often the checks look here.
const OFTEN: Duration = Duration::from_millis(50);

fn quiet(config: Config) -> Config {
    Config { compact_hash_check: false, ..config }
}

/// Three members at revision 4, of which the one at `damaged` has lost the version of revision 3: as a disk
/// might have it, below everything that the log watches over. Its readers do not notice.
fn cluster(
    directory: &Path,
    damaged: impl Fn(usize) -> usize,
    settings: fn(Config) -> Config,
) -> (Vec<Running>, usize) {
    let members = found_with(directory, &["a", "b", "c"], settings);
    let leads = leader(&members);
    for value in ["1", "2", "3"] {
        members[leads].put("key", value).unwrap();
    }
    for running in &members {
        until("the member has what was put", || running.member().store().current_revision() == 4);
    }
    let damaged = damaged(leads);
    damage(&members[damaged]);
    (members, damaged)
}

fn damage(running: &Running) {
    let backend = running.member().backend();
    backend.delete_rows(vec![backend::row_key(3, 0)]);
    backend.flush_all().unwrap();
}

fn alarms(running: &Running) -> Vec<u64> {
    running.member().alarms().get(AlarmType::Corrupt.into()).map(|alarm| alarm.member_id).collect()
}

/// Waits until all members know of the alarm, which names `id`, and checks what it means.
fn alarmed(members: &[Running], id: u64) {
    for running in members {
        until("the alarm is known", || !alarms(running).is_empty());
        assert_eq!(alarms(running), [id], "of {:?}", members.iter().map(Running::id).collect::<Vec<_>>());
    }
    let refused = |running: &Running| {
        let request = put("key", "4");
        running.run(|member| async move { member.propose(request).await.unwrap().map(|_| ()) })
    };
    for running in members {
        assert_eq!(refused(running), Err(Rejection::Corrupt));
        assert_eq!(running.get("key").unwrap().as_deref(), Some("3"), "reads are answered, as in etcd");
    }
}

fn checks_compactions(config: Config) -> Config {
    Config { compact_hash_check: true, compact_hash_check_time: 10 * OFTEN, ..config }
}

fn compact(running: &Running, revision: i64) {
    running.run(move |member| async move {
        let request = CompactionRequest { revision, ..CompactionRequest::default() };
        member.propose(request).await.unwrap().unwrap();
        member.wake_compactor();
    });
}

#[test]
fn a_compaction_shows_which_follower_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let (members, damaged) = cluster(directory.path(), |leads| (leads + 1) % 3, checks_compactions);
    compact(&members[leader(&members)], 4);
    alarmed(&members, members[damaged].id());
    // The alarm is taken back by whoever has looked after it, and raised again only by a new compaction.
    let id = members[damaged].id();
    let disarm = AlarmRequest {
        member_id: id,
        action: AlarmAction::Deactivate.into(),
        alarm: AlarmType::Corrupt.into(),
    };
    let healthy = &members[leader(&members)];
    let answer = healthy.run(move |member| async move { member.propose(disarm).await.unwrap().map(|_| ()) });
    assert_eq!(answer, Ok(()));
    members.into_iter().for_each(|running| _ = running.stop());
}

#[test]
fn a_compaction_shows_that_the_leader_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let (members, damaged) = cluster(directory.path(), |leads| leads, checks_compactions);
    compact(&members[damaged], 4);
    alarmed(&members, members[damaged].id());
    members.into_iter().for_each(|running| _ = running.stop());
}

/// Members that agree raise no alarm, however often they look; nor do such that compacted at different times.
#[test]
fn members_that_agree_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let settings = |config| Config { corrupt_check: OFTEN, ..checks_compactions(config) };
    let members = found_with(directory.path(), &["a", "b", "c"], settings);
    let leads = leader(&members);
    for round in 0..20_i64 {
        let revision = members[leads].put("key", &round.to_string()).unwrap();
        if round % 4 == 3 {
            compact(&members[leads], revision - 1);
        }
    }
    let hashed = |running: &Running| running.member().store().compacted_hashes();
    until("what is compacted was hashed", || !hashed(&members[leads]).is_empty());
    let looked =
        || members.iter().map(|running| running.member().metrics().hash_rev.get_sample_count()).sum::<u64>();
    let before = looked();
    until("members have looked some more", || looked() >= before + 15);
    for running in &members {
        assert_eq!(alarms(running), [0_u64; 0]);
    }
    members.into_iter().for_each(|running| _ = running.stop());
}

#[test]
fn the_periodic_check_names_a_follower_and_a_leader() {
    for offset in [0, 1] {
        let directory = tempfile::tempdir().unwrap();
        let settings = |config| Config { corrupt_check: OFTEN, ..quiet(config) };
        let (members, damaged) = cluster(directory.path(), |leads| (leads + offset) % 3, settings);
        alarmed(&members, members[damaged].id());
        members.into_iter().for_each(|running| _ = running.stop());
    }
}

#[test]
fn a_damaged_member_does_not_start_beside_healthy_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (mut members, damaged) = cluster(directory.path(), |leads| (leads + 1) % 3, quiet);
    let place = members.remove(damaged).stop();
    let checking =
        |place: &support::Place| Config { initial_corrupt_check: true, ..quiet(place.config(&[])) };
    let mut started = Running::start(&place, place.listen(), checking(&place)).unwrap();
    let id = started.id();
    let words = "found data inconsistency with peers";
    assert_eq!(started.failure(), format!("the initial corruption check thread failed: {id:x} {words}"));
    started.give_up();
    // A healthy one starts where the other healthy one is all that answers.
    let place = members.remove(0).stop();
    let started = Running::start(&place, place.listen(), checking(&place)).unwrap();
    members.push(started);
    ready(&members);
    assert_eq!(members[1].get("key").unwrap().as_deref(), Some("3"));
    members.into_iter().for_each(|running| _ = running.stop());
}

/// Members that all start at the same moment answer each other before they serve.
#[test]
fn members_that_start_together_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let (members, damaged) = cluster(directory.path(), |leads| (leads + 1) % 3, quiet);
    let places: Vec<_> = members.into_iter().map(Running::stop).collect();
    let begin = |place: &support::Place| {
        let config = Config { initial_corrupt_check: true, ..quiet(place.config(&[])) };
        Running::start(place, place.listen(), config).unwrap()
    };
    let mut started: Vec<Running> = places.iter().map(begin).collect();
    let mut alone = started.remove(damaged);
    assert!(alone.failure().contains("found data inconsistency with peers"));
    alone.give_up();
    ready(&started);
    until("reads are answered", || started[0].get("key") == Ok(Some("3".to_owned())));
    started.into_iter().for_each(|running| _ = running.stop());
}
