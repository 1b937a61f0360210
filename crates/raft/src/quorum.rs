//! Majorities, and pairs of them while the configuration is joint.
//!
//! A joint configuration decides only what both of its majorities decide. An empty set of voters
//! decides everything at once, so that the ordinary case is the joint case with one side empty.

use crate::types::NodeId;

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A quorum said yes.
    Won,
    /// No quorum can say yes any more.
    Lost,
    /// Both are still possible.
    Pending,
}

/// How many of `voters` are a majority.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The largest number that a majority of `voters` has reached, `u64::MAX` if there are none.
pub fn reached(voters: &[NodeId], by: impl Fn(NodeId) -> u64) -> u64 {
    // Clusters are small: up to this size no allocation is needed.
    const SMALL: usize = 16;
    match voters.len() {
        0 => u64::MAX,
        1 => by(voters[0]),
        n if n <= SMALL => {
            let mut values = [0; SMALL];
            for (value, voter) in values.iter_mut().zip(voters) {
                *value = by(*voter);
            }
            nth_largest(&mut values[..n])
        }
        _ => nth_largest(&mut voters.iter().map(|voter| by(*voter)).collect::<Vec<_>>()),
    }
}

fn nth_largest(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() - majority(values.len())]
}

/// [`reached`] by both sides of a joint configuration.
pub fn reached_jointly(sides: [&[NodeId]; 2], by: impl Fn(NodeId) -> u64) -> u64 {
    reached(sides[0], &by).min(reached(sides[1], &by))
}

/// How `voters` decide, where `vote` is `None` for those who have not answered.
pub fn verdict(voters: &[NodeId], vote: impl Fn(NodeId) -> Option<bool>) -> Verdict {
    let (mut yes, mut no) = (0, 0);
    for voter in voters {
        match vote(*voter) {
            Some(true) => yes += 1,
            Some(false) => no += 1,
            None => {}
        }
    }
    let needed = majority(voters.len());
    if voters.is_empty() || yes >= needed {
        Verdict::Won
    } else if voters.len() - no < needed {
        Verdict::Lost
    } else {
        Verdict::Pending
    }
}

/// [`verdict`] of both sides of a joint configuration.
pub fn verdict_jointly(sides: [&[NodeId]; 2], vote: impl Fn(NodeId) -> Option<bool>) -> Verdict {
    match (verdict(sides[0], &vote), verdict(sides[1], &vote)) {
        (Verdict::Lost, _) | (_, Verdict::Lost) => Verdict::Lost,
        (Verdict::Won, Verdict::Won) => Verdict::Won,
        _ => Verdict::Pending,
    }
}
