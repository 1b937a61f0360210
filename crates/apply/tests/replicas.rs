//! Members that apply the same log come to the same state, wherever each of them seals, flushes,
//! compacts, stops in good order or crashes; and an entry that is applied again after a crash comes
//! to the same outcome.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::{
    AlarmRequest, CompactionRequest, InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest,
};
use api::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use api::raftpb::ConfChange;
use apply::{Alarms, Applied, ChangeContext, Cluster, Member, Outcome, Quota, to_json};
use backend::{Table, Target};
use lease::Stored;
use mvcc::ProgressState;
use prost::Message;
use raft::{Entry, EntryKind, Index, SnapshotMeta, Term};
use support::{Rng, Stage, encode, snapshot};

/// A log with everything in it. The revisions that it names are guesses, as a client's are.
fn log(rng: &mut Rng, length: u64) -> Vec<Entry> {
    let mut log = Vec::new();
    for index in 1..=length {
        let guess = 1 + (index / 3) as i64;
        let mut kind = EntryKind::Normal;
        let mut request = InternalRaftRequest::default();
        match rng.below(24) {
            0..=5 => request.put = Some(rng.put()),
            6 | 7 => request.delete_range = Some(rng.delete()),
            8..=13 => request.txn = Some(rng.txn(guess, 2)),
            14 => request.range = Some(rng.range(guess)),
            15 | 16 => {
                request.lease_grant = Some(LeaseGrantRequest { id: 1 + rng.below(4) as i64, ttl: 900 })
            }
            17 => request.lease_revoke = Some(LeaseRevokeRequest { id: 1 + rng.below(4) as i64 }),
            18 => {
                let checkpoint = |id| LeaseCheckpoint { id, remaining_ttl: guess };
                let checkpoints = (1..4).map(checkpoint).collect();
                request.lease_checkpoint = Some(LeaseCheckpointRequest { checkpoints });
            }
            19 => {
                let revision = guess - rng.below(6) as i64;
                request.compaction = Some(CompactionRequest { revision, physical: false });
            }
            20 => {
                // Mostly lowered, so that there is something to apply.
                let (action, alarm) = (if rng.one_in(8) { 1 } else { 2 }, 1 + rng.below(2) as i32);
                request.alarm = Some(AlarmRequest { action, member_id: 1, alarm });
            }
            21 => match rng.below(3) {
                0 => request.cluster_version_set = Some(ClusterVersionSetRequest { ver: "3.7.0".into() }),
                1 => {
                    let ver = "3.6.0".to_owned();
                    request.downgrade_info_set =
                        Some(DowngradeInfoSetRequest { enabled: rng.one_in(2), ver });
                }
                _ => {
                    let attributes = Attributes { name: format!("m{index}"), client_urls: Vec::new() };
                    let member_attributes = Some(attributes);
                    let member_id = 1 + rng.below(6);
                    request.cluster_member_attr_set =
                        Some(ClusterMemberAttrSetRequest { member_id, member_attributes });
                }
            },
            22 => kind = EntryKind::ConfChange,
            _ => {}
        }
        let data = match kind {
            EntryKind::ConfChange => change(rng).encode_to_vec().into(),
            _ if request == InternalRaftRequest::default() => [].into(),
            _ => encode(request),
        };
        log.push(Entry { term: Term(1 + index / 50), index: Index(index), kind, data });
    }
    log
}

fn change(rng: &mut Rng) -> ConfChange {
    let id = 1 + rng.below(6);
    let kind = rng.below(4) as i32;
    let peer_urls = vec![format!("http://{}:2380", rng.below(20))];
    let member = Member { id, peer_urls, is_learner: kind == 3, ..Member::default() };
    let is_promote = kind == 0 && rng.one_in(3);
    let context = to_json(&ChangeContext { member, is_promote });
    ConfChange { id: Some(5), r#type: Some(kind), node_id: Some(id), context: Some(context) }
}

/// A body and what it is of.
type Snapshot = (Vec<u8>, SnapshotMeta);

/// One member living through the log without any trouble; what each entry came to there, and what it
/// sent to others now and then.
fn live_in_peace(mut stage: Stage, log: &[Entry], rng: &mut Rng) -> (Stage, Vec<Told>, Vec<Snapshot>) {
    let (mut told, mut snapshots) = (Vec::new(), Vec::new());
    for entry in log {
        told.push(Told::of(stage.machine.apply(entry, Duration::ZERO).unwrap()));
        stage.machine.seal();
        if rng.one_in(25) {
            snapshots.push(snapshot(&stage.backend));
            assert_eq!(snapshots.last().unwrap().1.index, entry.index);
        }
        if rng.one_in(10) {
            stage.store_step();
        }
    }
    (settled(stage), told, snapshots)
}

/// Everything compacted and durable.
fn settled(mut stage: Stage) -> Stage {
    stage.machine.seal();
    while stage.shared.store.compact_step(100).unwrap().state == ProgressState::More {}
    stage.backend.flush_all().unwrap();
    stage
}

/// One member living through the same log in trouble; what each entry came to that it applied itself.
fn live(
    mut stage: Stage,
    log: &[Entry],
    rng: &mut Rng,
    snapshots: &[Snapshot],
) -> (Stage, BTreeMap<usize, Told>, usize) {
    let mut told: BTreeMap<usize, Told> = BTreeMap::new();
    let mut installed = 0;
    loop {
        let at = stage.machine.applied().0.0 as usize;
        let Some(entry) = log.get(at) else { break };
        // Each member has its own clock, and some lead for a while.
        let now = Duration::from_millis(rng.below(10_000_000));
        let applied = Told::of(stage.machine.apply(entry, now).unwrap());
        if let Some(before) = told.insert(at, applied) {
            assert_eq!(told[&at], before, "entry {} came to something else", entry.index);
        }
        match rng.below(42) {
            0..=9 => stage.machine.seal(),
            10..=13 => _ = stage.backend.flush().unwrap(),
            14..=17 => stage.store_step(),
            18 => stage = stage.restart(),
            19 | 20 => stage = stage.crash().0,
            // More often than it loses that: what a member does must not depend on whether it leads.
            21 | 24..=30 => _ = stage.shared.lessor.lock().promote(Duration::ZERO, now),
            22 => stage.shared.lessor.lock().demote(),
            23 => {
                let applied = stage.machine.applied().0;
                let later = snapshots.iter().filter(|(_, meta)| meta.index > applied);
                let Some((body, meta)) = later.take(1 + rng.below(2) as usize).last() else { continue };
                installed += 1;
                let crashes = rng.one_in(3);
                if crashes {
                    // Between the log's record and the new state.
                    stage = stage.crash().0;
                    stage = stage.installed_at_start(body, meta);
                    continue;
                }
                stage.machine.install(Cursor::new(body), meta, Target::Beside).unwrap();
                let revision = stage.shared.store.current_revision();
                assert_eq!(stage.backend.consistent().index, meta.index.0);
                assert!(stage.shared.store.hash_kv(revision).is_ok());
            }
            _ => {}
        }
    }
    (settled(stage), told, installed)
}

#[derive(Debug, PartialEq)]
struct Told {
    outcome: Outcome,
    events: Option<(i64, Vec<mvcc::Event>)>,
    conf_change: Option<raft::ConfChange>,
}

impl Told {
    fn of(applied: Applied) -> Self {
        Told { outcome: applied.outcome, events: applied.events, conf_change: applied.conf_change }
    }
}

/// All there is to know of a member that the log decides.
#[derive(Debug, PartialEq)]
struct Picture {
    applied: (Index, Term),
    conf_state: raft::ConfState,
    cluster: Arc<Cluster>,
    alarms: Arc<Alarms>,
    hash: mvcc::HashKv,
    tables: Vec<(Table, Vec<u8>, Vec<u8>)>,
    leases: Vec<(Stored, Vec<Vec<u8>>)>,
}

impl Picture {
    fn of(stage: &Stage) -> Self {
        let lessor = stage.shared.lessor.lock();
        let keys = |id| lessor.keys(id).unwrap().into_iter().map(<[u8]>::to_vec).collect();
        Picture {
            applied: stage.machine.applied(),
            conf_state: stage.machine.conf_state().clone(),
            cluster: stage.shared.cluster.get(),
            alarms: stage.shared.alarms.get(),
            hash: stage.shared.store.hash_kv(0).unwrap(),
            tables: stage.tables(),
            leases: lessor.stored().into_iter().map(|lease| (lease, keys(lease.id))).collect(),
        }
    }
}

#[test]
fn replicas_do_not_part_ways() {
    let (mut effective, mut installed) = (0, 0);
    for seed in 0..25 {
        let mut rng = Rng::new(seed);
        let log = log(&mut rng, 300);
        let (a, told, snapshots) = live_in_peace(Stage::new(apply::Options::default()), &log, &mut rng);
        // The other one has a quota that every write is above: it says so, and does the same.
        let quota = Quota::from_flag(if seed % 2 == 0 { 0 } else { 1 });
        let options = apply::Options { quota, ..apply::Options::default() };
        let (b, told_by_b, installs) = live(Stage::new(options), &log, &mut rng, &snapshots);
        installed += installs;
        let context = format!("seed {seed}");
        for (at, b) in &told_by_b {
            let a = &told[*at];
            assert_eq!((&a.events, &a.conf_change), (&b.events, &b.conf_change), "{context}");
            if quota.limit() != Some(1) {
                assert_eq!(a.outcome, b.outcome, "{context}");
            }
        }
        let picture = Picture::of(&a);
        assert_eq!(Picture::of(&b), picture, "{context}");
        // And what is in memory is what a new start makes of the disk.
        assert_eq!(Picture::of(&a.restart()), picture, "{context}");
        assert_eq!(Picture::of(&b.restart()), picture, "{context}");
        effective += told.iter().filter(|told| told.outcome.is_ok()).count();
    }
    assert!(effective > 25 * 150, "only {effective} entries took effect");
    assert!(installed > 50, "only {installed} snapshots were installed");
}
