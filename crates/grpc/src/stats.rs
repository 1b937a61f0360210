//! What the log tells of a slow call besides its time: what was asked, and how much that and the answer were.
//!
//! Only the service of a call knows that, and only whoever counts calls knows all of their time; so the one
//! leaves it with the answer for the other. It is made of calls that were slow already when they were
//! answered, and where the log wants to hear of all of them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::etcdserverpb::{InternalRaftRequest, RangeRequest, TxnRequest, TxnResponse};
use api::loggable;
use apply::Body;
use prost::Message as _;
use tonic::{Response, Status};

/// Counts and bytes; -1 where nobody has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) request_count: i64,
    pub(crate) request_size: i64,
    pub(crate) response_count: i64,
    pub(crate) response_size: i64,
    /// The request, without values.
    pub(crate) content: String,
}

impl Stats {
    /// Of a call that nothing is known of.
    pub(crate) const UNKNOWN: Stats = Stats {
        request_count: -1,
        request_size: -1,
        response_count: -1,
        response_size: -1,
        content: String::new(),
    };

    /// Of what went through the log; nothing for what etcd does not count.
    pub(crate) fn of_entry(data: &[u8], answer: Option<&Body>) -> Option<Self> {
        let request = InternalRaftRequest::decode(data).ok()?;
        let response_size = answer.map_or(0, |body| length(body.size()));
        let (request_count, request_size, response_count, content) = if let Some(put) = &request.put {
            (1, put.encoded_len(), 0, loggable::put(put))
        } else if let Some(delete) = &request.delete_range {
            let deleted = match answer {
                Some(Body::DeleteRange(answer)) => answer.deleted,
                _ => 0,
            };
            (0, delete.encoded_len(), deleted, loggable::delete_range(delete))
        } else if let Some(txn) = &request.txn {
            let answer = match answer {
                Some(Body::Txn(answer)) => Some(answer),
                _ => None,
            };
            return Some(Self::of_txn(txn, answer));
        } else {
            return None;
        };
        let request_size = length(request_size);
        Some(Self { request_count, request_size, response_count, response_size, content })
    }

    /// Of a range; how many keys there are and the bytes of the answer, if there is one.
    pub(crate) fn of_range(request: &RangeRequest, answer: Option<(i64, usize)>) -> Self {
        let (response_count, response_size) = answer.unwrap_or_default();
        Self {
            request_count: 0,
            request_size: length(request.encoded_len()),
            response_count,
            response_size: length(response_size),
            content: loggable::range(request),
        }
    }

    /// Of a transaction.
    pub(crate) fn of_txn(request: &TxnRequest, answer: Option<&TxnResponse>) -> Self {
        let branch = match answer {
            Some(answer) if answer.succeeded => &request.success,
            _ => &request.failure,
        };
        Self {
            request_count: length(branch.len()),
            request_size: length(branch.iter().map(prost::Message::encoded_len).sum()),
            response_count: 0,
            response_size: answer.map_or(0, |answer| length(answer.encoded_len())),
            content: loggable::txn(request),
        }
    }

    /// What an answer carries along.
    pub(crate) fn left_with<B>(answer: &http::Response<B>) -> Option<&Stats> {
        let extensions = answer.extensions();
        // tonic leaves the status of a refused call there.
        let refused = || extensions.get::<Status>()?.source()?.downcast_ref();
        extensions.get::<Arc<Stats>>().map(AsRef::as_ref).or_else(refused)
    }

    /// Leaves this with an answer.
    pub(crate) fn leave<T>(self, answer: &mut Result<Response<T>, Status>) {
        match answer {
            Ok(response) => _ = response.extensions_mut().insert(Arc::new(self)),
            Err(status) => _ = status.set_source(Arc::new(self)),
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.content)
    }
}

impl Error for Stats {}

/// Whether anybody wants to know more of a call that began then.
pub(crate) fn wanted(began: Instant, slow: Duration) -> bool {
    tracing::enabled!(tracing::Level::DEBUG) || began.elapsed() > slow
}

pub(crate) fn length(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::{PutRequest, PutResponse};
    use api::raft_request;

    use super::*;

    fn put() -> Stats {
        let put = PutRequest { key: "k".into(), value: "secret".into(), ..PutRequest::default() };
        let body = Body::Put(PutResponse::default());
        Stats::of_entry(&raft_request::encode(7, &put), Some(&body)).expect("a put is counted")
    }

    #[test]
    fn a_put_is_told_without_its_value() {
        let Stats { request_count, request_size, response_count, response_size, content } = put();
        assert_eq!((request_count, request_size, response_count, response_size), (1, 11, 0, 0));
        assert_eq!(content, "key:\"k\" value_size:6 ");
    }

    #[test]
    fn stats_are_found_with_an_answer_and_with_a_refusal() {
        let mut answer = Ok(Response::new(()));
        put().leave(&mut answer);
        let answer = answer.expect("it was left as it is").into_parts();
        let mut response = http::Response::new(());
        *response.extensions_mut() = answer.2;
        assert_eq!(Stats::left_with(&response), Some(&put()));
        let mut refusal: Result<Response<()>, Status> = Err(Status::unavailable("x"));
        put().leave(&mut refusal);
        let refusal: http::Response<()> = refusal.expect_err("it was left as it is").into_http();
        assert_eq!(Stats::left_with(&refusal), Some(&put()));
    }
}
