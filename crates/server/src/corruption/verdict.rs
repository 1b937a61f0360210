//! What follows from hashes. Pure, so that every case can be shown.
//!
//! Hashes are comparable only at one revision, over one compacted revision. Of members that differ, those are
//! damaged that do not agree with a majority of all; without a majority nobody can tell, and the alarm names
//! member 0, which stands for all of them (etcd's number).

use std::collections::{BTreeMap, BTreeSet};

use mvcc::HashKv;

use super::told::{Answer, Told};

/// What an alarm names where it cannot be told whose data is damaged.
pub(crate) const ANYBODY: u64 = 0;

/// Members that are damaged.
pub(crate) type Damaged = BTreeSet<u64>;

/// The member's own two looks, one before the others were asked and one behind a read round after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    pub(crate) first: HashKv,
    pub(crate) second: HashKv,
    /// The revision that the member was at when it looked again.
    pub(crate) current_revision: i64,
}

/// Whose data contradicts the leader's `own` two looks, or a majority.
pub(crate) fn of_current_data(own: u64, looks: &Looks, told: &[Told]) -> Damaged {
    let Looks { first, second, current_revision } = *looks;
    let mut damaged = Damaged::new();
    if first.hash != second.hash
        && (first.revision, first.compact_revision) == (second.revision, second.compact_revision)
    {
        tracing::warn!(
            "revision-1" = first.revision,
            "compact-revision-1" = first.compact_revision,
            "hash-1" = first.hash,
            "revision-2" = second.revision,
            "compact-revision-2" = second.compact_revision,
            "hash-2" = second.hash,
            "found hash mismatch"
        );
        return Damaged::from([own]);
    }
    for (id, answer) in answers(told) {
        if answer.current_revision > current_revision {
            tracing::warn!(
                "leader-revision" = current_revision,
                "follower-revision" = answer.current_revision,
                "follower-peer-id" = format!("{id:x}"),
                "revision from follower must be less than or equal to leader's"
            );
            damaged.insert(id);
        }
        if answer.compact_revision > second.compact_revision {
            tracing::warn!(
                "leader-compact-revision" = second.compact_revision,
                "follower-compact-revision" = answer.compact_revision,
                "follower-peer-id" = format!("{id:x}"),
                "compact revision from follower must be less than or equal to leader's"
            );
            damaged.insert(id);
        }
        if answer.compact_revision == first.compact_revision && answer.hash != first.hash {
            tracing::warn!(
                "leader-compact-revision" = first.compact_revision,
                "leader-hash" = first.hash,
                "follower-compact-revision" = answer.compact_revision,
                "follower-hash" = answer.hash,
                "follower-peer-id" = format!("{id:x}"),
                "same compact revision then hashes must match"
            );
        }
    }
    damaged.extend(minority(own, &first, told));
    damaged
}

/// What comparing the hash of a compaction has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// All members have the same.
    Equal,
    /// Those who answered have the same, but not all did.
    Incomplete,
    /// Some differ, and with those who did not answer it may yet turn out who is damaged.
    Doubtful,
    /// These members do not.
    Different(Damaged),
}

/// Compares what a compaction began from.
pub(crate) fn of_compaction(own: u64, hash: &HashKv, told: &[Told]) -> Compared {
    for other in told {
        let reason = match &other.answer {
            Err(_) => "no response".to_owned(),
            Ok(answer) if answer.compact_revision != hash.compact_revision => format!(
                "the peer's CompactRevision {} doesn't match leader's CompactRevision {}",
                answer.compact_revision, hash.compact_revision
            ),
            Ok(_) => continue,
        };
        tracing::debug!(
            "leader-id" = format!("{own:x}"),
            "peer-id" = format!("{:x}", other.id),
            reason,
            "Skipped peer's hash"
        );
    }
    let damaged = minority(own, hash, told);
    let is_complete = comparable(hash, told).count() == told.len();
    match (damaged.is_empty(), is_complete) {
        (true, true) => Compared::Equal,
        (true, false) => Compared::Incomplete,
        (false, false) if damaged.contains(&ANYBODY) => Compared::Doubtful,
        (false, _) => Compared::Different(damaged),
    }
}

/// Whether somebody holds something else at the same revision, over the same compacted one, and no majority
/// holds the same.
pub(crate) fn is_doubtful(hash: &HashKv, told: &[Told]) -> bool {
    let same = 1 + comparable(hash, told).filter(|(_, answer)| answer.hash == hash.hash).count();
    let differ = comparable(hash, told).any(|(_, answer)| answer.hash != hash.hash);
    differ && same < quorum(told)
}

/// How many members are a majority of all.
fn quorum(told: &[Told]) -> usize {
    let members = told.len() + 1;
    members / 2 + 1
}

fn answers(told: &[Told]) -> impl Iterator<Item = (u64, Answer)> + '_ {
    told.iter().filter_map(|other| Some((other.id, *other.answer.as_ref().ok()?)))
}

fn comparable<'a>(hash: &HashKv, told: &'a [Told]) -> impl Iterator<Item = (u64, Answer)> + 'a {
    let compact_revision = hash.compact_revision;
    answers(told).filter(move |(_, answer)| answer.compact_revision == compact_revision)
}

/// Who has not what the majority of all members has; [`ANYBODY`] where members differ without a majority.
fn minority(own: u64, hash: &HashKv, told: &[Told]) -> Damaged {
    let mut members: BTreeMap<u32, Damaged> = BTreeMap::from([(hash.hash, Damaged::from([own]))]);
    for (id, answer) in comparable(hash, told) {
        members.entry(answer.hash).or_default().insert(id);
    }
    if members.len() == 1 {
        return Damaged::new();
    }
    let majority = members.iter().find(|(_, ids)| ids.len() >= quorum(told)).map(|(hash, _)| *hash);
    for (other, ids) in members.iter().filter(|(other, _)| Some(**other) != majority) {
        tracing::error!(
            "leader-id" = format!("{own:x}"),
            "leader-revision" = hash.revision,
            "leader-compact-revision" = hash.compact_revision,
            "leader-hash" = hash.hash,
            "peer-hash" = other,
            "peer-ids" = ids.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>().join(","),
            "quorum-exist" = majority.is_some(),
            "Detected hash mismatch"
        );
    }
    match majority {
        None => Damaged::from([ANYBODY]),
        Some(majority) => {
            members.into_iter().filter(|(other, _)| *other != majority).flat_map(|(_, ids)| ids).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::told::Silence;
    use super::*;

    fn kv(hash: u32, compact_revision: i64, revision: i64) -> HashKv {
        HashKv { hash, compact_revision, revision }
    }

    fn says(id: u64, hash: u32, compact_revision: i64, current_revision: i64) -> Told {
        Told { id, answer: Ok(Answer { hash, compact_revision, current_revision }) }
    }

    fn silent(id: u64) -> Told {
        Told { id, answer: Err(Silence::Future) }
    }

    fn periodic(first: HashKv, second: HashKv, told: &[Told]) -> Vec<u64> {
        let looks = Looks { first, second, current_revision: second.revision };
        of_current_data(1, &looks, told).into_iter().collect()
    }

    #[test]
    fn equal_hashes_are_no_alarm_and_neither_is_silence() {
        let same = kv(7, 2, 10);
        assert_eq!(periodic(same, same, &[]), [0_u64; 0]);
        assert_eq!(periodic(same, same, &[silent(2), silent(3)]), [0_u64; 0]);
        assert_eq!(periodic(same, same, &[says(2, 7, 2, 10), says(3, 7, 2, 10)]), [0_u64; 0]);
        // Written and compacted meanwhile: nothing to compare.
        assert_eq!(periodic(same, kv(8, 2, 11), &[says(2, 7, 2, 11)]), [0_u64; 0]);
        assert_eq!(periodic(same, kv(8, 5, 10), &[says(2, 9, 5, 10)]), [0_u64; 0]);
        assert_eq!(periodic(same, same, &[says(2, 9, 1, 10)]), [0_u64; 0], "another compact revision");
    }

    #[test]
    fn a_leader_that_contradicts_itself_is_damaged() {
        assert_eq!(periodic(kv(7, 2, 10), kv(8, 2, 10), &[says(2, 7, 2, 10)]), [1]);
    }

    #[test]
    fn a_follower_ahead_of_the_leader_is_damaged() {
        let same = kv(7, 2, 10);
        assert_eq!(periodic(same, same, &[says(2, 7, 2, 11), says(3, 7, 2, 10)]), [2]);
        assert_eq!(periodic(same, same, &[says(2, 7, 3, 10), says(3, 7, 2, 10)]), [2]);
    }

    #[test]
    fn who_differs_from_the_majority_is_damaged_the_leader_too() {
        let same = kv(7, 2, 10);
        assert_eq!(periodic(same, same, &[says(2, 9, 2, 10), says(3, 7, 2, 10)]), [2]);
        assert_eq!(periodic(same, same, &[says(2, 9, 2, 10), says(3, 9, 2, 10)]), [1]);
        let five = [says(2, 9, 2, 10), says(3, 7, 2, 10), says(4, 8, 2, 10), says(5, 7, 2, 10)];
        assert_eq!(periodic(same, same, &five), [2, 4]);
    }

    #[test]
    fn without_a_majority_nobody_is_named() {
        let same = kv(7, 2, 10);
        assert_eq!(periodic(same, same, &[says(2, 9, 2, 10)]), [ANYBODY]);
        assert_eq!(periodic(same, same, &[says(2, 9, 2, 10), silent(3)]), [ANYBODY]);
        assert_eq!(periodic(same, same, &[says(2, 9, 2, 10), says(3, 8, 2, 10)]), [ANYBODY]);
        // Two of five that agree are no majority, though more than any others.
        let five = [says(2, 9, 2, 10), says(3, 7, 2, 10), silent(4), silent(5)];
        assert_eq!(periodic(same, same, &five), [ANYBODY]);
    }

    #[test]
    fn a_compaction_is_compared_with_all_members_or_not_done_with() {
        let hash = kv(7, 2, 10);
        assert_eq!(of_compaction(1, &hash, &[says(2, 7, 2, 12), says(3, 7, 2, 9)]), Compared::Equal);
        assert_eq!(of_compaction(1, &hash, &[says(2, 7, 2, 12), silent(3)]), Compared::Incomplete);
        assert_eq!(of_compaction(1, &hash, &[says(2, 7, 2, 12), says(3, 9, 10, 12)]), Compared::Incomplete);
        let different = |ids: &[u64]| Compared::Different(ids.iter().copied().collect());
        assert_eq!(of_compaction(1, &hash, &[says(2, 7, 2, 1), says(3, 9, 2, 1)]), different(&[3]));
        assert_eq!(of_compaction(1, &hash, &[says(2, 9, 2, 1), says(3, 9, 2, 1)]), different(&[1]));
        assert_eq!(of_compaction(1, &hash, &[says(2, 9, 2, 1), silent(3)]), Compared::Doubtful);
        assert_eq!(of_compaction(1, &hash, &[says(2, 9, 2, 1)]), different(&[ANYBODY]));
        let five = [says(2, 9, 2, 1), says(3, 7, 2, 1), says(4, 7, 2, 1), silent(5)];
        assert_eq!(of_compaction(1, &hash, &five), different(&[2]), "whoever is silent changes nothing");
    }

    #[test]
    fn a_start_is_doubtful_where_somebody_differs_and_no_majority_agrees() {
        let hash = kv(7, 2, 10);
        let doubtful = |told: &[Told]| is_doubtful(&hash, told);
        assert!(!doubtful(&[]));
        assert!(!doubtful(&[silent(2), silent(3)]));
        assert!(!doubtful(&[says(2, 7, 2, 12), silent(3), says(4, 9, 3, 12)]), "another compact revision");
        assert!(!doubtful(&[says(2, 9, 2, 12), says(3, 7, 2, 12)]), "two of three agree");
        assert!(doubtful(&[says(2, 9, 2, 12), says(3, 9, 2, 12)]));
        assert!(doubtful(&[says(2, 9, 2, 12), silent(3)]));
        assert!(doubtful(&[says(2, 9, 2, 12), says(3, 7, 2, 12), silent(4), silent(5)]));
    }
}
