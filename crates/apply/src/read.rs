//! One way to read, whether inside of a transaction that writes or beside it.

use std::cell::Cell;

use api::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use api::mvccpb::KeyValue;
use bytes::Bytes;
use mvcc::{KeyRange, RangeQuery, RangeResult, ReadError, Record, SortOrder, SortTarget, Store, WriteTxn};

use crate::rejection::{Failure, ReadFailure, Rejection};

/// Reads that all happen at one moment.
pub(crate) trait Reader {
    /// The revision of that moment.
    fn revision(&self) -> i64;
    fn range(&self, query: &RangeQuery) -> Result<RangeResult, ReadFailure>;

    /// One key, if it exists. Without `stored` its key and value may be missing, and nothing but
    /// the index is read.
    fn one(&self, key: &Bytes, stored: bool) -> Result<Option<KeyValue>, ReadFailure>;
}

impl Reader for WriteTxn<'_> {
    fn revision(&self) -> i64 {
        WriteTxn::revision(self)
    }

    fn range(&self, query: &RangeQuery) -> Result<RangeResult, ReadFailure> {
        Ok(WriteTxn::range(self, query)?)
    }

    fn one(&self, key: &Bytes, stored: bool) -> Result<Option<KeyValue>, ReadFailure> {
        if stored {
            return Ok(self.value(key)?.map(|record| record.decode()));
        }
        Ok(self.lookup(key).map(|info| KeyValue {
            create_revision: info.create_revision,
            mod_revision: info.mod_revision.main,
            version: info.version,
            lease: info.lease,
            ..KeyValue::default()
        }))
    }
}

/// A store as of one revision.
pub(crate) struct Pinned<'a> {
    store: &'a Store,
    revision: i64,
    overtaken: Cell<bool>,
}

impl<'a> Pinned<'a> {
    /// The store as it is now.
    pub(crate) fn new(store: &'a Store) -> Self {
        Pinned { store, revision: store.current_revision(), overtaken: Cell::new(false) }
    }

    /// The revision below which nothing can be read.
    pub(crate) fn compact_revision(&self) -> i64 {
        self.store.compact_revision()
    }

    /// Whether a read failed because the pinned revision itself was compacted.
    pub(crate) fn was_overtaken(&self) -> bool {
        self.overtaken.get()
    }
}

impl Reader for Pinned<'_> {
    fn revision(&self) -> i64 {
        self.revision
    }

    fn range(&self, query: &RangeQuery) -> Result<RangeResult, ReadFailure> {
        if query.revision > self.revision {
            return Err(Rejection::FutureRevision.into());
        }
        let now = query.revision <= 0;
        let query =
            RangeQuery { revision: if now { self.revision } else { query.revision }, ..query.clone() };
        let result = self.store.range(&query);
        if now && matches!(result, Err(ReadError::Compacted { .. })) {
            self.overtaken.set(true);
        }
        Ok(result?)
    }

    fn one(&self, key: &Bytes, _stored: bool) -> Result<Option<KeyValue>, ReadFailure> {
        let result = self.range(&RangeQuery::new(KeyRange::Key(key.clone())))?;
        Ok(result.records.first().map(Record::decode))
    }
}

/// The range that a request means, in the store's terms.
pub fn query(request: &RangeRequest) -> RangeQuery {
    let (target, order) = (request.sort_target(), request.sort_order());
    let by_key = target == SortTarget::Key && order != SortOrder::Descend;
    RangeQuery {
        range: KeyRange::from_request(&request.key, &request.range_end),
        revision: request.revision,
        limit: request.limit,
        sort: (!by_key).then_some((target, order)),
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
        keys_only: request.keys_only,
        count_only: request.count_only,
    }
}

/// The answer to a range, its header holding nothing but the revision.
pub(crate) fn range(reader: &impl Reader, request: &RangeRequest) -> Result<RangeResponse, ReadFailure> {
    let result = reader.range(&query(request))?;
    let kvs = decode(&result.records);
    Ok(RangeResponse { header: header(reader.revision()), kvs, more: result.more, count: result.count })
}

/// A header as it stands inside of an answer.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// Everything in a range, now.
pub(crate) fn all_of(reader: &WriteTxn<'_>, range: &KeyRange) -> Result<Vec<KeyValue>, Failure> {
    let query = RangeQuery::new(range.clone());
    match Reader::range(reader, &query) {
        Ok(result) => Ok(decode(&result.records)),
        Err(ReadFailure::Failed(failure)) => Err(failure),
        Err(ReadFailure::Rejected(rejection)) => panic!("reading the present is rejected: {rejection}"),
    }
}

/// The messages of records, sharing their bytes.
pub(crate) fn decode(records: &[Record]) -> Vec<KeyValue> {
    records.iter().map(|record| record.decode()).collect()
}

impl From<ReadError> for ReadFailure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted { .. } => Rejection::Compacted.into(),
            ReadError::Future { .. } => Rejection::FutureRevision.into(),
            error @ ReadError::Storage(_) => Failure::Store(error).into(),
        }
    }
}

impl From<ReadError> for Failure {
    /// For reads of the present, which no rule can refuse.
    fn from(error: ReadError) -> Self {
        Failure::Store(error)
    }
}
