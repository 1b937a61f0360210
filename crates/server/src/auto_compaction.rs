//! Compacting by itself: `--auto-compaction-mode` and `--auto-compaction-retention`, by etcd's rules.
//!
//! - *periodic*: revisions are noted ten times a period, or ten times an hour if the period is longer. Once
//!   the first period is over, what was current one period ago is compacted, every period or every hour.
//! - *revision*: every five minutes, all but so many of the latest revisions.
//!
//! Every member notes revisions, so that whoever comes to lead can go on; only the leader compacts.
//! [`Schedule`] is told the time and asks nobody for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::CompactionRequest;
use apply::Rejection;

use crate::member::Member;

/// How much history is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCompaction {
    /// All of it.
    #[default]
    Off,
    /// What was current since so long ago.
    Periodic(Duration),
    /// So many of the latest revisions.
    Revision(i64),
}

/// How often the latest revisions are counted (etcd's figure).
const COUNT: Duration = Duration::from_secs(300);
/// The longest time between two compactions (etcd's figure).
const HOUR: Duration = Duration::from_secs(3600);
/// How often revisions are noted in the time between two compactions (etcd's figure).
const NOTES: u32 = 10;
/// They are not noted more often than this, whatever the period: etcd divides by zero.
const SHORTEST: Duration = Duration::from_millis(1);

/// When what is compacted. A turn is [`Schedule::note`], a rest, and [`Schedule::due`].
#[derive(Debug)]
enum Schedule {
    Periodic {
        period: Duration,
        /// What was current at the beginning of each turn; the first is of one period ago, once that is over.
        noted: VecDeque<i64>,
        /// When it compacted last, or began.
        since: Duration,
        /// How long to wait from then.
        wait: Duration,
        done: i64,
    },
    Revision {
        kept: i64,
        done: i64,
    },
}

impl Schedule {
    fn new(kind: AutoCompaction, now: Duration) -> Option<Self> {
        match kind {
            AutoCompaction::Off => None,
            AutoCompaction::Periodic(period) => {
                Some(Self::Periodic { period, noted: VecDeque::new(), since: now, wait: period, done: 0 })
            }
            AutoCompaction::Revision(kept) => Some(Self::Revision { kept, done: 0 }),
        }
    }

    fn rest(&self) -> Duration {
        match self {
            Self::Periodic { period, .. } => ((*period).min(HOUR) / NOTES).max(SHORTEST),
            Self::Revision { .. } => COUNT,
        }
    }

    /// A turn begins at the revision `current`.
    fn note(&mut self, current: i64) {
        let rest = self.rest();
        if let Self::Periodic { period, noted, .. } = self {
            noted.push_back(current);
            let most = period.as_nanos() / rest.as_nanos() + 1;
            if noted.len() as u128 > most {
                noted.pop_front();
            }
        }
    }

    /// The revision to compact to at the end of a turn, at the revision `current`, if this member leads and
    /// there is something to do.
    fn due(&mut self, now: Duration, leads: bool, current: i64) -> Option<i64> {
        if !leads {
            return None;
        }
        match self {
            Self::Periodic { period, noted, since, wait, done } => {
                let revision = *noted.front()?;
                if now.saturating_sub(*since) < *wait || revision == *done {
                    return None;
                }
                *wait = (*period).min(HOUR);
                Some(revision)
            }
            Self::Revision { kept, done } => {
                let revision = current.saturating_sub(*kept);
                (revision > 0 && revision != *done).then_some(revision)
            }
        }
    }

    /// What was due is compacted.
    fn done(&mut self, now: Duration, revision: i64) {
        match self {
            Self::Periodic { since, done, .. } => (*since, *done) = (now, revision),
            Self::Revision { done, .. } => *done = revision,
        }
    }
}

/// Compacts whenever it is time to, until the member stops.
pub(crate) async fn run(member: &Arc<Member>) {
    let kind = member.config().auto_compaction;
    let Some(mut schedule) = Schedule::new(kind, member.now()) else { return };
    let (name, kept) = match kind {
        AutoCompaction::Revision(kept) => ("revision", kept.to_string()),
        AutoCompaction::Periodic(period) => ("periodic", format!("{period:?}")),
        AutoCompaction::Off => return,
    };
    loop {
        schedule.note(member.store().current_revision());
        tokio::time::sleep(schedule.rest()).await;
        let (leads, current) = (member.raft().is_leader(), member.store().current_revision());
        let began = member.now();
        let Some(revision) = schedule.due(began, leads, current) else { continue };
        tracing::info!(revision, retention = kept, "starting auto {name} compaction");
        let request = CompactionRequest { revision, ..CompactionRequest::default() };
        let failure = match member.propose(request).await {
            // Somebody else has been at it.
            Ok(Ok(_) | Err(Rejection::Compacted)) => None,
            Ok(Err(refusal)) => Some(refusal.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let took = member.now().saturating_sub(began);
        match failure {
            None => {
                member.wake_compactor();
                tracing::info!(revision, retention = kept, ?took, "completed auto {name} compaction");
                schedule.done(member.now(), revision);
            }
            Some(error) => {
                tracing::warn!(
                    revision,
                    retention = kept,
                    "retry-interval" = ?schedule.rest(),
                    error,
                    "failed auto {name} compaction"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A schedule and its time. The revision grows by one with every turn unless it is held.
    struct World {
        schedule: Schedule,
        now: Duration,
        revision: i64,
        held: bool,
        leads: bool,
        fails: bool,
    }

    impl World {
        fn new(kind: AutoCompaction) -> Self {
            let now = Duration::from_secs(1_000_000);
            let schedule = Schedule::new(kind, now).unwrap();
            World { schedule, now, revision: 0, held: false, leads: true, fails: false }
        }

        /// What is compacted in so many turns, and in which of them (from 1).
        fn turns(&mut self, turns: usize) -> Vec<(usize, i64)> {
            let mut compacted = Vec::new();
            for turn in 1..=turns {
                self.revision += i64::from(!self.held);
                self.schedule.note(self.revision);
                self.now += self.schedule.rest();
                let Some(revision) = self.schedule.due(self.now, self.leads, self.revision) else { continue };
                compacted.push((turn, revision));
                if !self.fails {
                    self.schedule.done(self.now, revision);
                }
            }
            compacted
        }
    }

    #[test]
    fn without_retention_nothing_is_compacted() {
        assert!(Schedule::new(AutoCompaction::Off, Duration::ZERO).is_none());
    }

    #[test]
    fn a_period_of_hours_is_compacted_every_hour() {
        let mut world = World::new(AutoCompaction::Periodic(2 * HOUR));
        assert_eq!(world.schedule.rest(), 6 * MINUTE);
        assert_eq!(world.turns(20), [(20, 1)], "not before the first two hours are over");
        for hour in 1..=3 {
            assert_eq!(world.turns(10), [(10, hour * 10)], "what was current two hours ago");
        }
    }

    #[test]
    fn a_period_of_minutes_is_compacted_every_period() {
        let mut world = World::new(AutoCompaction::Periodic(5 * MINUTE));
        assert_eq!(world.schedule.rest(), MINUTE / 2);
        assert_eq!(world.turns(10), [(10, 1)]);
        for period in 1..=5 {
            assert_eq!(world.turns(10), [(10, period * 10)]);
        }
    }

    #[test]
    fn a_day_is_noted_hour_by_hour() {
        let mut world = World::new(AutoCompaction::Periodic(24 * HOUR));
        assert_eq!(world.turns(240), [(240, 1)]);
        assert_eq!(world.turns(10), [(10, 10)]);
    }

    #[test]
    fn a_member_that_does_not_lead_notes_and_leaves_it_at_that() {
        let mut world = World::new(AutoCompaction::Periodic(HOUR));
        world.leads = false;
        assert_eq!(world.turns(33), []);
        world.leads = true;
        assert_eq!(world.turns(1), [(1, 24)], "at once, and what was current an hour ago");
        assert_eq!(world.turns(10), [(10, 34)]);
    }

    #[test]
    fn a_revision_is_compacted_once() {
        let mut world = World::new(AutoCompaction::Periodic(5 * MINUTE));
        (world.held, world.revision) = (true, 101);
        assert_eq!(world.turns(10), [(10, 101)]);
        assert_eq!(world.turns(50), []);
        world.held = false;
        assert_eq!(world.turns(11), [(11, 102)]);
    }

    #[test]
    fn what_failed_is_tried_again_at_the_next_turn() {
        let mut world = World::new(AutoCompaction::Periodic(5 * MINUTE));
        world.fails = true;
        assert_eq!(world.turns(12), [(10, 1), (11, 1), (12, 2)]);
        world.fails = false;
        assert_eq!(world.turns(2), [(1, 3)]);
    }

    #[test]
    fn a_number_of_revisions_is_looked_at_every_five_minutes() {
        let mut world = World::new(AutoCompaction::Revision(10));
        world.held = true;
        assert_eq!(world.schedule.rest(), 5 * MINUTE);
        for (revision, compacted) in
            [(1, None), (10, None), (11, Some(1)), (100, Some(90)), (100, None), (200, Some(190))]
        {
            world.revision = revision;
            assert_eq!(world.turns(1).first().map(|(_, to)| *to), compacted, "at {revision}");
        }
        world.leads = false;
        world.revision = 300;
        assert_eq!(world.turns(36), []);
        world.leads = true;
        assert_eq!(world.turns(1), [(1, 290)]);
        world.fails = true;
        world.revision = 400;
        assert_eq!(world.turns(2), [(1, 390), (2, 390)]);
    }

    #[test]
    fn periods_too_short_to_divide_are_kept_all_the_same() {
        let mut world = World::new(AutoCompaction::Periodic(Duration::from_nanos(5)));
        assert_eq!(world.schedule.rest(), SHORTEST);
        assert_eq!(world.turns(2), [(1, 1), (2, 2)]);
    }
}
