//! What one seed decides before anything happens: sizes, timers, and which misfortunes there are.

use crate::random::Random;

/// A point or span of simulated time, in microseconds.
pub type Time = u64;

/// A millisecond.
pub(crate) const MILLISECOND: Time = 1_000;
/// A second.
pub(crate) const SECOND: Time = 1_000_000;

/// Kinds of misfortune.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Fault {
    Loss,
    Duplication,
    Delay,
    Reordering,
    Partition,
    OneWayPartition,
    ProcessKill,
    PowerLoss,
    TornFlush,
    FsyncError,
    WriteError,
    FullDisk,
    SlowDisk,
    Pause,
    ClockJump,
    ClockDrift,
    SlowApply,
    FalseGone,
    Transfer,
    AddMember,
    RemoveMember,
    PromoteMember,
    ReplaceMember,
    Compaction,
    Snapshot,
    WatchLoss,
    WatchLag,
    LostAnswer,
    LeaseExpiry,
    LateReturn,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 30] = [
        Fault::Loss,
        Fault::Duplication,
        Fault::Delay,
        Fault::Reordering,
        Fault::Partition,
        Fault::OneWayPartition,
        Fault::ProcessKill,
        Fault::PowerLoss,
        Fault::TornFlush,
        Fault::FsyncError,
        Fault::WriteError,
        Fault::FullDisk,
        Fault::SlowDisk,
        Fault::Pause,
        Fault::ClockJump,
        Fault::ClockDrift,
        Fault::SlowApply,
        Fault::FalseGone,
        Fault::Transfer,
        Fault::AddMember,
        Fault::RemoveMember,
        Fault::PromoteMember,
        Fault::ReplaceMember,
        Fault::Compaction,
        Fault::Snapshot,
        Fault::WatchLoss,
        Fault::WatchLag,
        Fault::LostAnswer,
        Fault::LeaseExpiry,
        Fault::LateReturn,
    ];
}

/// How often each kind of misfortune came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub(crate) [u64; Fault::ALL.len()]);

impl Tally {
    pub(crate) fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often this one came.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// How many kinds came at all.
    pub fn kinds(&self) -> usize {
        self.0.iter().filter(|count| **count > 0).count()
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Tally) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members that found the cluster.
    pub members: usize,
    /// How long things go wrong.
    pub stormy: Time,
    /// How long a healed majority has to make progress.
    pub patience: Time,
    /// The interval of ticks.
    pub tick: Time,
    /// Ticks to an election.
    pub election_ticks: u64,
    /// Clients that read and write.
    pub clients: usize,
    /// Clients that only read: no write of theirs is stuck at a member that cannot commit.
    pub readers: usize,
    /// Clients that keep a lease alive.
    pub lease_clients: usize,
    /// Clients that watch.
    pub watchers: usize,
    /// The mean time that a client rests between two requests.
    pub rest: Time,
    /// The mean time between two misfortunes.
    pub calm: Time,
    /// What may happen.
    pub faults: Vec<Fault>,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Applied entries between two notes in the log that they are flushed.
    pub snapshot_count: u64,
    /// Applied entries that memory and log keep for followers.
    pub catch_up: u64,
    /// The age at which applied changes are flushed.
    pub flush_age: Time,
    /// How long a note of what is left of a lease stays the last one.
    pub checkpoint: Time,
    /// The most that a member's clock may run fast or slow, in permille.
    pub drift: u64,
    /// Bounds of watch streams are small.
    pub small_streams: bool,
}

impl Plan {
    /// The plan that a seed stands for.
    pub fn of(seed: u64) -> Plan {
        let mut random = Random::new(seed ^ 0x7a3d_99d1_55b2_6e01);
        let members = [1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7][random.below(12) as usize];
        // Many kinds, so that six of them have come before long.
        let mut faults = Fault::ALL.to_vec();
        let keep = 14 + random.below(Fault::ALL.len() as u64 - 13) as usize;
        while faults.len() > keep {
            faults.swap_remove(random.below(faults.len() as u64) as usize);
        }
        // Now and then a shorter time in which more is asked.
        let busy = random.one_in(4);
        let stormy = if busy { 30 + random.below(40) } else { 60 + random.below(120) };
        Plan {
            members,
            stormy: stormy * SECOND,
            patience: 60 * SECOND,
            tick: 100 * MILLISECOND,
            election_ticks: 10,
            clients: 2 + random.below(4) as usize,
            readers: random.below(3) as usize,
            lease_clients: random.below(5) as usize,
            watchers: random.below(7) as usize,
            rest: if busy { 20 + random.below(150) } else { 300 + random.below(1500) } * MILLISECOND,
            calm: if busy { 1 + random.below(3) } else { 1 + random.below(8) } * SECOND,
            faults,
            segment_bytes: 4096 << random.below(4),
            snapshot_count: 5 + random.below(100),
            catch_up: random.below(60),
            flush_age: (1 + random.below(20)) * SECOND,
            checkpoint: (1 + random.below(8)) * SECOND,
            drift: random.below(60),
            small_streams: random.one_in(2),
        }
    }

    pub(crate) fn may(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub(crate) fn election_timeout(&self) -> Time {
        self.tick * self.election_ticks
    }
}
