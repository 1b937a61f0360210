//! Who wants to hear about a key: watchers grouped by what they watch.
//!
//! Watchers of the same range with the same filters form a group, and a group is the unit of work: its
//! matching events are gathered and encoded once, whatever its size. Single keys, which most watchers name,
//! are found by hash; ranges by the interval tree. The hash function has fixed keys and nothing ever walks
//! the map, so no order of it can be seen from outside.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

use api::key_range::KeyRange;
use bytes::Bytes;

use crate::Event;
use crate::arena::Key;
use crate::intervals::Intervals;
use crate::request::Filters;

/// Where a watcher sits, so that it can leave without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    group: u32,
    index: u32,
}

/// Watchers of one range with the same filters.
#[derive(Debug)]
pub(crate) struct Group {
    range: KeyRange,
    filters: Filters,
    /// In no order that means anything, but always the same for the same calls.
    pub(crate) members: Vec<Key>,
    /// Positions in the batch at hand of the events that this group wants; empty between batches.
    hits: Vec<u32>,
}

const NOBODY: u32 = u32::MAX;

/// The groups of one range, by filters.
#[derive(Clone, Copy, Debug)]
struct Groups([u32; Filters::KINDS]);

impl Default for Groups {
    fn default() -> Self {
        Groups([NOBODY; Filters::KINDS])
    }
}

/// A set of watchers, asked "who wants this event".
#[derive(Debug, Default)]
pub(crate) struct Registry {
    keys: HashMap<Bytes, Groups, BuildHasherDefault<DefaultHasher>>,
    ranges: Intervals<Groups>,
    groups: Vec<Group>,
    free: Vec<u32>,
    len: usize,
}

impl Registry {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Seats a watcher.
    pub(crate) fn add(&mut self, range: &KeyRange, filters: Filters, watcher: Key) -> Seat {
        let groups = match range {
            KeyRange::Key(key) => self.keys.entry(key.clone()).or_default(),
            KeyRange::Range { start, end } => self.ranges.entry(start, Some(end)),
            KeyRange::From(start) => self.ranges.entry(start, None),
            KeyRange::Empty => unreachable!("an empty range is refused before it gets here"),
        };
        let group = &mut groups.0[filters.kind()];
        if *group == NOBODY {
            let new = Group { range: range.clone(), filters, members: Vec::new(), hits: Vec::new() };
            *group = match self.free.pop() {
                Some(slot) => {
                    self.groups[slot as usize] = new;
                    slot
                }
                None => {
                    self.groups.push(new);
                    u32::try_from(self.groups.len() - 1).expect("fewer than 2^32 groups")
                }
            };
        }
        let group = *group;
        let members = &mut self.groups[group as usize].members;
        members.push(watcher);
        self.len += 1;
        Seat { group, index: u32::try_from(members.len() - 1).expect("fewer than 2^32 watchers") }
    }

    /// Empties a seat. When that moves another watcher into it, the answer names that watcher: its seat is
    /// this one now.
    pub(crate) fn remove(&mut self, seat: Seat) -> Option<Key> {
        let group = &mut self.groups[seat.group as usize];
        group.members.swap_remove(seat.index as usize);
        self.len -= 1;
        if let Some(&moved) = group.members.get(seat.index as usize) {
            return Some(moved);
        }
        if group.members.is_empty() {
            self.dissolve(seat.group);
        }
        None
    }

    fn dissolve(&mut self, slot: u32) {
        let group = &mut self.groups[slot as usize];
        let range = std::mem::replace(&mut group.range, KeyRange::Empty);
        (group.members, group.hits) = (Vec::new(), Vec::new());
        let kind = group.filters.kind();
        self.free.push(slot);
        let vacant = |groups: Option<&mut Groups>| {
            groups.is_some_and(|groups| {
                groups.0[kind] = NOBODY;
                groups.0.iter().all(|&group| group == NOBODY)
            })
        };
        match &range {
            KeyRange::Key(key) => {
                if vacant(self.keys.get_mut(key)) {
                    self.keys.remove(key);
                }
            }
            KeyRange::Range { start, end } => {
                if vacant(self.ranges.get_mut(start, Some(end))) {
                    self.ranges.remove(start, Some(end));
                }
            }
            KeyRange::From(start) => {
                if vacant(self.ranges.get_mut(start, None)) {
                    self.ranges.remove(start, None);
                }
            }
            KeyRange::Empty => {}
        }
    }

    /// Whether any watcher's range holds the key.
    pub(crate) fn matches(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key) || !self.ranges.stab(key, |_| false)
    }

    /// Sorts a batch: the groups that want at least one of `events`, each with the positions it wants, in
    /// the order in which the batch first touches them.
    pub(crate) fn sort(&mut self, events: &[Event]) -> Vec<(u32, Vec<u32>)> {
        let Registry { keys, ranges, groups, .. } = self;
        let mut touched = Vec::new();
        for (position, event) in events.iter().enumerate() {
            let mut claim = |found: &Groups| {
                for &group in found.0.iter().filter(|&&group| group != NOBODY) {
                    let Group { filters, hits, .. } = &mut groups[group as usize];
                    if filters.pass(event.tombstone) {
                        if hits.is_empty() {
                            touched.push(group);
                        }
                        hits.push(position as u32);
                    }
                }
                true
            };
            if let Some(found) = keys.get(&event.key) {
                claim(found);
            }
            ranges.stab(&event.key, claim);
        }
        let take = |group: u32| (group, std::mem::take(&mut groups[group as usize].hits));
        touched.into_iter().map(take).collect()
    }

    /// The watchers of a group that [`Registry::sort`] named.
    pub(crate) fn members(&self, group: u32) -> &[Key] {
        &self.groups[group as usize].members
    }

    /// Every watcher, group by group.
    pub(crate) fn everyone(&self) -> impl Iterator<Item = Key> {
        self.groups.iter().flat_map(|group| group.members.iter().copied())
    }
}
