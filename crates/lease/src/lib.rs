//! Leases: keys that vanish unless somebody keeps saying that they are still needed.
//!
//! A client is granted a lease with a time to live in seconds, attaches keys to it by putting
//! them with its id, and renews it again and again. When it stops (it crashed, it was cut off),
//! the lease runs out, a revocation goes through the log, and all its keys are deleted in one
//! revision.
//!
//! # Who owns the time
//!
//! Every member knows every lease, because grants, revocations and checkpoints are log entries.
//! But only one member measures time: the *primary*, which is the raft leader once it has applied
//! everything from the terms before its own. Its clock alone decides when a lease has run out,
//! and its decision is only a proposal: the lease ends when the revocation is applied, everywhere
//! at the same log index. A renewal is not in the log at all, it moves a deadline in the primary's
//! memory, and counts only while the reign lasts that leadership was proved of ([`Epoch`]). This is why
//! renewals are cheap and why a new primary must be generous: it does not know
//! when a lease was last renewed, so it starts every lease afresh, with the full time to live plus
//! an allowance for the election.
//!
//! Starting afresh would let a long lease live for ever if leaders change often. So for leases
//! longer than the *checkpoint interval* the primary writes what is left of them to the log now
//! and then. A new primary continues from the last checkpoint; the first renewal after one clears
//! it, also through the log and before the renewal is answered, or else a later primary would cut
//! the renewed lease short.
//!
//! ```text
//!   ttl 900 s, interval 300 s       what the log says        a new primary gives it
//!   t=0    grant                    ttl 900                  900 s
//!   t=300  checkpoint 600           ttl 900, left 600        600 s
//!   t=350  renew: clear, then done  ttl 900                  900 s
//! ```
//!
//! # How deadlines are kept
//!
//! A renewal only ever moves a deadline further away. So the queue of deadlines is not touched by
//! it: each lease has exactly one slot in a heap, and the time in the slot is merely a lower bound.
//! When the slot comes up, the lease is asked; if its true deadline is later, the slot goes back in
//! with that. A renewal is one hash lookup and one store, whatever the number of leases, and
//! millions of renewals leave no garbage. Slots of revoked leases stay behind until they come up or
//! until they outnumber the living, when they are swept out.
//!
//! # What is not here
//!
//! No clock (`now` is an argument: the time since some origin, never going back), no log, no
//! storage, no thread. [`Lessor`] says what has to be proposed or persisted; `apply` and `server`
//! do it. Nothing here can fail half-way.
//!
//! Start reading at [`Lessor`].
#![forbid(unsafe_code)]

mod lease;
mod lessor;
mod schedule;

pub use lease::{Error, LeaseId, Stored, TimeToLive};
pub use lessor::{Config, Epoch, Keys, Lessor, MAX_TTL, Renewal};
