//! One number for all of history: how members, and we and etcd, find out that they disagree.

use std::ops::ControlFlow;

use api::key_range::KeyRange;
use backend::View;

use crate::index::Index;
use crate::read::ReadError;
use crate::revision::Revision;
use crate::select::Source;
use crate::store::Store;

/// How many hashes of compactions are kept (etcd's number).
const KEPT: usize = 10;

/// The checksum of the history up to a revision. Two stores with the same `revision` and `compact_revision`
/// have the same hash, or they have diverged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C, as etcd computes it.
    pub hash: u32,
    /// The compacted revision that the hash takes as the beginning; -1 if there was none.
    pub compact_revision: i64,
    /// The revision up to which history was hashed.
    pub revision: i64,
}

impl Store {
    /// Hashes what is readable up to `revision`, 0 for the current one. Up to a negative one there is nothing.
    ///
    /// The rows above the compacted revision all count. Of the rows at or below it only those do that are
    /// visible at `revision`, and a tombstone at exactly the compacted revision does not: etcd up to 3.5.15
    /// removes it and later versions keep it, and they are to agree. So the hash says nothing of how far the
    /// removal of rows has come.
    ///
    /// # Errors
    /// [`ReadError::Future`], [`ReadError::Compacted`] or [`ReadError::Storage`].
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        let picture = self.picture()?;
        let (current, compact) = (picture.current, picture.compact);
        if revision > current {
            return Err(ReadError::Future { current_revision: current });
        }
        if revision > 0 && revision < compact {
            return Err(ReadError::Compacted { compact_revision: compact });
        }
        picture.hash(if revision == 0 { current } else { revision }, compact)
    }

    /// Hashes what the compaction that is due begins from, everything up to its revision, and keeps that for
    /// [`Store::compacted_hashes`]. To be called before [`Store::compact_step`] takes the first row away.
    /// Members that carry out the same compactions come to the same numbers, whatever they are at by then.
    ///
    /// Nothing where no compaction is due, one has begun already, or one was interrupted by a restart.
    ///
    /// # Errors
    /// When the store fails.
    pub fn hash_before_compaction(&self) -> Result<Option<HashKv>, ReadError> {
        let (picture, finished) = {
            // The view is of before the first step: steps hold this lock.
            let sweep = self.shared.sweep.lock();
            let target = self.compact_revision();
            let Some(finished) = sweep.untouched(target) else { return Ok(None) };
            (Picture { compact: target, ..self.picture()? }, finished)
        };
        if self.shared.compacted_hashes.lock().last().is_some_and(|last| last.revision >= picture.compact) {
            return Ok(None);
        }
        let revision = picture.compact;
        let hash = picture.hash(revision, finished)?;
        let mut kept = self.shared.compacted_hashes.lock();
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push(hash);
        Ok(Some(hash))
    }

    /// What the latest compactions began from, at most ten of them, ascending by revision.
    pub fn compacted_hashes(&self) -> Vec<HashKv> {
        self.shared.compacted_hashes.lock().clone()
    }

    fn picture(&self) -> Result<Picture, ReadError> {
        let state = self.shared.state.read();
        Ok(Picture {
            index: state.index.clone(),
            view: self.shared.backend.view()?,
            current: state.current,
            compact: state.compact,
            bump: state.bump,
        })
    }
}

/// The store at one moment.
struct Picture {
    index: Index,
    view: View,
    current: i64,
    compact: i64,
    bump: Option<Revision>,
}

impl Picture {
    /// Hashes up to `at`, as if `compact` were the last compaction.
    fn hash(self, at: i64, compact: i64) -> Result<HashKv, ReadError> {
        let mut kept = kept(&self.index, self.current, at, compact);
        // To etcd it is a version of a key without a name, and the latest one, which no compaction removes.
        if let Some(bump) = self.bump.filter(|bump| bump.main <= compact.min(at)) {
            let place = kept.partition_point(|kept| *kept < bump);
            kept.insert(place, bump);
        }
        drop(self.index);
        let hash = hash_rows(&self.view, &kept, at, compact)?;
        Ok(HashKv { hash, compact_revision: compact, revision: at })
    }
}

fn hash_rows(view: &View, kept: &[Revision], at: i64, compact: i64) -> Result<u32, ReadError> {
    let mut hash = crc32c::crc32c(b"key");
    let mut kept = kept.iter().peekable();
    let (from, to) = (Revision::default().to_row_key(), Revision::new(at.max(-1) + 1, 0).to_row_key());
    view.for_each_row(from, to, |key, tombstone, record| {
        let revision = Revision::from_row_key(key);
        if revision.main <= compact {
            while kept.next_if(|&&kept| kept < revision).is_some() {}
            if kept.peek() != Some(&&revision) {
                return ControlFlow::Continue(());
            }
        }
        hash = crc32c::crc32c_append(hash, key);
        if tombstone {
            hash = crc32c::crc32c_append(hash, b"t");
        }
        hash = crc32c::crc32c_append(hash, record);
        ControlFlow::Continue(())
    })?;
    Ok(hash)
}

/// The revisions at or below the compacted one that are hashed, ascending.
///
/// They are the ones visible at the hashed revision. If nothing is visible there, etcd takes all that its
/// compaction leaves, which is what is visible at the compacted revision.
fn kept(index: &Index, current: i64, at: i64, compact: i64) -> Vec<Revision> {
    if compact < 0 {
        return Vec::new();
    }
    let visible = |at: i64| {
        let mut any = false;
        let mut revisions = Vec::new();
        Source::new(index, current, at, None).visit(&KeyRange::all(), |_, version| {
            any = true;
            if version.main <= compact {
                revisions.push(version.revision());
            }
            ControlFlow::Continue(())
        });
        any.then_some(revisions)
    };
    let mut revisions = visible(at).or_else(|| visible(compact)).unwrap_or_default();
    revisions.sort_unstable();
    revisions
}
