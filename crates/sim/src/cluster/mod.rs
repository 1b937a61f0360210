//! A cluster of whole members from one seed, and what must stay true of it.
//!
//! # Problem
//! A cluster keeps its promises only if raft, the log, the machine, the store, the watchers, the leases
//! and the order in which all of them are driven do, together, while machines stop, clocks drift and
//! networks fail. No list of tests names the histories in which they do not.
//!
//! # Idea
//! Everything that ships below the threads runs here in one thread, under a false clock, network and
//! disk: `node`, `wal`, `apply`, `backend` with redb, `mvcc`, `lease`, `watch`. A `World`
//! takes the next event off a queue, hands it to the member that it is for, and puts what follows on the
//! queue. One seed decides everything: sizes, clients, misfortunes, delays. So a run can be had again, and
//! its trace, a number made of everything that happened, says whether it was the same.
//!
//! ```text
//!   clients, watchers, lessees ──ask──► members ──messages──► network ──► members
//!            ▲                            │  │
//!            └────────────answers─────────┘  ├──writes──► disk ◄── crashes, errors, full, slow
//!                                            └──entries──► machine, store, hub
//! ```
//!
//! First things go wrong ([`Fault`]); then a majority is mended and must make progress; then everything
//! comes to rest and is compared.
//!
//! | checked | how |
//! |---|---|
//! | election safety, log matching, votes | every write of every log is compared with all others |
//! | leader completeness | a new leader has the last entry committed in an earlier term |
//! | state machine safety | each entry has one outcome, one set of changes, one revision, everywhere |
//! | the outcome is right | a plain model applies the log too; hash and revisions must be its own |
//! | acknowledged is durable | an answer needs a quorum of synced disks; a start finds what was synced |
//! | linearizable | [`crate::linearizability`] |
//! | watches | every response against all of history: ordered, unique, atomic, complete, bookmarks, `prev_kv` |
//! | leases | none ends before its time; what the log says of them is what members have; new leaders add nothing |
//! | snapshots | index, revision, leases and configuration are those of that entry |
//! | equal history, equal hash | `HashKV` at equal revisions, all along |
//! | progress | every client gets answers from a mended majority; in the end nobody lags |
//!
//! | file | what |
//! |---|---|
//! | `plan` | what a seed decides |
//! | `world` | events and who they are for |
//! | `member`, `driver`, `threads`, `requests` | a member; mirrors of the server's files |
//! | `disk`, `network`, `queue` | what is false |
//! | `faults` | misfortunes |
//! | `clients`, `lessees`, `watchers` | who uses the cluster |
//! | `checks` | what must stay true |
//! | `links` | three members, and every way to cut their links |
//! | `many` | many seeds, and planted bugs |

mod checks;
mod clients;
mod disk;
mod driver;
mod faults;
mod lessees;
pub mod links;
pub mod many;
mod member;
mod network;
mod plan;
mod queue;
mod requests;
mod threads;
mod watchers;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use plan::{Fault, Plan, Tally, Time};
pub use world::Report;

/// One history, from its seed.
///
/// # Errors
/// What was found to be wrong, in words.
pub fn run(seed: u64) -> Result<Report, String> {
    let result = catch_unwind(AssertUnwindSafe(|| world::World::new(seed).live()));
    match result {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(violation)) => Err(violation.0),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}
