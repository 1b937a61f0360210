//! Puts, deletions and transactions in terms of the store's verbs.
//!
//! A transaction is worked off in three passes over the same tree, so that it cannot fail half-way:
//! first all comparisons, nested ones included, against the state before the transaction, which
//! fixes the path through the tree; then every check of the operations on that path, still against
//! the state before; and only then the operations, each seeing what the earlier ones wrote. After
//! the second pass nothing but the disk can fail, and that stops the member before it commits.
//!
//! Order of checks: etcd 3.7.1 checks the operations in their order, and of a put first the lease,
//! then that the key to be ignored from exists. (3.5.1 checks all puts first, key before lease, and
//! then all ranges. The two differ only in which of several errors is told.)

use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use bytes::Bytes;
use lease::{LeaseId, Lessor};
use mvcc::{Committed, KeyRange, Store, WriteTxn};
use parking_lot::Mutex;

use crate::check;
use crate::compare;
use crate::read::{self, Pinned, Reader, header};
use crate::rejection::{Failure, ReadFailure, Rejection};

/// Whether a transaction only reads, whichever branch it takes; then it need not go through the
/// log. Nested transactions count as writes, as in etcd.
pub fn is_read_only(request: &TxnRequest) -> bool {
    all_ranges(request, |_| true)
}

/// Whether a transaction is content with what this member has: all its operations are serializable
/// ranges.
pub fn is_serializable(request: &TxnRequest) -> bool {
    all_ranges(request, |range| range.serializable)
}

fn all_ranges(request: &TxnRequest, test: impl Fn(&RangeRequest) -> bool) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => test(range),
        _ => false,
    })
}

/// A read-only transaction, outside of the log, all of it at one revision.
///
/// # Errors
/// A rejection, or a failure to read the store.
///
/// # Panics
/// If the transaction is not read-only: see [`is_read_only`].
pub fn read_only(store: &Store, request: &TxnRequest) -> Result<TxnResponse, ReadFailure> {
    assert!(is_read_only(request), "a transaction that may write goes through the log");
    loop {
        let reader = Pinned::new(store);
        match read_only_at(&reader, request) {
            // A compaction passed the revision this began at. What it would have read is gone, so
            // it begins anew; whoever asked for an old revision by number is told at the check.
            Err(ReadFailure::Rejected(Rejection::Compacted)) if reader.was_overtaken() => {}
            done => return done,
        }
    }
}

fn read_only_at(reader: &Pinned<'_>, request: &TxnRequest) -> Result<TxnResponse, ReadFailure> {
    let succeeded = compare::all(reader, &request.compare)?;
    let ops = branch(request, succeeded);
    let compacted = reader.compact_revision();
    for op in ops {
        if let Some(Request::RequestRange(range)) = &op.request {
            check_range(range, reader.revision(), compacted)?;
        }
    }
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        let response = match &op.request {
            Some(Request::RequestRange(range)) => Some(Response::ResponseRange(read::range(reader, range)?)),
            _ => None,
        };
        responses.push(ResponseOp { response });
    }
    Ok(TxnResponse { header: header(reader.revision()), succeeded, responses })
}

/// Keys that a write took from one lease to another, none being one of them.
type Moves = Vec<(Bytes, LeaseId, LeaseId)>;

/// One command's writes under way, and what they will do to leases once they are committed.
pub(crate) struct Writing<'a> {
    txn: WriteTxn<'a>,
    moves: Moves,
}

impl<'a> Writing<'a> {
    pub(crate) fn new(txn: WriteTxn<'a>) -> Self {
        Writing { txn, moves: Vec::new() }
    }

    /// A put that stands alone.
    pub(crate) fn put_alone(
        &mut self,
        lessor: &Mutex<Lessor>,
        request: &PutRequest,
    ) -> Result<PutResponse, ReadFailure> {
        if request.key.is_empty() {
            return Err(Rejection::EmptyKey.into());
        }
        check_lease(lessor, request)?;
        if (request.ignore_value || request.ignore_lease) && self.txn.lookup(&request.key).is_none() {
            return Err(Rejection::KeyNotFound.into());
        }
        Ok(PutResponse { header: None, ..self.put(request)? })
    }

    /// A put whose checks are done.
    fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Failure> {
        let previous = if request.ignore_value || request.prev_kv {
            self.txn.value(&request.key)?.map(|record| record.decode())
        } else {
            None
        };
        let value = match &previous {
            Some(previous) if request.ignore_value => previous.value.clone(),
            _ => request.value.clone(),
        };
        let lease = if request.ignore_lease {
            self.txn.lookup(&request.key).map_or(0, |info| info.lease)
        } else {
            request.lease
        };
        let before = self.txn.put(request.key.clone(), value, lease);
        let (from, to) = (LeaseId(before.map_or(0, |info| info.lease)), LeaseId(lease));
        if from != to {
            self.moves.push((request.key.clone(), from, to));
        }
        let prev_kv = previous.filter(|_| request.prev_kv);
        Ok(PutResponse { header: header(self.txn.revision()), prev_kv })
    }

    /// A deletion, alone or in a transaction.
    fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Failure> {
        let range = KeyRange::from_request(&request.key, &request.range_end);
        let prev_kvs = if request.prev_kv { read::all_of(&self.txn, &range)? } else { Vec::new() };
        let gone = self.txn.delete_range(&range);
        let deleted = gone.len() as i64;
        let leased = gone.into_iter().filter(|(_, info)| info.lease != 0);
        self.moves.extend(leased.map(|(key, info)| (key, LeaseId(info.lease), LeaseId::NONE)));
        Ok(DeleteRangeResponse { header: header(self.txn.revision()), deleted, prev_kvs })
    }

    /// A deletion that stands alone.
    pub(crate) fn delete_alone(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Failure> {
        Ok(DeleteRangeResponse { header: None, ..self.delete_range(request)? })
    }

    /// Makes the writes visible, and moves their keys between leases.
    pub(crate) fn commit(self, lessor: &Mutex<Lessor>) -> Option<Committed> {
        let committed = self.txn.commit();
        if !self.moves.is_empty() {
            let mut lessor = lessor.lock();
            for (key, from, to) in self.moves {
                lessor
                    .move_key(&key, from, to)
                    .expect("a put's lease was checked, and only entries end leases");
            }
        }
        committed
    }

    /// A whole transaction.
    pub(crate) fn txn(
        &mut self,
        lessor: &Mutex<Lessor>,
        compacted: i64,
        request: &TxnRequest,
    ) -> Result<TxnResponse, ReadFailure> {
        let mut path = Vec::with_capacity(1);
        decide(&self.txn, request, &mut path)?;
        let mut checker =
            Checker { reader: &self.txn, compacted, lessor, path: path.iter(), writes: Vec::new() };
        checker.check(request)?;
        Ok(self.execute(request, &mut path.iter())?)
    }

    fn execute(
        &mut self,
        request: &TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<TxnResponse, Failure> {
        let succeeded = next(path);
        let ops = branch(request, succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => {
                    let response = match read::range(&self.txn, range) {
                        Ok(response) => response,
                        Err(ReadFailure::Failed(failure)) => return Err(failure),
                        Err(ReadFailure::Rejected(rejection)) => {
                            panic!("a checked range is rejected in a transaction: {rejection}")
                        }
                    };
                    Some(Response::ResponseRange(response))
                }
                Some(Request::RequestPut(put)) => Some(Response::ResponsePut(self.put(put)?)),
                Some(Request::RequestDeleteRange(delete)) => {
                    Some(Response::ResponseDeleteRange(self.delete_range(delete)?))
                }
                Some(Request::RequestTxn(nested)) => {
                    let mut response = self.execute(nested, path)?;
                    // etcd fills the header of the outermost answer alone.
                    response.header = Some(ResponseHeader::default());
                    Some(Response::ResponseTxn(response))
                }
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        Ok(TxnResponse { header: None, succeeded, responses })
    }
}

/// The first pass: which branch each transaction on the way takes, in the order in which the
/// passes meet them.
fn decide(reader: &impl Reader, request: &TxnRequest, path: &mut Vec<bool>) -> Result<(), ReadFailure> {
    let succeeded = compare::all(reader, &request.compare)?;
    path.push(succeeded);
    for op in branch(request, succeeded) {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            decide(reader, nested, path)?;
        }
    }
    Ok(())
}

/// The second pass.
struct Checker<'a, R> {
    reader: &'a R,
    compacted: i64,
    lessor: &'a Mutex<Lessor>,
    path: std::slice::Iter<'a, bool>,
    writes: Vec<Write<'a>>,
}

/// What an operation on the path will have done by the time a later one runs.
enum Write<'a> {
    Put(&'a [u8]),
    Delete(KeyRange),
}

impl<'a, R: Reader> Checker<'a, R> {
    fn check(&mut self, request: &'a TxnRequest) -> Result<(), ReadFailure> {
        let succeeded = next(&mut self.path);
        for op in branch(request, succeeded) {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    check_range(range, self.reader.revision(), self.compacted)?
                }
                Some(Request::RequestPut(put)) => {
                    if put.key.is_empty() {
                        return Err(Rejection::EmptyKey.into());
                    }
                    check_lease(self.lessor, put)?;
                    if (put.ignore_value || put.ignore_lease) && !self.will_exist(&put.key)? {
                        return Err(Rejection::KeyNotFound.into());
                    }
                    self.writes.push(Write::Put(&put.key));
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    self.writes.push(Write::Delete(KeyRange::from_request(&delete.key, &delete.range_end)));
                }
                Some(Request::RequestTxn(nested)) => self.check(nested)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Whether the key will exist when the operation at hand runs. etcd only asks whether it exists
    /// before the transaction, and crashes where a deletion "from this key on" went before, which
    /// the duplicate check lets pass.
    fn will_exist(&self, key: &Bytes) -> Result<bool, ReadFailure> {
        for write in self.writes.iter().rev() {
            match write {
                Write::Put(put) if *put == key => return Ok(true),
                Write::Delete(range) if range.contains(key) => return Ok(false),
                _ => {}
            }
        }
        Ok(self.reader.one(key, false)?.is_some())
    }
}

fn check_lease(lessor: &Mutex<Lessor>, request: &PutRequest) -> Result<(), Rejection> {
    if request.lease != 0 && !lessor.lock().contains(LeaseId(request.lease)) {
        return Err(Rejection::LeaseNotFound);
    }
    Ok(())
}

/// In a transaction, unlike alone, a negative revision does not always mean the present: it is held
/// against the compacted one like any other (which is -1 before the first compaction), as in etcd.
fn check_range(request: &RangeRequest, current: i64, compacted: i64) -> Result<(), Rejection> {
    // An entry may hold what no request could: it was not checked by this version.
    check::range(request)?;
    match request.revision {
        0 => Ok(()),
        revision if revision > current => Err(Rejection::FutureRevision),
        revision if revision < compacted => Err(Rejection::Compacted),
        _ => Ok(()),
    }
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

fn next(path: &mut std::slice::Iter<'_, bool>) -> bool {
    *path.next().expect("the passes meet the same transactions in the same order")
}
