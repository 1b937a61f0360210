//! The life of one key: its versions from the oldest that is still readable to the latest.
//!
//! etcd keeps a list of *generations*, each from a key's creation to its deletion. Here a version says by
//! itself when its generation began and how far it had come, so the list is flat: a tombstone is a version
//! with number 0, and the next put after it starts at 1 again.
//!
//! ```text
//! put@2  put@3  delete@4  put@6        older: [2 v1] [3 v2] [4 tombstone]    latest: [6 v1, created 6]
//! ```
//!
//! Nearly every key of a store in steady state has one version, so that case is a plain value without a
//! pointer behind it. Older versions are kept in chunks that never change once they are full: a write to a
//! key that was written 100,000 times must not copy 100,000 versions because some reader holds a snapshot.

use std::mem::replace;
use std::sync::Arc;

use crate::revision::Revision;
use crate::write::KeyInfo;

/// What the index knows of one version of a key: all of its record but key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) main: i64,
    pub(crate) create: i64,
    /// How many puts the generation has seen; 0 for a tombstone.
    pub(crate) version: i64,
    pub(crate) lease: i64,
    /// No transaction has anywhere near 2^32 changes, and four bytes per key are four megabytes per million.
    pub(crate) sub: u32,
}

impl Version {
    pub(crate) fn put(at: Revision, create: i64, version: i64, lease: i64) -> Version {
        assert!(version > 0, "a put counts from 1, not {version}");
        Version { main: at.main, sub: narrow(at.sub), create, version, lease }
    }

    pub(crate) fn tombstone(at: Revision) -> Version {
        Version { main: at.main, sub: narrow(at.sub), create: 0, version: 0, lease: 0 }
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision { main: self.main, sub: i64::from(self.sub) }
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub(crate) fn info(&self) -> KeyInfo {
        KeyInfo {
            create_revision: self.create,
            mod_revision: self.revision(),
            version: self.version,
            lease: self.lease,
        }
    }
}

fn narrow(sub: i64) -> u32 {
    u32::try_from(sub).expect("a transaction has fewer than 2^32 changes")
}

/// Every version of one key that compaction has not passed, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct History {
    latest: Version,
    older: Option<Arc<Older>>,
}

/// The versions before the latest, in ascending order: first the full chunks, then the tail.
#[derive(Clone, Debug, Default)]
struct Older {
    full: Vec<Arc<[Version]>>,
    tail: Vec<Version>,
}

/// A tail this long becomes a chunk. At 40 bytes a version a copied tail is at most 2.5 KiB.
const CHUNK: usize = 64;

/// What is left of a key after compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Something,
    Nothing,
}

impl History {
    pub(crate) fn new(first: Version) -> History {
        History { latest: first, older: None }
    }

    /// Adds a version, which must be later than all before it.
    pub(crate) fn push(&mut self, version: Version) {
        assert!(
            version.revision() > self.latest.revision(),
            "version {} of a key comes after {}",
            version.revision(),
            self.latest.revision()
        );
        let before = replace(&mut self.latest, version);
        match &mut self.older {
            None => self.older = Some(Arc::new(Older { full: Vec::new(), tail: vec![before] })),
            Some(older) => Arc::make_mut(older).push(before),
        }
    }

    pub(crate) fn latest(&self) -> &Version {
        &self.latest
    }

    /// Whether the key exists now.
    pub(crate) fn is_live(&self) -> bool {
        !self.latest.is_tombstone()
    }

    /// The version that a read at main revision `at` sees; none if the key did not exist then.
    pub(crate) fn visible(&self, at: i64) -> Option<&Version> {
        self.last_until(at).filter(|version| !version.is_tombstone())
    }

    fn last_until(&self, at: i64) -> Option<&Version> {
        if self.latest.main <= at { Some(&self.latest) } else { self.older.as_ref()?.last_until(at) }
    }

    /// Whether [`compact`](Self::compact) at this revision would do anything. Answers without a look at
    /// older versions wherever it can, for it is asked of every key of the store.
    pub(crate) fn is_compactable(&self, at: i64) -> bool {
        is_gone(&self.latest, at)
            || self.older.as_ref().is_some_and(|older| {
                if self.latest.main <= at {
                    return true;
                }
                let first = older.first();
                older.last_until(at).is_some_and(|last| last.revision() != first.revision())
                    || is_gone(first, at)
            })
    }

    /// Forgets what no read at `at` or later can see. The version that is visible at `at` stays, and so does a
    /// tombstone written at exactly `at`: a watch that starts there is still owed the deletion.
    ///
    /// Takes the dead versions out without a look at each, so that a key with a million of them holds up the
    /// holder of the lock no longer than one with two.
    pub(crate) fn compact(&mut self, at: i64) -> (Left, Dead) {
        let mut dead = Dead { older: None, before: Revision::new(i64::MAX, 0), latest: None };
        if self.latest.main <= at {
            dead.older = self.older.take();
            if is_gone(&self.latest, at) {
                dead.latest = Some(self.latest.revision());
                return (Left::Nothing, dead);
            }
        } else if let Some(older) = &mut self.older {
            let Some(last) = older.last_until(at) else { return (Left::Something, dead) };
            let keep = if is_gone(last, at) { last.revision().next() } else { last.revision() };
            if older.first().revision() < keep {
                let left = older.since(keep);
                dead.before = keep;
                dead.older =
                    if left.is_empty() { self.older.take() } else { Some(replace(older, Arc::new(left))) };
            }
        }
        (Left::Something, dead)
    }

    /// All versions, oldest first.
    #[cfg(test)]
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.older.iter().flat_map(|older| older.iter()).chain(std::iter::once(&self.latest))
    }
}

/// Whether of a version at or below the compacted revision nothing is left: it is a deletion, and no
/// watch may start at it any more.
fn is_gone(version: &Version, at: i64) -> bool {
    // Planted: M2, the deletion at the compacted revision itself is taken away too.
    let dropped = version.main == at && planted::is("tombstone-at-compact-revision-dropped");
    version.is_tombstone() && (version.main < at || dropped)
}

/// Versions that compaction took out of a history.
pub(crate) struct Dead {
    older: Option<Arc<Older>>,
    /// Of `older`, only the versions before this one are dead.
    before: Revision,
    latest: Option<Revision>,
}

impl Dead {
    /// Oldest first.
    pub(crate) fn revisions(&self) -> impl Iterator<Item = Revision> {
        let older = self.older.iter().flat_map(|older| older.iter()).map(Version::revision);
        older.take_while(|revision| *revision < self.before).chain(self.latest)
    }
}

impl Older {
    fn push(&mut self, version: Version) {
        if self.tail.len() == CHUNK {
            self.full.push(std::mem::take(&mut self.tail).into());
        }
        self.tail.push(version);
    }

    fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    fn first(&self) -> &Version {
        let chunk: &[Version] = self.full.first().map_or(&self.tail, |chunk| chunk);
        chunk.first().expect("a list of older versions is never empty")
    }

    fn iter(&self) -> impl Iterator<Item = &Version> {
        self.full.iter().flat_map(|chunk| chunk.iter()).chain(&self.tail)
    }

    fn last_until(&self, at: i64) -> Option<&Version> {
        let chunk: &[Version] = if self.tail.first().is_some_and(|first| first.main <= at) {
            &self.tail
        } else {
            let after = self.full.partition_point(|chunk| chunk[0].main <= at);
            self.full.get(after.checked_sub(1)?)?
        };
        chunk[..chunk.partition_point(|version| version.main <= at)].last()
    }

    /// The versions at or after `keep`. Not in place: the list may belong to a snapshot too.
    fn since(&self, keep: Revision) -> Older {
        let cut = |chunk: &[Version]| chunk.partition_point(|version| version.revision() < keep);
        let mut full = Vec::new();
        for chunk in &self.full {
            match cut(chunk) {
                0 => full.push(Arc::clone(chunk)),
                from if from < chunk.len() => full.push(chunk[from..].into()),
                _ => {}
            }
        }
        let tail = self.tail[cut(&self.tail)..].to_vec();
        Older { full, tail }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A history from revisions; a negative one is a tombstone.
    fn history(revisions: &[i64]) -> History {
        let mut number = 0;
        let versions: Vec<Version> = revisions
            .iter()
            .map(|&r| {
                number = if r < 0 { 0 } else { number + 1 };
                let at = Revision::new(r.abs(), 0);
                if r < 0 { Version::tombstone(at) } else { Version::put(at, 1, number, 0) }
            })
            .collect();
        let mut history = History::new(versions[0]);
        versions[1..].iter().for_each(|&version| history.push(version));
        history
    }

    fn revisions(history: &History) -> Vec<i64> {
        let signed = |v: &Version| if v.is_tombstone() { -v.main } else { v.main };
        history.versions().map(signed).collect()
    }

    #[test]
    fn reads_between_versions_see_the_one_before() {
        let history = history(&[2, 3, -5, 8]);
        let seen: Vec<_> = (1..10).map(|at| history.visible(at).map(|v| v.main)).collect();
        assert_eq!(
            seen,
            [None, Some(2), Some(3), Some(3), None, None, None, Some(8), Some(8)],
            "at revisions 1 to 9"
        );
    }

    #[test]
    fn compaction_keeps_what_can_still_be_seen() {
        let cases: &[(i64, &[i64], &[i64])] = &[
            (1, &[], &[2, 3, -5, 8]),
            (2, &[], &[2, 3, -5, 8]),
            (3, &[2], &[3, -5, 8]),
            (4, &[2], &[3, -5, 8]),
            (5, &[2, 3], &[-5, 8]),
            (6, &[2, 3, 5], &[8]),
            (9, &[2, 3, 5], &[8]),
        ];
        for &(at, expected_dead, expected_left) in cases {
            let mut history = history(&[2, 3, -5, 8]);
            assert_eq!(history.is_compactable(at), !expected_dead.is_empty(), "at {at}");
            let (left, dead) = history.compact(at);
            let dead: Vec<i64> = dead.revisions().map(|revision| revision.main).collect();
            assert_eq!((left, &dead[..]), (Left::Something, expected_dead), "at {at}");
            assert_eq!(revisions(&history), expected_left, "at {at}");
            assert!(!history.is_compactable(at), "a second compaction at {at} finds nothing");
        }
    }

    #[test]
    fn a_deleted_key_vanishes_once_compaction_is_past_its_tombstone() {
        let mut deleted = history(&[2, -5]);
        assert_eq!(deleted.compact(5).0, Left::Something);
        assert_eq!(revisions(&deleted), [-5]);
        assert!(!deleted.is_compactable(5) && deleted.is_compactable(6));
        assert_eq!(deleted.compact(6).0, Left::Nothing);
    }

    #[test]
    fn a_long_history_is_searched_and_cut_across_chunks() {
        let all: Vec<i64> = (1..=500).map(|r| if r % 7 == 0 { -2 * r } else { 2 * r }).collect();
        for at in (0..=1002).step_by(3) {
            let mut long = history(&all);
            let snapshot = long.clone();
            let sees = |history: &History, at: i64| history.visible(at).map(|v| v.main);
            let naive = |at: i64| all.iter().rfind(|r| r.abs() <= at).copied().filter(|&r| r > 0);
            assert_eq!(sees(&long, at), naive(at), "at {at}");
            let mut dead: Vec<i64> = long.compact(at).1.revisions().map(|revision| revision.main).collect();
            for later in at..=1002 {
                assert_eq!(sees(&long, later), naive(later), "at {later} after compaction at {at}");
            }
            dead.extend(revisions(&long).iter().map(|r| r.abs()));
            assert_eq!(dead, all.iter().map(|r| r.abs()).collect::<Vec<_>>(), "nothing lost, nothing twice");
            assert_eq!(revisions(&snapshot), all, "a snapshot keeps everything");
        }
    }
}
