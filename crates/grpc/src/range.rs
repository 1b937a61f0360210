//! Range: the request that is served on its own task, and its answer, written from stored records.

use std::sync::Arc;
use std::time::Instant;

use api::error::Error as Etcd;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{Compare, RangeRequest, RequestOp, ResponseHeader, TxnRequest, TxnResponse};
use api::raft_request::Op;
use apply::permission;
use bytes::BufMut;
use mvcc::{KeyRange, RangeQuery, RangeResult};
use prost::Message as _;
use server::Member;
use tonic::{Extensions, Response, Status};

use crate::access::Reader;
use crate::codec::{Wire, varint_length, write_delimited};
use crate::stats::{self, Stats};
use crate::trace::Trace;
use crate::{slow, status};

/// Lists longer than this are read on a thread of their own: a connection's thread has other
/// requests to serve meanwhile.
const LONG: usize = 1_001;

/// The same for lists of so many bytes.
const HEAVY: u64 = 64 << 20;

/// `RangeResponse`, its keys as they are stored.
pub(crate) struct RangeReply {
    header: ResponseHeader,
    result: RangeResult,
}

impl Wire for RangeReply {
    fn length(&self) -> usize {
        let header = self.header.encoded_len();
        let records: usize = self
            .result
            .records
            .iter()
            .map(|record| 1 + varint_length(record.0.len() as u64) + record.0.len())
            .sum();
        let more = if self.result.more { 2 } else { 0 };
        let count = if self.result.count == 0 { 0 } else { 1 + varint_length(self.result.count as u64) };
        1 + varint_length(header as u64) + header + records + more + count
    }

    fn write(&self, to: &mut impl BufMut) {
        write_delimited(1, self.header.encoded_len(), to);
        self.header.encode_raw(to);
        for record in self.result.records.iter() {
            write_delimited(2, record.0.len(), to);
            to.put_slice(&record.0);
        }
        if self.result.more {
            to.put_slice(&[3 << 3, 1]);
        }
        if self.result.count != 0 {
            to.put_u8(4 << 3);
            prost::encoding::encode_varint(self.result.count as u64, to);
        }
    }
}

/// Serves one range.
pub(crate) async fn serve(
    member: Arc<Member>,
    request: tonic::Request<RangeRequest>,
) -> Result<Response<RangeReply>, Status> {
    let (_, extensions, request) = request.into_parts();
    let began = Instant::now();
    let outcome = answer(&member, &extensions, &request).await;
    let mut outcome = outcome.map(|result| {
        let header = member.header(result.revision);
        Response::new(RangeReply { header, result })
    });
    if stats::wanted(began, member.config().warning_request) {
        let reply = outcome.as_ref().ok().map(Response::get_ref);
        let answered = reply.map(|reply| (reply.result.count, reply.length()));
        Stats::of_range(&request, answered).leave(&mut outcome);
    }
    outcome
}

/// When the parts of a read were over; what was not reached is over when the one before it is.
pub(crate) struct Clock {
    pub(crate) began: Instant,
    pub(crate) agreed: Instant,
    pub(crate) permitted: Instant,
    pub(crate) read: Instant,
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self { began: now, agreed: now, permitted: now, read: now }
    }
}

/// What a range comes to.
pub(crate) async fn answer(
    member: &Arc<Member>,
    extensions: &Extensions,
    request: &RangeRequest,
) -> Result<RangeResult, Status> {
    if !request.serializable && member.is_learner() {
        return Err(status::etcd(Etcd::NotSupportedForLearner));
    }
    apply::check::range(request).map_err(status::rejection)?;
    let mut clock = Clock::new();
    let outcome = timed(member, extensions, request, &mut clock).await;
    let took = clock.read - clock.began;
    member.metrics().answered(Op::Range, outcome.is_ok(), took);
    if took > member.config().warning_apply {
        slow::range(member, request, &outcome, took);
    }
    if let Some(trace) = extensions.get::<Trace>() {
        trace.range(request, &clock, outcome.as_ref().err().map(Status::message));
    }
    if took > server::TRACED {
        slow::trace_range(request, &outcome, &clock);
    }
    outcome
}

/// The part that takes time.
async fn timed(
    member: &Arc<Member>,
    extensions: &Extensions,
    request: &RangeRequest,
    clock: &mut Clock,
) -> Result<RangeResult, Status> {
    if !request.serializable {
        let agreed = member.linearize_since(clock.began).await;
        // The clock is read where there is nothing better to do.
        clock.agreed = agreed.unwrap_or_else(|_| Instant::now());
        (clock.permitted, clock.read) = (clock.agreed, clock.agreed);
        agreed.map_err(status::server)?;
    }
    let reader = Reader::of(member, extensions, &[permission::range(request)])?;
    clock.permitted = Instant::now();
    clock.read = clock.permitted;
    let result = read(member, apply::read::query(request), &mut clock.read).await?;
    reader.may_be_told(member)?;
    Ok(result)
}

/// Reads on the caller's thread, or on another where it may take long. `clock` says when it begins, and then
/// when it was over.
pub(crate) async fn read(
    member: &Arc<Member>,
    query: RangeQuery,
    clock: &mut Instant,
) -> Result<RangeResult, Status> {
    member.metrics().ranges.inc();
    let result = if is_long(member, &query) {
        let store = member.store().clone();
        tokio::task::spawn_blocking(move || store.range(&query))
            .await
            .map_err(|_| Status::internal("the read was interrupted"))?
    } else {
        member.store().range(&query)
    };
    let began = std::mem::replace(clock, Instant::now());
    member.metrics().ranged(result.is_ok(), *clock - began);
    result.map_err(status::store)
}

/// Serves a transaction that only reads: as [`read`], on another thread if one of its reads may take
/// long.
pub(crate) async fn read_txn(member: &Arc<Member>, request: &TxnRequest) -> Result<TxnResponse, Status> {
    let result = if is_long_txn(member, request) {
        let (store, request) = (member.store().clone(), request.clone());
        tokio::task::spawn_blocking(move || apply::txn::read_only(&store, &request))
            .await
            .map_err(|_| Status::internal("the read was interrupted"))?
    } else {
        apply::txn::read_only(member.store(), request)
    };
    let response = result.map_err(status::read)?;
    member.metrics().count_read_only(&response);
    Ok(response)
}

fn is_long_txn(member: &Member, request: &TxnRequest) -> bool {
    let compared = |compare: &Compare| {
        let range = KeyRange::from_request(&compare.key, &compare.range_end);
        is_long(member, &RangeQuery::new(range))
    };
    let read = |op: &RequestOp| match &op.request {
        Some(Request::RequestRange(range)) => is_long(member, &apply::read::query(range)),
        _ => false,
    };
    request.compare.iter().any(compared) || request.success.iter().chain(&request.failure).any(read)
}

fn is_long(member: &Member, query: &RangeQuery) -> bool {
    if query.count_only || matches!(query.range, KeyRange::Key(_)) {
        return false;
    }
    let most = query.enough();
    if most <= LONG && (query.keys_only || !is_heavy(member, most as u64)) {
        return false;
    }
    if query.revision > 0 {
        // How many there were is not known without a walk.
        return true;
    }
    let mut count = RangeQuery::new(query.range.clone());
    count.count_only = true;
    // An error here is found again, and told, by the read itself.
    member.store().range(&count).is_ok_and(|counted| {
        let records = (counted.count as u64).min(most as u64);
        records > LONG as u64 || !query.keys_only && is_heavy(member, records)
    })
}

/// Whether so many records are likely to be too many bytes, as large as they are on average. Old
/// versions make that an overestimate, which costs no more than a change of threads.
fn is_heavy(member: &Member, records: u64) -> bool {
    let average = member.backend().size_in_use() / member.store().live_keys().max(1);
    average.saturating_mul(records) > HEAVY
}
