//! Rebuilding the index from the stored rows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use backend::Backend;
use bytes::Bytes;

use crate::compaction::{self, Sweep};
use crate::history::{History, Version};
use crate::index::Builder;
use crate::read::ReadError;
use crate::record::{Header, Malformed};
use crate::replay::{malformed, version_of};
use crate::revision::Revision;
use crate::store::State;

/// What was found when a store was opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The keys that are attached to a lease, in key order: the lessor's attachments.
    pub leases: Vec<(Bytes, i64)>,
    /// How many keys exist.
    pub keys: usize,
    /// How many rows were read.
    pub rows: usize,
}

pub(crate) fn rebuild(backend: &Backend) -> Result<(State, Sweep, Opened), ReadError> {
    let scheduled = compaction::scheduled(backend)?.unwrap_or(-1);
    let finished = compaction::finished(backend)?.unwrap_or(-1);
    let mut map: BTreeMap<Vec<u8>, History> = BTreeMap::new();
    let mut current = 1;
    let mut rows = 0;
    let mut damaged = None;
    let (from, to) = (Revision::default().to_row_key(), Revision::new(i64::MAX, i64::MAX).to_row_key());
    backend.view()?.for_each_row(from, to, |key, tombstone, record| {
        rows += 1;
        let at = Revision::from_row_key(key);
        current = at.main;
        let parsed = Header::parse(record).and_then(|header| {
            if tombstone {
                let version = if header.key.is_empty() { Err(Malformed) } else { Ok(Version::tombstone(at)) };
                return Ok((header.key, version?));
            }
            Ok((header.key, version_of(at, &header)?))
        });
        let Ok((key, version)) = parsed else {
            damaged = Some(at.main);
            return ControlFlow::Break(());
        };
        match map.get_mut(key) {
            Some(history) => history.push(version),
            None => _ = map.insert(key.to_vec(), History::new(version)),
        }
        ControlFlow::Continue(())
    })?;
    if let Some(at) = damaged {
        return Err(ReadError::Storage(malformed(at)));
    }
    let live = |history: &&History| history.is_live();
    let keys = map.values().filter(live).count();
    let leases = map
        .iter()
        .filter(|(_, history)| history.is_live() && history.latest().lease != 0)
        .map(|(key, history)| (Bytes::copy_from_slice(key), history.latest().lease))
        .collect();
    let mut builder = Builder::new();
    map.iter().for_each(|(key, history)| builder.push(key, history.clone()));
    let index = builder.finish();
    // Revisions never go back: what was compacted away existed.
    let compact = scheduled.max(finished);
    let state = State { index: index, current: current.max(compact), compact };
    Ok((state, Sweep::new(finished), Opened { leases, keys, rows }))
}
