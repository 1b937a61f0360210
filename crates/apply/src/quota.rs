//! How much a member may store.
//!
//! The quota is asked twice. The member that receives a request asks before it proposes, and
//! refuses. When the command is applied it is asked again, because others proposed at the same
//! time: but then the command takes effect whatever the answer, or members with different disks
//! would part ways. Only its outcome says that there is no space, and an alarm is raised.
//!
//! Counted are the bytes in use: a file does not shrink at once, and free space in it can be
//! written again.

use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{PutRequest, RequestOp, TxnRequest};

/// What a quota is if nobody says: 2 GiB, as in etcd.
pub const DEFAULT_BYTES: u64 = 2 << 30;

/// What a lease is charged, in bytes.
pub const LEASE_COST: u64 = 64;

/// What a put is charged beyond its key and value, in bytes.
const PUT_COST: u64 = 256;

/// A bound on the bytes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    limit: Option<u64>,
}

impl Quota {
    /// The meaning of etcd's flag: below zero there is no quota, zero is the default.
    pub fn from_flag(bytes: i64) -> Self {
        let limit = match u64::try_from(bytes) {
            Ok(0) => Some(DEFAULT_BYTES),
            Ok(bytes) => Some(bytes),
            Err(_) => None,
        };
        Quota { limit }
    }

    /// The bound in bytes, if there is one.
    pub fn limit(self) -> Option<u64> {
        self.limit
    }

    /// Whether something of this cost still fits beside what is in use, both in bytes. What costs
    /// nothing always fits.
    pub fn admits(self, cost: u64, in_use: u64) -> bool {
        cost == 0 || self.limit.is_none_or(|limit| in_use.saturating_add(cost) < limit)
    }
}

/// What a put is charged, in bytes.
pub fn put_cost(request: &PutRequest) -> u64 {
    PUT_COST + (request.key.len() + request.value.len()) as u64
}

/// What a transaction is charged, in bytes: its dearer branch.
pub fn txn_cost(request: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| -> u64 {
        let cost = |op: &RequestOp| match &op.request {
            Some(Request::RequestPut(request)) => put_cost(request),
            Some(Request::RequestTxn(request)) => txn_cost(request),
            Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
        };
        ops.iter().map(cost).sum()
    };
    branch(&request.success).max(branch(&request.failure))
}
