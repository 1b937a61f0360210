//! A cluster of the shipping `raft` and `node` alone: very many bad days in a short time.
//!
//! # Problem
//! Whether a majority can lose what it promised is decided by the order of a few events in which nothing
//! is wrong by itself: a vote, a crash, a message that is late by a term. Such an order is rare, and
//! finding it takes more histories than a cluster of whole members can live through.
//!
//! # Idea
//! Here a member is its node and the little that a node needs: a log on a disk that loses what it has
//! not synced, and a machine that is a running digest. Time is a number that jumps from one event to the
//! next; chance is one seed. A history of minutes takes milliseconds, and the same seed gives the same
//! history, event by event, which its trace hash shows.
//!
//! A [`Life`] has two phases. In the first, [`Weather`] mixes at least six kinds of [`Fault`], and only
//! safety counts. Then the sky clears: everybody is up, every link works, and things must go on.
//!
//! | checked | how |
//! |---|---|
//! | election safety | one leader a term, elected by votes that cannot be forgotten |
//! | one vote a term | every granted vote that was sent is remembered here |
//! | leader completeness | whoever is elected has all that was committed before |
//! | log matching | same term at some index: the same up to there |
//! | state machine safety | everybody applies the same entry at an index; equal digests |
//! | acknowledged is durable | what is applied, acknowledged or shown to voters is on the disk |
//! | linearizable reads | a read index covers all that was committed when the question was asked |
//! | an end to every reign | nobody still leads five election timeouts after somebody else began to |
//! | bound proposals | what was for one term only stands in the log with that term, or not at all |
//! | progress | after the faults: a leader, new entries, nobody lags, no question without an answer |
//!
//! # Left out
//! What is in the entries, real disks, clients: the whole member has a simulation of its own.
//!
//! | file | what |
//! |---|---|
//! | `weather` | kinds of faults, how often, and how often they came |
//! | `world` | events, the network, misfortune |
//! | `member` | one member: node, disk, machine |
//! | `checker` | what must stay true |
//! | `life` | one seed from beginning to end |
//! | `many` | many seeds on several threads, summed up |

mod checker;
mod life;
mod many;
mod member;
mod weather;
mod world;

/// Bugs that can be planted in `raft` and `node` and that this finds, with the traps that they stand for.
pub const PLANTED: &[(&str, &str)] = &[
    ("ack-before-durable", "R8: a promise leaves before the disk has what it promises"),
    ("apply-before-durable", "R9: an entry is applied that this member could still forget"),
    ("apply-out-of-order", "entries are applied in another order than that of the log"),
    ("campaign-unapplied", "R14: a campaign over a committed, unapplied change of the members"),
    ("commit-beyond-match", "R10: a heartbeat commits what the follower may not have"),
    ("commit-old-term", "R1: an entry of an earlier term is committed by counting"),
    ("count-unsynced-self", "R7: a leader counts what its own disk does not have yet"),
    ("forget-vote", "R8: a restart forgets a vote"),
    ("joint-forever", "R16: a joint configuration is never left"),
    ("late-echo-confirms", "R3: the echo of an old heartbeat confirms a later read"),
    ("lead-without-quorum", "R19: a leader that hears nobody goes on leading"),
    ("learner-refuses-vote", "R13: a promoted learner that does not know it refuses to vote"),
    ("read-before-first-commit", "R2: a read is answered before the first commit of the term"),
    ("read-without-round", "R6: a read is answered without asking a quorum"),
    ("removed-leader-stays", "R17: a leader goes on leading after its own removal"),
    ("silent-to-the-past", "R5: a member stuck in a higher term is never let in again"),
    ("snapshot-without-conf", "W11: a snapshot's configuration is not taken over"),
    ("stale-append-ack", "R7: an acknowledgement counts for entries that were overwritten"),
    ("transfer-without-end", "R18: a transfer that came to nothing is never given up"),
    ("truncate-on-old-append", "an old append cuts off what later ones have brought"),
    ("two-config-changes", "R15: a change of the members before the last one is applied"),
    ("vote-for-shorter-log", "a vote for a candidate that lacks what may be committed"),
    ("wait-for-snapshot-forever", "R12: a lost snapshot is never sent again"),
];

pub use life::{Life, Report};
pub use many::{Sum, main, many};
pub use weather::{Fault, Tally, Weather};
pub use world::{ELECTION, TICK, World};
