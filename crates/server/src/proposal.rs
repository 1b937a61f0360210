//! Names and answers of what a member is asked to agree on.

use apply::{Rejection, Reply};

use crate::MAX_SHARDS;
use crate::error::Error;
use crate::slow::Applying;

/// Names one proposal, in the cluster: the low 16 bits of the id of the member that asked for it
/// (etcd's names begin with them too), 40 bits that start at random and count up, and the shard that
/// waits for the answer in the low 8 bits. The random start keeps an entry that an earlier run left
/// in the log from being taken for a new request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

/// The part of a count that goes up.
const COUNT: u64 = (1 << 40) - 1;

impl RequestId {
    /// The name of a shard's request number `count`.
    pub(crate) fn new(count: u64, shard: usize) -> Self {
        assert!(shard < MAX_SHARDS, "shard {shard} has no name");
        Self(count << 8 | shard as u64)
    }

    /// Where a shard's count begins, out of a random number.
    ///
    /// Requests are held against `--max-request-bytes` with their names in them, so names must be as
    /// long as etcd's: ten bytes as a varint where the first of a member's 16 bits is set, nine where
    /// it is not.
    pub(crate) fn first(random: u64, member: u64) -> u64 {
        (member & 0xffff) << 40 | 1 << 39 | random >> 25
    }

    /// The count after this one; it begins anew after 2⁴⁰ of them.
    pub(crate) fn next(count: u64) -> u64 {
        count & !COUNT | (count + 1) & COUNT
    }

    /// The shard that asked.
    pub(crate) fn shard(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// Whether this member may have asked. Others may have the same 16 bits, but then nobody waits.
    pub(crate) fn may_be_of(self, member: u64) -> bool {
        self.0 >> 48 == member & 0xffff
    }
}

/// What a proposal came to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was applied; every member came to the same outcome. When, where that is known.
    Applied(Result<Reply, Rejection>, Option<Applying>),
    /// It never entered the log, or this member cannot say.
    Failed(Error),
    /// It is in nobody's log, for want of a leader who would take it: it may be proposed again.
    Postponed,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_as_long_as_etcd_s() {
        for random in [0, 1, u64::MAX / 3, u64::MAX] {
            let name = |member| RequestId::new(RequestId::first(random, member), 0).0;
            assert_eq!(name(0xb71f_7532_0dc0_6a6c).leading_zeros(), 1, "nine bytes of seven bits");
            assert_eq!(name(0xb71f_7532_0dc0_8a6c).leading_zeros(), 0, "ten of them");
        }
    }

    #[test]
    fn every_request_of_every_shard_has_a_name_of_its_own() {
        let counts = [0, 1, 2, COUNT - 1, COUNT, COUNT + 1, u64::MAX >> 8];
        let shards = [0, 1, 7, MAX_SHARDS - 1];
        let mut names = HashSet::new();
        for count in counts {
            for shard in shards {
                let id = RequestId::new(count, shard);
                assert_eq!(id.shard(), shard);
                assert!(names.insert(id), "{id:?} names two requests");
            }
        }
        // What the member proposes itself is named so, and no shard waits for it.
        assert!(!names.contains(&RequestId(u64::MAX)));
        assert_eq!(RequestId(u64::MAX).shard(), MAX_SHARDS);
    }

    #[test]
    fn names_tell_members_apart() {
        let (own, other) = (0xb71f_7532_0dc0_6a6c, 0xb71f_7532_0dc0_6a6d);
        let mut count = RequestId::first(u64::MAX, own);
        for _ in 0..3 {
            let id = RequestId::new(count, 5);
            assert!(id.may_be_of(own) && !id.may_be_of(other));
            count = RequestId::next(count);
        }
    }

    #[test]
    fn the_count_begins_anew_in_the_same_shard_of_the_same_member() {
        let last = RequestId::first(0, 7) | COUNT;
        let next = RequestId::new(RequestId::next(last), 5);
        assert_eq!((next.shard(), next.may_be_of(7)), (5, true));
    }
}
