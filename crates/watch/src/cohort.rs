//! Watchers of one stream that read history, grouped by where in it they are.
//!
//! A cohort reads once for all its members, at one position. Cohorts that meet become one. Which one moves
//! next alternates between the lowest, which on its way takes in every other, and the highest, which has the
//! shortest way to go: a watcher a few revisions behind does not wait for one half a million behind.

use std::collections::BTreeMap;

use crate::arena::{Arena, Key};
use crate::registry::Registry;

/// Watchers that have been handed everything below `position`, except what is below their own
/// `min_revision`, which they do not want.
#[derive(Debug)]
pub(crate) struct Cohort {
    pub(crate) position: i64,
    pub(crate) members: Registry,
}

/// The cohorts of a stream.
///
/// What must hold, always: no two cohorts have the same position, none is empty, and `order` lists exactly
/// the cohorts that exist.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    pub(crate) cohorts: Arena<Cohort>,
    order: BTreeMap<i64, Key>,
    highest_next: bool,
}

impl Behind {
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The cohort at `position`, made if there is none. The caller adds a member to it.
    pub(crate) fn at(&mut self, position: i64) -> Key {
        let Behind { cohorts, order, .. } = self;
        *order
            .entry(position)
            .or_insert_with(|| cohorts.insert(Cohort { position, members: Registry::default() }))
    }

    /// The cohort to move next.
    pub(crate) fn pick(&mut self) -> Option<Key> {
        self.highest_next = !self.highest_next;
        let end = if self.highest_next { self.order.last_key_value() } else { self.order.first_key_value() };
        end.map(|(_, &cohort)| cohort)
    }

    /// A cohort that stands below `position`, if there is one.
    pub(crate) fn below(&self, position: i64) -> Option<Key> {
        let (&lowest, &cohort) = self.order.first_key_value()?;
        (lowest < position).then_some(cohort)
    }

    /// A cohort that stands above `from` and not above `to`.
    pub(crate) fn between(&self, from: i64, to: i64) -> Option<Key> {
        self.order.range(from + 1..=to.max(from + 1)).next().filter(|&(&at, _)| at <= to).map(|(_, &key)| key)
    }

    /// Takes a cohort off the list; whoever takes it seats its members anew.
    pub(crate) fn remove(&mut self, cohort: Key) -> Option<Cohort> {
        let removed = self.cohorts.remove(cohort)?;
        self.order.remove(&removed.position);
        Some(removed)
    }

    /// Moves a cohort to `position`, unless another stands there: that one's key is the answer then, and
    /// the caller unites them.
    pub(crate) fn advance(&mut self, cohort: Key, position: i64) -> Option<Key> {
        if let Some(&other) = self.order.get(&position) {
            return (other != cohort).then_some(other);
        }
        let moved = &mut self.cohorts[cohort];
        self.order.remove(&moved.position);
        moved.position = position;
        self.order.insert(position, cohort);
        None
    }
}
