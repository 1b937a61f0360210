//! Names and answers of what a member is asked to agree on.

use apply::{Rejection, Reply};

use crate::MAX_SHARDS;
use crate::error::Error;

/// Names one proposal of this run of the process: 56 bits that start at random and count up, and
/// the shard that waits for the answer in the low 8 bits. The random start keeps an entry that an
/// earlier run left in the log from being taken for a new request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

impl RequestId {
    /// The name of a shard's `count`th request; the count begins anew after 2⁵⁶ of them.
    pub(crate) fn new(count: u64, shard: usize) -> Self {
        assert!(shard < MAX_SHARDS, "shard {shard} has no name");
        Self(count << 8 | shard as u64)
    }

    /// Where a shard's count begins, out of a random number.
    ///
    /// Requests are held against `--max-request-bytes` with their names in them, so names must be as
    /// long as etcd's, which begin with the low 16 bits of the member's id: ten bytes as a varint
    /// where the first of these bits is set, nine where it is not.
    pub(crate) fn first(random: u64, member: u64) -> u64 {
        let count = random >> 10;
        if member & 1 << 15 == 0 { count | 1 << 54 } else { count | 1 << 55 }
    }

    /// The shard that asked.
    pub(crate) fn shard(self) -> usize {
        (self.0 & 0xff) as usize
    }
}

/// What a proposal came to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was applied; every member came to the same outcome.
    Applied(Result<Reply, Rejection>),
    /// It never entered the log, or this member cannot say.
    Failed(Error),
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
        let counts = [0, 1, 2, u64::MAX >> 9, (u64::MAX >> 8) - 1, u64::MAX >> 8];
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
    fn the_count_begins_anew_in_the_same_shard() {
        assert_eq!(RequestId::new(1 << 56, 5), RequestId::new(0, 5));
    }
}
