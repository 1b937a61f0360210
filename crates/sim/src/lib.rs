//! A member under a false disk, and what must stay true of it.
//!
//! # Problem
//! That an acknowledged write survives the loss of power cannot be seen by using a server, and hardly by
//! pulling plugs: a mistake shows itself only if the power goes between two particular calls, and if
//! the disk then kept one particular sector and not another.
//!
//! # Idea
//! The code that ships runs here in one thread over a [`Disk`] in memory that writes down every call. From
//! that record every disk that a crash could leave is made: at every call, for many subsets of the
//! sectors, sizes and names that no sync had covered. A member is started on each of them and compared
//! with a [`Model`], which is a plain list of everything that was ever written. Then that member goes on,
//! and crashes too, during its recovery or later.
//!
//! ```text
//!  workload ──► member ──► disk ──► record of calls ──► crash images ─┐
//!     │            ▲                                                  │
//!     ▼            └──────────────── start, compare, go on ◄──────────┘
//!   model ─────────────────────────────────┘
//! ```
//!
//! What is compared: the state after recovery is the model's state after the first n entries of the log,
//! for some n that is not below the last acknowledged one. So nothing acknowledged is lost, nothing is
//! there by half or twice, revisions do not go back. The comparison takes in every key at the current
//! revision and at an older one, the leases and their keys, the compacted revision, and `HashKV`, which
//! covers all of history and is computed here on its own.
//!
//! | file | what |
//! |---|---|
//! | `disk` | the false disk: calls, what is durable, failures on demand |
//! | `file` | its files, as the log and the store see them |
//! | `crash` | from a record of calls to the images a crash can leave |
//! | `member` | WAL, node, machine and backend, driven as the server's threads do |
//! | `workload` | seeded commands |
//! | `model` | what they do, said as simply as possible |
//! | `checker` | starts members on images and compares |
//! | `main` | `cargo run -p sim -- 7301` replays life 7301 |
//!
//! # Left out
//! More members, a network and a clock: with one member there is nothing to deliver and nobody to
//! time out.

pub mod checker;
pub mod cluster;
pub mod core;
pub mod crash;
pub mod disk;
pub mod file;
pub mod linearizability;
pub mod member;
pub mod model;
mod random;
pub mod workload;

pub use checker::{Check, History};
pub use crash::{Image, Shadow};
pub use disk::Disk;
pub use member::{Member, Plan, Stopped};
pub use model::Model;
pub use random::Random;
