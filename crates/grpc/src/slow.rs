//! Reads that took long, in the log. Those of writes are `server`'s to tell.

use std::time::{Duration, Instant};

use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{RangeRequest, TxnRequest, TxnResponse};
use api::loggable;
use mvcc::RangeResult;
use prost::Message as _;
use server::Member;
use tonic::Status;

use crate::range::Clock;

/// What is over at such a moment, in etcd's words, and in others where it does it in several steps.
pub(crate) const AGREED: &str = "agreement among raft nodes before linearized reading";
pub(crate) const PERMITTED: &str = "get authentication metadata";
pub(crate) const READ: &str = "range keys from the index and the backend";

/// A range took longer than `--warning-apply-duration`.
pub(crate) fn range(
    member: &Member,
    request: &RangeRequest,
    outcome: &Result<RangeResult, Status>,
    took: Duration,
) {
    let response = outcome.as_ref().map_or_else(
        |_| String::new(),
        |result| {
            let size: usize = result.records.iter().map(|record| record.0.len()).sum();
            format!("range_response_count:{} size:{size}", result.records.len())
        },
    );
    let error = outcome.as_ref().err().map(|status| status.message().to_owned());
    server::took_too_long(member, "read-only range ", loggable::range(request), response, error, took);
}

/// Where the time of a range went.
pub(crate) fn trace_range(request: &RangeRequest, outcome: &Result<RangeResult, Status>, clock: &Clock) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut detail = vec![("range_begin", text(&request.key)), ("range_end", text(&request.range_end))];
    if let Ok(result) = outcome {
        detail.push(("response_count", result.records.len().to_string()));
        detail.push(("response_revision", result.revision.to_string()));
    }
    let steps = [
        (AGREED, clock.agreed - clock.began),
        (PERMITTED, clock.permitted - clock.agreed),
        (READ, clock.read - clock.permitted),
    ];
    server::trace("range", &detail, clock.read - clock.began, &steps);
}

/// A transaction that only reads took longer than `--warning-apply-duration`.
pub(crate) fn read_txn(
    member: &Member,
    request: &TxnRequest,
    outcome: &Result<TxnResponse, Status>,
    took: Duration,
) {
    let response = outcome.as_ref().map_or_else(
        |_| String::new(),
        |answer| {
            let counts: Vec<String> = answer
                .responses
                .iter()
                .filter_map(|op| match &op.response {
                    Some(Response::ResponseRange(range)) => {
                        Some(format!("range_response_count:{}", range.kvs.len()))
                    }
                    _ => None,
                })
                .collect();
            format!("responses:<{}> size:{}", counts.join(" "), answer.encoded_len())
        },
    );
    let error = outcome.as_ref().err().map(|status| status.message().to_owned());
    server::took_too_long(member, "read-only txn ", loggable::txn(request), response, error, took);
}

/// Where the time of a transaction that only reads went: when it began, was agreed to, and permitted.
pub(crate) fn trace_txn([began, agreed, permitted]: [Instant; 3]) {
    let now = Instant::now();
    let steps = [(AGREED, agreed - began), (PERMITTED, permitted - agreed), (READ, now - permitted)];
    server::trace("transaction", &[("read_only", "true".to_owned())], now - began, &steps);
}
