//! Getting records out of the backend without an allocation for each.

use std::ops::ControlFlow;

use api::etcdserverpb::range_request::SortOrder;
use backend::View;
use bytes::{Bytes, BytesMut};

use crate::overlay::Overlay;
use crate::read::{RangeQuery, ReadError, Records, missing};
use crate::record::{self, Header, Record};
use crate::revision::Revision;
use crate::select::Pick;

/// Buffers that many records share. A record keeps its whole chunk alive, so chunks begin small and grow
/// with the answer: a short answer does not hold much more than itself, and a long one does not make many
/// allocations.
#[derive(Default)]
pub(crate) struct Chunks {
    open: BytesMut,
    next: usize,
}

const SMALLEST_CHUNK: usize = 4 << 10;
const LARGEST_CHUNK: usize = 1 << 20;

impl Chunks {
    /// Copies these bytes to the end of the open chunk.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        self.reserve(bytes.len());
        self.open.extend_from_slice(bytes);
        self.open.split().freeze()
    }

    /// Encodes a record without value at the end of the open chunk.
    pub(crate) fn encode(&mut self, header: &Header<'_>) -> Bytes {
        self.reserve(record::encoded_len(header, &[]));
        record::encode_into(&mut self.open, header);
        self.open.split().freeze()
    }

    fn reserve(&mut self, len: usize) {
        if self.open.capacity() < len {
            self.next = (self.next * 2).clamp(SMALLEST_CHUNK, LARGEST_CHUNK);
            // A record that is large by itself gets exactly its own size.
            let size = if len > self.next / 2 { len } else { self.next };
            self.open = BytesMut::with_capacity(size);
        }
    }
}

/// Fetches the records that a selection picked.
pub(crate) struct Fetch<'a> {
    view: View,
    overlay: Option<&'a Overlay>,
}

impl<'a> Fetch<'a> {
    pub(crate) fn new(view: View, overlay: Option<&'a Overlay>) -> Fetch<'a> {
        Fetch { view, overlay }
    }

    /// The picked records, and whether the limit cut some off here.
    pub(crate) fn pick(&self, query: &RangeQuery, pick: Pick) -> Result<(Records, bool), ReadError> {
        match pick {
            Pick::Records(records) => Ok((records, false)),
            Pick::Revisions(revisions) => Ok((self.fetch(&revisions)?, false)),
            Pick::ByValue(revisions) => Ok(cut(query, by_value(query, self.fetch(&revisions)?))),
        }
    }

    fn fetch(&self, revisions: &[Revision]) -> Result<Records, ReadError> {
        if let &[one] = revisions {
            // The buffer's own bytes, not a copy, when the record is still in the buffer.
            let own = self.own(one);
            let found = if own.is_some() { own } else { self.view.get(&one.to_row_key())? };
            return Ok(vec![Record(found.ok_or_else(|| missing(one))?)]);
        }
        let mut records = vec![Record(Bytes::new()); revisions.len()];
        let mut stored = Vec::with_capacity(revisions.len());
        for (place, &revision) in revisions.iter().enumerate() {
            match self.own(revision) {
                Some(bytes) => records[place].0 = bytes,
                None => stored.push((revision, place)),
            }
        }
        // All are copied, also those of the buffer: an answer that is sent slowly would else keep every one of
        // their allocations from being freed with the buffer.
        let mut chunks = Chunks::default();
        let mut left = &stored[..];
        if is_dense(&stored) {
            stored.sort_unstable();
            left = self.scan(&stored, &mut chunks, &mut records)?;
        }
        for &(revision, place) in left {
            let found = self.view.read(&revision.to_row_key(), |_, bytes| chunks.copy(bytes))?;
            records[place].0 = found.ok_or_else(|| missing(revision))?;
        }
        Ok(records)
    }

    /// Fetches the records of ascending revisions with one scan over all rows between them. Gives up, and
    /// returns what is left, when there are too many others in between.
    fn scan<'s>(
        &self,
        stored: &'s [(Revision, usize)],
        chunks: &mut Chunks,
        records: &mut Records,
    ) -> Result<&'s [(Revision, usize)], ReadError> {
        let [(first, _), .., (last, _)] = stored else { return Ok(stored) };
        let mut left = stored;
        let mut others = stored.len() * WORTH_OTHERS;
        self.view.for_each_row(first.to_row_key(), last.next().to_row_key(), |key, _, bytes| {
            match left.split_first() {
                Some((&(revision, place), rest)) if revision.to_row_key() == *key => {
                    records[place].0 = chunks.copy(bytes);
                    left = rest;
                }
                _ => others = others.saturating_sub(1),
            }
            if left.is_empty() || others == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(left)
    }

    /// The record of a change of the transaction that reads.
    fn own(&self, revision: Revision) -> Option<Bytes> {
        let overlay = self.overlay?;
        let base = overlay.changes().first()?.revision.main;
        (revision.main == base).then(|| overlay.changes()[revision.sub as usize].record.clone())
    }
}

/// Searching for a row costs as much as passing by this many.
const WORTH_OTHERS: usize = 4;

/// Whether these rows lie so close together that a scan finds them faster than a search for each. Keys that
/// were written one after the other often do.
fn is_dense(stored: &[(Revision, usize)]) -> bool {
    let mains = || stored.iter().map(|(revision, _)| revision.main);
    let (Some(first), Some(last)) = (mains().min(), mains().max()) else { return false };
    stored.len() > 8 && (last - first) as u64 <= (stored.len() * WORTH_OTHERS) as u64
}

fn by_value(query: &RangeQuery, mut records: Records) -> Records {
    fn value(record: &Record) -> &[u8] {
        record::value_of(&record.0).expect("a record of the store is an encoded KeyValue")
    }
    if query.order() == SortOrder::Descend {
        records.sort_by(|a, b| value(b).cmp(value(a)));
    } else {
        records.sort_by(|a, b| value(a).cmp(value(b)));
    }
    records
}

/// Cuts sorted records at the limit, and their values off where only keys are asked for.
fn cut(query: &RangeQuery, mut records: Records) -> (Records, bool) {
    let limit = usize::try_from(query.limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
    let more = records.len() > limit;
    records.truncate(limit);
    if query.keys_only {
        let mut chunks = Chunks::default();
        for record in &mut records {
            let header = Header::parse(&record.0).expect("a record of the store is an encoded KeyValue");
            record.0 = chunks.encode(&header);
        }
    }
    (records, more)
}
