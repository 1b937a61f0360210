//! Getting records out of the backend without an allocation for each.

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
        // One record is the buffer's own bytes, not a copy, while it is still in the buffer. Of many, those
        // are copied too: otherwise a long answer that is sent slowly would keep every one of their
        // allocations from being freed with the buffer.
        let copy_all = revisions.len() > 1;
        let mut chunks = Chunks::default();
        let mut records = Vec::with_capacity(revisions.len());
        for &revision in revisions {
            let key = revision.to_row_key();
            let found = match self.own(revision) {
                Some(bytes) => Some(bytes),
                None if copy_all => self.view.read(&key, |_, bytes| chunks.copy(bytes))?,
                None => self.view.get(&key)?,
            };
            records.push(Record(found.ok_or_else(|| missing(revision))?));
        }
        Ok(records)
    }

    /// The record of a change of the transaction that reads.
    fn own(&self, revision: Revision) -> Option<Bytes> {
        let overlay = self.overlay?;
        let base = overlay.changes().first()?.revision.main;
        (revision.main == base).then(|| overlay.changes()[revision.sub as usize].record.clone())
    }
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
