//! Whether all members hold the same data: three looks at it, which are etcd's.
//!
//! | check | when | by whom | if members differ |
//! |---|---|---|---|
//! | initial | before clients are served, if the gate `InitialCorruptCheck` is on | a member that starts with data | it does not start |
//! | periodic | every `--corrupt-check-time` | the leader | the alarm `CORRUPT` |
//! | of compactions | every `--compact-hash-check-time`, unless the gate `CompactHashCheck` is off | the leader | the alarm `CORRUPT` |
//!
//! The first two hash all that is stored, on every member, when they look. The third looks at what each
//! member hashed when it last compacted: the compactor walks the rows of what it is about to compact, so a
//! member that compacts every five minutes reads its store once in that time, at the lowest urgency.
//!
//! Blame goes by majority (`verdict`). etcd does so over compactions alone; its periodic check takes the
//! leader's word, and names a follower where the leader is the damaged one; and its initial check keeps
//! healthy members from starting as well, as long as they are contradicted by anybody.

mod told;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmRequest, AlarmType};
use mvcc::ReadError;

use crate::member::Member;
use told::{Silence, Told};
use verdict::{Compared, Damaged, Looks};

/// How long to wait before members that did not answer are asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// Looks while this member leads, until it stops.
pub(crate) async fn monitor(member: &Arc<Member>) {
    tokio::join!(current_data(member), compactions(member));
}

async fn current_data(member: &Arc<Member>) {
    let interval = member.config().corrupt_check;
    if interval.is_zero() {
        return;
    }
    tracing::info!(
        "local-member-id" = format!("{:x}", member.id()),
        interval = ?interval,
        "enabled corruption checking"
    );
    loop {
        tokio::time::sleep(interval).await;
        if member.raft().is_leader()
            && let Err(error) = check_current_data(member).await
        {
            tracing::warn!(error, "failed to check hash KV");
        }
    }
}

async fn check_current_data(member: &Arc<Member>) -> Result<(), String> {
    let words = |error: ReadError| error.to_string();
    let (first, _) = member.hash_at(0).await.map_err(words)?;
    let told = member.ask_hashes(first.revision).await;
    // Whatever the others had applied when they answered, this member has by now.
    member.linearize().await.map_err(|error| error.to_string())?;
    let (second, current_revision) = member.hash_at(0).await.map_err(words)?;
    let looks = Looks { first, second, current_revision };
    let damaged = verdict::of_current_data(member.id(), &looks, &told);
    raise(member, &damaged).await;
    let checked = told.iter().filter(|other| other.answer.is_ok()).count();
    tracing::info!("number-of-peers-checked" = checked, "finished peer corruption check");
    Ok(())
}

async fn compactions(member: &Arc<Member>) {
    if !member.config().compact_hash_check {
        return;
    }
    let mut known = Known::default();
    loop {
        tokio::time::sleep(member.config().compact_hash_check_time).await;
        if member.raft().is_leader() {
            check_compactions(member, &mut known).await;
        }
    }
}

/// What the looks before have come to.
#[derive(Default)]
struct Known {
    /// The compactions up to here are good.
    good: i64,
    /// How many of the last looks found members that differ, and not enough of them to tell who is damaged.
    doubtful: u32,
}

/// So many looks wait for the members that have not compacted as far yet, before all are called damaged.
const PATIENT_LOOKS: u32 = 3;

/// Looks at compactions from the latest to the oldest, until all members can be compared at one.
async fn check_compactions(member: &Arc<Member>, known: &mut Known) {
    let hashes = member.store().compacted_hashes();
    let unchecked = hashes.iter().rev().take_while(|hash| hash.revision > known.good);
    let doubtful = std::mem::take(&mut known.doubtful);
    let mut number = 0;
    for hash in unchecked {
        let told = member.ask_hashes(hash.revision).await;
        if told.is_empty() {
            return;
        }
        number += 1;
        match verdict::of_compaction(member.id(), hash, &told) {
            Compared::Incomplete => continue,
            Compared::Equal => {
                tracing::info!(
                    "number-of-peers-checked" = told.len(),
                    revision = hash.revision,
                    compactRevision = hash.compact_revision,
                    "successfully checked hash on whole cluster"
                );
                known.good = known.good.max(hash.revision);
            }
            // Whoever has not compacted that far yet will have soon.
            Compared::Doubtful if doubtful < PATIENT_LOOKS => known.doubtful = doubtful + 1,
            Compared::Doubtful => raise(member, &Damaged::from([verdict::ANYBODY])).await,
            Compared::Different(damaged) => raise(member, &damaged).await,
        }
        break;
    }
    if number > 0 {
        tracing::info!("number-of-hashes-checked" = number, "finished compaction hash check");
    }
}

/// Has all members heed that the data of these is damaged.
async fn raise(member: &Arc<Member>, damaged: &Damaged) {
    for id in damaged.iter().filter(|id| !member.is_called_corrupt(**id)) {
        let alarm = AlarmRequest {
            member_id: *id,
            action: AlarmAction::Activate.into(),
            alarm: AlarmType::Corrupt.into(),
        };
        if let Err(error) = member.propose(alarm).await {
            // It is found again at the next look.
            tracing::warn!("member-id" = format!("{id:x}"), %error, "failed to raise the alarm CORRUPT");
        }
    }
}

/// Compares this member's data with all others', before it serves anybody.
///
/// # Errors
/// Another member holds something else, and this one has no majority on its side, in etcd's words; or the
/// store cannot be read.
pub(crate) async fn initial(member: &Arc<Member>) -> Result<(), String> {
    let id = format!("{:x}", member.id());
    let timeout = member.request_timeout();
    tracing::info!("local-member-id" = id, timeout = ?timeout, "starting initial corruption check");
    let hash = member.hash_at(0).await;
    let (hash, _) = hash.map_err(|error| format!("{id} failed to fetch hash ({error})"))?;
    let until = Instant::now() + timeout;
    let told = loop {
        let told = member.ask_hashes(hash.revision).await;
        // Whoever starts at the same moment cannot be asked yet, and may be on this one's side.
        let may_yet_tell = told.iter().any(|other| matches!(other.answer, Err(Silence::Failed(_))));
        if !verdict::is_doubtful(&hash, &told) || !may_yet_tell || Instant::now() > until {
            break told;
        }
        tokio::time::sleep(AGAIN).await;
    };
    for Told { id: other, answer } in &told {
        let words = match answer {
            Ok(answer) if answer.hash == hash.hash => continue,
            Ok(answer) if answer.compact_revision == hash.compact_revision => {
                "found different hash values from remote peer"
            }
            Ok(_) => "found different compact revision values from remote peer",
            Err(Silence::Future) => "cannot fetch hash from slow remote peer",
            Err(Silence::Compacted) => "cannot fetch hash from remote peer; local member is behind",
            Err(Silence::OtherCluster) => "cluster ID mismatch",
            Err(Silence::Failed(_)) => continue,
        };
        let answer = answer.as_ref().ok();
        tracing::warn!(
            "local-member-id" = id,
            "local-member-revision" = hash.revision,
            "local-member-compact-revision" = hash.compact_revision,
            "local-member-hash" = hash.hash,
            "remote-peer-id" = format!("{other:x}"),
            "remote-peer-revision" = answer.map(|answer| answer.current_revision),
            "remote-peer-compact-revision" = answer.map(|answer| answer.compact_revision),
            "remote-peer-hash" = answer.map(|answer| answer.hash),
            "{words}"
        );
    }
    if verdict::is_doubtful(&hash, &told) {
        return Err(format!("{id} found data inconsistency with peers"));
    }
    tracing::info!("local-member-id" = id, "initial corruption checking passed; no corruption");
    Ok(())
}
