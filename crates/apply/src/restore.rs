//! A stored state as the beginning of another cluster.
//!
//! Keys, leases, alarms, users and versions stay what they are. Who was a member is forgotten, and the
//! log that made the state with it: the members of the new cluster are in the state from the start, and
//! their logs begin right behind it, as if each of them had been sent it as a snapshot.

use std::collections::BTreeSet;
use std::io::{Read, Seek};

use backend::{Backend, Row, Seal, Table, TableOp, row_key};
use bytes::Bytes;
use raft::{ConfState, Index, NodeId, SnapshotMeta, Term};

use crate::cluster::{self, CLUSTER_VERSION};
use crate::member::Member;
use crate::rejection::Failure;

/// What a restore came to.
#[derive(Clone, Debug)]
pub struct Founded {
    /// Where the log goes on, and who votes.
    pub meta: SnapshotMeta,
    /// The revision that everything up to is compacted, if revisions were raised.
    pub bumped_to: Option<i64>,
}

/// Has `backend`, which must be new, hold the state in `body`, an etcd backend file, as the one that the
/// cluster of `founders` begins with; durably. All founders must be given the same.
///
/// With `bump` history goes on so many revisions after its newest one, and all before that is compacted:
/// whoever has seen revisions that the body does not have, sees none of them twice, and watches that
/// would go on from them end.
///
/// # Errors
/// The body is damaged, or of a cluster that speaks a later version; the disk failed; or the revision
/// would be beyond what there is.
pub fn restore(
    backend: &Backend,
    body: impl Read + Seek,
    founders: &[Member],
    bump: Option<u64>,
) -> Result<Founded, Failure> {
    let incoming = backend.receive_anew(body)?;
    if let Some(version) = incoming.table_get(Table::Cluster, CLUSTER_VERSION)? {
        cluster::speaks(&String::from_utf8_lossy(&version)).map_err(Failure::Version)?;
    }
    let mut ops = Vec::new();
    for table in [Table::Members, Table::MembersRemoved] {
        incoming.scan_table(table, |key, _| ops.push(TableOp::delete(table, key.to_vec())))?;
    }
    let newest = incoming.newest_row().map_or(0, |key| mvcc::Revision::from_row_key(key).main);
    let compacted =
        mvcc::compact_revision(|name| incoming.table_get(Table::Meta, name)).map_err(Failure::Store)?;
    let bumped_to = bump.map(|bump| raised(newest, compacted, bump)).transpose()?;
    incoming.take_place()?.publish();

    if let Some(revision) = bumped_to {
        // etcd's restore leaves the same row: members that were restored by either have equal hashes.
        backend.insert_row(row_key(revision, 0), Row { tombstone: false, record: Bytes::new() });
        ops.push(mvcc::compacted_to(revision));
    }
    ops.extend(founders.iter().map(cluster::member_row));
    let voters: BTreeSet<NodeId> = founders.iter().map(|member| NodeId(member.id)).collect();
    let conf_state = ConfState { voters: voters.into_iter().collect(), ..ConfState::default() };
    let (index, term) = (Index(founders.len() as u64), Term(1));
    let stored = cluster::write_conf_state(&conf_state);
    backend.seal(Seal { index: index.0, term: term.0, conf_state: Some(stored), ops });
    backend.flush_all()?;
    Ok(Founded { meta: SnapshotMeta { conf_state, index, term }, bumped_to })
}

/// As in etcd it is the newest row that counts, unless what was compacted reaches further.
fn raised(newest: i64, compacted: i64, bump: u64) -> Result<i64, Failure> {
    let by = i64::try_from(bump).ok();
    let above = |revision: i64| by.and_then(|by| revision.checked_add(by));
    above(newest)
        .and_then(|revision| if revision > compacted { Some(revision) } else { above(compacted) })
        // One is left for the next write.
        .filter(|revision| *revision < i64::MAX)
        .ok_or(Failure::NoRevision)
}

#[cfg(test)]
mod tests {
    use super::raised;

    #[test]
    fn revisions_rise_above_all_that_there_was_and_not_beyond_the_last() {
        let max = i64::MAX as u64;
        let cases = [
            (0, -1, 5, Some(5)),
            (7, -1, 1, Some(8)),
            (7, 7, 1, Some(8)),
            (7, 9, 1, Some(10)),
            (7, 9, 3, Some(10)),
            (7, -1, max - 8, Some(i64::MAX - 1)),
            (7, -1, max - 7, None),
            (7, -1, max, None),
            (0, -1, u64::MAX, None),
        ];
        for (newest, compacted, bump, expected) in cases {
            assert_eq!(raised(newest, compacted, bump).ok(), expected, "{newest} {compacted} {bump}");
        }
    }
}
