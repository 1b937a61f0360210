//! A member in the real world: threads, timers, files, start and stop.
//!
//! The rooms below this one are values that can be poked: raft decides, the WAL writes, the machine
//! applies, and none of them waits or reads a clock. This room has the threads that make them a
//! server, and the hand-overs between the threads:
//!
//! ```text
//!  runtime threads ──inbox──▶ (raft) ──wal queue──▶ WAL ──inbox──▶ (raft) ──apply queue──▶ apply
//!   (one shard each) ◀──mailbox───── answers, events ────────────────────────────────────────┤
//!                                          WAL: forget ◀── flusher ◀── write buffer ◀──────────┘
//! ```
//!
//! Every hand-over takes all that waits at once, so one wake-up, one log append, one sync and one
//! answer carry as many requests as there are at that moment, and a lone request waits for nobody.
//!
//! | module | what it is |
//! |---|---|
//! | `run` | start from flags and disk, stop, and what happens when a thread fails |
//! | `bootstrap` | from a data directory, empty or not, to the parts of a member |
//! | `founding`, `ask`, `urls` | a cluster that is founded or joined: ids, first entries, whom to ask |
//! | `force` | a member that goes on alone |
//! | `member` | what everybody shares: `propose`, `linearize`, the stores, the numbers |
//! | `shard`, `reads` | a runtime thread's own part: waiters, read rounds, watchers |
//! | `inbox`, `mailbox`, `queue` | the hand-overs |
//! | `raft_driver` | raft, turned by whichever thread has something for it |
//! | `clock_thread`, `wal_thread`, `apply_thread`, `flusher`, `compactor`, `log_reader` | the threads |
//! | `roads` | what the peers' thread tells, and who the peers are |
//! | `snapshots`, `outgoing` | states on their way to other members and from them; to whom, one at a time |
//! | `backup`, `background` | a copy of the state for an operator, and how such work gives way |
//! | `leadership` | what changes with a leader, and how leadership is handed over |
//! | `membership`, `versions`, `downgrade` | changes of members, and of the version that all of them speak |
//! | `forward` | what only the leader can answer |
//! | `membership` | what is looked at before members or the leader change |
//! | `forward` | what only the leader can answer, asked of it |
//! | `versions` | which version the cluster speaks |
//! | `leases` | expiry and checkpoints, on the clock thread |
//! | `access`, `tokens`, `passwords` | who a client is, and what it may |
//! | `auto_compaction` | when what is compacted by itself |
//! | `corruption` | whether all members hold the same data |
//! | `stall` | whether the disk of the log answers |
//! | `tally` | what is applied, counted |
//! | `identity` | member and cluster ids |
//!
//! No request is served here: `grpc` and `gateway` know the protocols.

mod access;
mod apply_thread;
mod ask;
mod auth_log;
mod auto_compaction;
mod background;
mod backup;
mod bootstrap;
mod clock_thread;
mod compaction;
mod compactor;
mod config;
mod corruption;
mod disk;
mod downgrade;
mod error;
mod flusher;
mod force;
mod forward;
mod founding;
mod identity;
mod inbox;
mod leadership;
mod leases;
mod log_reader;
mod mailbox;
mod member;
mod membership;
mod metrics;
mod nothing;
mod outgoing;
mod passwords;
mod peer_metrics;
mod process;
mod proposal;
mod queue;
mod raft_driver;
mod reads;
mod roads;
mod run;
mod shard;
mod slow;
mod snapshots;
mod stall;
mod status;
mod tally;
#[cfg(test)]
mod tests;
mod times;
mod tokens;
mod urls;
mod versions;
mod wal_thread;
mod watching;

pub use access::{Authenticated, Credentials};
pub use auto_compaction::AutoCompaction;
pub use background::{give_way, run as run_in_background};
pub use backup::{Backup, BackupError, Piece};
pub use bootstrap::StartError;
pub use config::{ClusterState, Config, Feature, Traces};
pub use downgrade::DowngradeError;
pub use error::Error;
pub use forward::{DOWNGRADE_ENABLED, HASH_KV, LEASES, LEASES_INTERNAL, LeaseError, PROMOTE};
pub use founding::founders;
pub use identity::{cluster_id, member_id};
pub use member::{Member, REQUEST_OVERHEAD};
pub use membership::{ChangeError, Changed};
pub use metrics::{ETCD_VERSION, Metrics, scrape};
pub use passwords::PasswordError;
pub use run::{Server, ThreadFailure};
pub use slow::{Step, TRACED, took_too_long, trace};
pub use status::RaftStatus;
pub use times::Times;
pub use tokens::AuthToken;
pub use watching::WatchStream;

/// The most runtime threads that a member can have: a request's id names its thread in 8 bits, and
/// the last number stands for none.
pub const MAX_SHARDS: usize = 255;

/// The version of the cluster that this member would found.
pub const CLUSTER_VERSION: &str = "3.7.0";
