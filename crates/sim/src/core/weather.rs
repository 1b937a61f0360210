//! Kinds of faults, how often they come, and how often they came.

use std::fmt;

use crate::Random;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$name,)*];

            /// As it is printed.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$name => $text,)* }
            }
        }
    };
}

faults! {
    /// A message does not arrive.
    Loss => "messages lost",
    /// A message arrives twice.
    Duplicate => "messages doubled",
    /// A message takes up to a second more.
    Delay => "messages delayed",
    /// A message is overtaken by later ones.
    Reorder => "messages reordered",
    /// Some members hear nothing of the others, nor the others of them.
    Partition => "symmetric partitions",
    /// Some links lose everything, in one direction each.
    OneWay => "asymmetric partitions",
    /// A process ends; what its disk had not synced is lost.
    Crash => "crashes",
    /// A crash that leaves a part of what was being written.
    Torn => "torn writes",
    /// Acknowledged writes that needed no sync are gone after a crash.
    Unsynced => "unsynced writes lost",
    /// A process stands still, and with it its clock.
    Pause => "pauses",
    /// A disk takes up to two seconds for a sync.
    SlowDisk => "slow disks",
    /// A machine takes up to two seconds to apply.
    SlowApply => "slow machines",
    /// A clock that runs up to a tenth too fast or too slow.
    Drift => "drifting clocks",
    /// Leadership is to be handed over.
    Transfer => "transfers",
    /// A leader is cut off, or crashes, right after its election.
    Coup => "leaders lost at once",
    /// Somebody campaigns without need.
    Campaign => "needless campaigns",
    /// Members are to come, go, or change what they are.
    Change => "membership changes",
    /// A member is told that the leader's process has ended, perhaps wrongly.
    Hint => "hints that a leader is gone",
    /// A snapshot of the machine is sent to somebody who is behind the log.
    Snapshot => "snapshots sent",
    /// A snapshot could not be made, or got lost.
    SnapshotLost => "snapshots lost",
    /// The log is read back from the disk for somebody who is behind.
    LogRead => "reads of the log",
    /// A disk lets go of the log up to a flush.
    Release => "log compactions",
}

/// How often each kind came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([u64; Fault::ALL.len()]);

impl Default for Tally {
    fn default() -> Tally {
        Tally([0; Fault::ALL.len()])
    }
}

impl Tally {
    /// One more of this kind.
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How many there were of this kind.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// How many kinds came at least once.
    pub fn kinds(&self) -> usize {
        self.0.iter().filter(|n| **n > 0).count()
    }

    /// Adds those of another history.
    pub fn add(&mut self, other: &Tally) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, n)| *sum += n);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in Fault::ALL {
            writeln!(f, "{:>14}  {}", self.of(*fault), fault.name())?;
        }
        Ok(())
    }
}

/// How bad the sky is. Zero is never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Of so many messages one is lost.
    pub lose: u64,
    /// Of so many messages one is doubled.
    pub double: u64,
    /// Of so many messages one is delayed.
    pub delay: u64,
    /// Of so many messages one is overtaken.
    pub reorder: u64,
    /// A clock's rate is off by this many thousandths at most.
    pub drift: u64,
    /// Of so many snapshots one cannot be made.
    pub no_snapshot: u64,
    /// Of so many leaders one is lost right after its election.
    pub coup: u64,
    /// Microseconds between two of a kind, on the average.
    pub partition: u64,
    /// See `partition`.
    pub one_way: u64,
    /// See `partition`.
    pub crash: u64,
    /// See `partition`.
    pub pause: u64,
    /// See `partition`.
    pub slow_disk: u64,
    /// See `partition`.
    pub slow_apply: u64,
    /// See `partition`.
    pub transfer: u64,
    /// See `partition`.
    pub campaign: u64,
    /// See `partition`.
    pub change: u64,
    /// See `partition`.
    pub hint: u64,
    /// Microseconds between two flushes of one machine, on the average.
    pub flush: u64,
    /// Microseconds between two batches of proposals, on the average.
    pub write: u64,
    /// Microseconds between two reads, on the average.
    pub read: u64,
}

const SECOND: u64 = 1_000_000;

impl Weather {
    /// Only clients, and flushes.
    pub fn fair() -> Weather {
        Weather { flush: 4 * SECOND, write: SECOND / 2, read: SECOND / 2, ..Weather::default() }
    }

    /// At least six kinds of faults, mixed at random; members change if there are any `outsiders`.
    pub fn bad(random: &mut Random, outsiders: bool) -> Weather {
        let mut weather = Weather {
            flush: [SECOND, 4 * SECOND, 20 * SECOND][random.below(3) as usize],
            write: [SECOND / 4, SECOND / 2, SECOND][random.below(3) as usize],
            read: [SECOND / 2, SECOND][random.below(2) as usize],
            ..Weather::default()
        };
        if outsiders {
            weather.change = [SECOND, 4 * SECOND][random.below(2) as usize];
        }
        let often = |random: &mut Random| [2 * SECOND, 5 * SECOND, 15 * SECOND][random.below(3) as usize];
        while weather.kinds() < 8 + random.below(4) {
            match random.below(16) {
                0 => weather.lose = [5, 20, 100][random.below(3) as usize],
                1 => weather.double = [5, 50][random.below(2) as usize],
                2 => weather.delay = [5, 50, 200][random.below(3) as usize],
                3 => weather.reorder = [3, 30][random.below(2) as usize],
                4 => weather.drift = [20, 100][random.below(2) as usize],
                5 => weather.no_snapshot = 4,
                6 => weather.partition = often(random),
                7 => weather.one_way = often(random),
                8 | 9 => weather.crash = often(random),
                10 => weather.pause = often(random),
                11 => weather.slow_disk = often(random),
                12 => weather.slow_apply = often(random),
                13 => weather.transfer = often(random),
                14 => weather.coup = [1, 3][random.below(2) as usize],
                _ => (weather.campaign, weather.hint) = (3 * often(random), often(random)),
            }
        }
        weather
    }

    /// Microseconds between two of a kind, on the average; zero for those that never come by themselves.
    pub(crate) fn mean(&self, fault: Fault) -> u64 {
        match fault {
            Fault::Partition => self.partition,
            Fault::OneWay => self.one_way,
            Fault::Crash => self.crash,
            Fault::Pause => self.pause,
            Fault::SlowDisk => self.slow_disk,
            Fault::SlowApply => self.slow_apply,
            Fault::Transfer => self.transfer,
            Fault::Campaign => self.campaign,
            Fault::Change => self.change,
            Fault::Hint => self.hint,
            _ => 0,
        }
    }

    /// How many kinds of faults can come.
    pub fn kinds(&self) -> u64 {
        let Weather { lose, double, delay, reorder, drift, no_snapshot, partition, one_way, .. } = *self;
        let Weather { coup, crash, pause, slow_disk, slow_apply, transfer, campaign, change, .. } = *self;
        let mild = [lose, double, delay, reorder, drift, no_snapshot, partition, one_way];
        let harsh = [coup, crash, pause, slow_disk, slow_apply, transfer, campaign, change];
        mild.into_iter().chain(harsh).filter(|n| *n > 0).count() as u64
    }
}
