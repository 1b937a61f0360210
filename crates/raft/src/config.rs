//! What a caller may choose.

use crate::types::NodeId;

/// How one member behaves. [`Config::new`] gives etcd's defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// A follower that hears nothing campaigns after this many ticks, and up to as many again.
    pub election_ticks: u64,
    /// A leader speaks up after this many ticks.
    pub heartbeat_ticks: u64,
    /// Ask before raising the term, so that a member that was cut off does not depose the leader
    /// when it returns (thesis §9.6).
    pub pre_vote: bool,
    /// A leader that hears no quorum for an election timeout steps down; and who has heard from a
    /// leader within one refuses to vote (thesis §6.2, §4.2.3).
    pub check_quorum: bool,
    /// Where all chance comes from. Give every start of every member another one: besides election
    /// timeouts it tells this life's questions from those of the life before.
    pub seed: u64,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what may be held or sent, in bytes as counted by [`crate::Entry::size`] unless said
/// otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries in one append.
    pub append_bytes: usize,
    /// Appends on their way to one member, by number.
    pub window_messages: usize,
    /// Appends on their way to one member.
    pub window_bytes: usize,
    /// Payload of entries that are proposed and not committed. One proposal is always admitted.
    pub uncommitted_bytes: usize,
    /// Entries in one batch for the machine.
    pub apply_bytes: usize,
    /// Entries given to the machine that it has not yet applied.
    pub applying_bytes: usize,
    /// Applied entries kept in memory for followers that are a little behind, by number.
    pub catch_up_entries: u64,
    /// The whole log in memory is held below this by letting go of applied entries.
    pub catch_up_bytes: usize,
    /// Questions for a read index that wait, by number.
    pub reads: usize,
    /// A member that does not say what became of its snapshot gets another one after this many
    /// ticks.
    pub snapshot_ticks: u64,
}

impl Config {
    /// etcd's defaults: ten ticks to an election, a heartbeat every tick.
    pub fn new(id: NodeId, seed: u64) -> Config {
        Config {
            id,
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: true,
            check_quorum: true,
            seed,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        const MIB: usize = 1 << 20;
        Limits {
            append_bytes: MIB / 2,
            window_messages: 512,
            window_bytes: 64 * MIB,
            uncommitted_bytes: 256 * MIB,
            apply_bytes: 4 * MIB,
            applying_bytes: 64 * MIB,
            catch_up_entries: 5000,
            catch_up_bytes: 64 * MIB,
            reads: 4096,
            snapshot_ticks: 600,
        }
    }
}
