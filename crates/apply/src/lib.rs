//! The replicated machine: what a committed log entry does to the state.
//!
//! Everything that two rooms share is put together here: a put that attaches its key to a lease, a
//! lease whose end deletes keys, a transaction over keys and leases, an alarm that stops writes, a
//! member that comes or goes. `mvcc` and `lease` know nothing of each other; the machine carries
//! what one of them says to the other.
//!
//! # The one rule
//!
//! Members apply the same entries in the same order and must come to the same state, byte for byte,
//! whatever else differs between them: their clocks, flags, caches, clients, the moments at which
//! they stopped and started again. So applying is a function of the state and the entry. It knows a
//! time only to set deadlines in memory, which no state is made from. It rejects, it never panics
//! over what an entry says, and a rejection is an outcome like any other: the applied index moves.
//! What only one member can say (its disk failed) is a [`Failure`], and that member stops.
//!
//! One thing looks like an exception and is none: the space quota of a member. A command that is
//! above it takes effect all the same; the answer says that there is no space, and the member
//! raises an alarm, through the log, which then stops such commands everywhere.
//!
//! # The way of an entry
//!
//! ```text
//! bytes ── command ──► alarms, permissions allow it? ──► checks ──► mvcc, lease, tables ──► outcome, events
//!                            │no                            │no
//!                            └────────── rejection ◄────────┘    (and the index moves in every case)
//! ```
//!
//! A batch of entries is closed by [`Machine::seal`]: the rows and table changes of the batch, and
//! the index of its last entry, reach the disk in one transaction of the backend. After a crash the
//! machine opens at that index and the log is applied from there again.
//!
//! # A transaction, by example
//!
//! ```text
//! revision 5: a=1
//! txn: if value(a) = 1 then put b=2; get b; delete a; get a
//! answer at 6: succeeded, put (6), b=2 mod 6 (6), deleted 1 (6), nothing (6)
//! ```
//!
//! Comparisons look at revision 5; operations see each other; all changes are revision 6, with sub
//! revisions 0 and 1. See [`txn`].
//!
//! # Where to look
//!
//! [`Machine`] applies; [`txn`] has the semantics of reads and writes; [`check`] has what is checked
//! before a request is proposed, and [`permission`] what its caller must be permitted; [`quota`] counts;
//! [`Cluster`] and [`Alarms`] are the small tables; [`snapshot`] takes a state and puts one in the place
//! of another; [`restore`] begins a cluster with one.
//! [`Shared`] is what readers hold. Not here: anything that waits.
#![forbid(unsafe_code)]

mod alarms;
mod authentication;
pub mod check;
mod cluster;
mod command;
mod compare;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod machine;
mod member;
pub mod permission;
pub mod quota;
pub mod read;
mod rejection;
mod reply;
mod restore;
mod run;
mod shared;
pub mod snapshot;
pub mod txn;
mod v2;
mod v2_store;

pub use alarms::Alarms;
pub use cluster::Cluster;
pub use machine::{Machine, Options};
pub use member::{ChangeContext, Downgrade, Member, from_json, to_json};
pub use quota::Quota;
pub use rejection::{Failure, ReadFailure, Rejection, Told};
pub use reply::{Applied, AuthReply, Body, Outcome, Reply};
pub use restore::{Founded, restore};
pub use shared::{Published, Shared};
