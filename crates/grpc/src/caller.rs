//! The member's own services, called in the name of a client: what locks and elections are made of.
//!
//! etcd builds both from a client of its own API inside the server, and so does this: every read and write
//! goes to the KV and lease services with the metadata of the client's call, so that it is checked, allowed
//! and proposed as if the client had sent it.

use std::sync::Arc;

use api::error::Error as Etcd;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::kv_server::Kv as _;
use api::etcdserverpb::lease_server::Lease as _;
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request as Operation;
use api::etcdserverpb::response_op::Response as Outcome;
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
use bytes::Bytes;
use server::{Member, WatchStream};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::status;

/// How long the lease lasts that a session gets which has brought none, in seconds (etcd's number).
const SESSION_TTL: i64 = 60;

/// What the services of locks and elections share.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) member: Arc<Member>,
    pub(crate) kv: Arc<KvService>,
    pub(crate) lease: Arc<LeaseService>,
}

/// One client's call, on whose behalf other calls are made.
#[derive(Clone)]
pub(crate) struct Caller {
    home: Home,
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Caller {
    /// Takes a request apart: in whose name, and what is asked.
    pub(crate) fn of<T>(home: &Home, request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Self { home: home.clone(), metadata, extensions }, message)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    /// The lease of a session: the one it names, or a new one.
    pub(crate) async fn session(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let grant = self.request(LeaseGrantRequest { ttl: SESSION_TTL, id: 0 });
        let granted = self.home.lease.lease_grant(grant).await.map_err(plain)?;
        Ok(granted.into_inner().id)
    }

    pub(crate) async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Status> {
        self.home.kv.range(self.request(range)).await.map(tonic::Response::into_inner).map_err(plain)
    }

    pub(crate) async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        self.home.kv.txn(self.request(txn)).await.map(tonic::Response::into_inner).map_err(plain)
    }

    pub(crate) async fn delete(&self, key: Bytes) -> Result<DeleteRangeResponse, Status> {
        let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        self.home.kv.delete_range(self.request(delete)).await.map(tonic::Response::into_inner).map_err(plain)
    }

    /// A stream of its own for watchers of keys that the client has just been allowed to read.
    pub(crate) fn watch(&self) -> Watch {
        Watch(WatchStream::open(Arc::clone(&self.home.member)))
    }
}

/// Watchers, for this process.
pub(crate) struct Watch(WatchStream);

impl Watch {
    /// Adds a watcher.
    pub(crate) fn add(&self, create: &WatchCreateRequest) {
        let create = ::watch::WatchRequest::from_message(create);
        self.0.with(|hub, stream, revision| hub.create(stream, create, revision));
    }

    /// What is next; an error once the member stops.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, Status> {
        match std::future::poll_fn(|context| self.0.poll_next(context)).await {
            Some(frame) => Ok(frame.to_message()),
            None => Err(status::etcd(Etcd::Stopped)),
        }
    }
}

/// etcd's locks and elections pass on what its own errors say, but not their codes.
fn plain(status: Status) -> Status {
    if status.message().starts_with("etcdserver: ") { Status::unknown(status.message()) } else { status }
}

/// Whether `key` was created at `revision`; 0 asks whether there is none.
pub(crate) fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

pub(crate) fn get(key: &Bytes) -> RequestOp {
    one(Operation::RequestRange(RangeRequest { key: key.clone(), ..RangeRequest::default() }))
}

pub(crate) fn put(key: &Bytes, value: &Bytes, lease: i64) -> RequestOp {
    let put = PutRequest { key: key.clone(), value: value.clone(), lease, ..PutRequest::default() };
    one(Operation::RequestPut(put))
}

pub(crate) fn delete(key: &Bytes) -> RequestOp {
    one(Operation::RequestDeleteRange(DeleteRangeRequest {
        key: key.clone(),
        ..DeleteRangeRequest::default()
    }))
}

pub(crate) fn one(request: Operation) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Below a name: the prefix of its keys, and the first key after them.
pub(crate) fn below(name: &Bytes) -> (Bytes, Bytes) {
    let with = |last: u8| [name.as_ref(), &[last]].concat().into();
    // The slash, and what comes after it in the order of bytes.
    (with(b'/'), with(b'/' + 1))
}

/// The key below a name that was created first.
pub(crate) fn oldest(name: &Bytes) -> RangeRequest {
    let (key, range_end) = below(name);
    RangeRequest {
        key,
        range_end,
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

/// The key below a name that was created last, but before `revision`.
pub(crate) fn last_before(name: &Bytes, revision: i64) -> RangeRequest {
    RangeRequest {
        sort_order: SortOrder::Descend.into(),
        // 0 would stand for no bound at all; the first revision of all creates no key.
        max_create_revision: (revision - 1).max(1),
        ..oldest(name)
    }
}

/// The answer of the operation at `index` of a transaction's branch, which read.
pub(crate) fn read_at(response: &mut TxnResponse, index: usize) -> Result<RangeResponse, Status> {
    match response.responses.get_mut(index).and_then(|operation| operation.response.take()) {
        Some(Outcome::ResponseRange(range)) => Ok(range),
        other => Err(Status::internal(format!("unexpected outcome of a read: {other:?}"))),
    }
}

/// The revision of an answer.
pub(crate) fn revision(header: Option<&api::etcdserverpb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
