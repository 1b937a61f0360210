//! Puts, gets, pages and transactions.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use tonic::Status;

use super::{CONNECTIONS, Settings, Subject, VALUE};
use crate::client::call_raw;
use crate::engine::{Shard, measure};
use crate::keys::{key, prefix_end, value};
use crate::load::{Crowd, Load, Seat, Turn, closed_loop, connect, histogram, nanos, offer, total};
use crate::metric::Sample;
use crate::wire::keys_in_range;

const ONE: Crowd = Crowd { callers: 1, connections: 1 };
/// The crowd of the targets.
pub(super) const MANY: Crowd = Crowd { callers: 1000, connections: CONNECTIONS };
/// Fewer callers for answers of 150 kB: a thousand would measure the sockets' buffers.
const READERS: Crowd = Crowd { callers: 50, connections: CONNECTIONS };

/// Puts go round over this many keys.
pub(super) const PUT_KEYS: u64 = 100_000;
/// Single-key gets choose among this many.
const GET_KEYS: u64 = 10_000;
const PAGE_KEYS: u64 = 100_000;
const PAGE: u64 = 500;
/// Puts per second of the open loop.
pub(super) const RATE: f64 = 5000.0;
/// The same for several members on one machine of two cores, where more than this builds up a queue in
/// etcd: at 2,000 its median is 50 ms.
const RATE_OF_SEVERAL: f64 = 1000.0;

pub(super) fn put_one(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    put(subject, settings, ONE)
}

pub(super) fn put_many(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    put(subject, settings, MANY)
}

fn put(subject: &mut Subject<'_>, settings: &Settings, crowd: Crowd) -> Result<Sample> {
    subject.probe.reset_peak();
    let load = closed_loop(&subject.plan(settings), &subject.probe, crowd, async |mut seat: Seat| {
        let (mut kv, value) = (seat.connection.kv(), value(VALUE));
        Ok(async move || {
            let key = key("put/", seat.random.below(PUT_KEYS));
            kv.put(PutRequest { key, value: value.clone(), ..Default::default() }).await?;
            Ok(Turn::Did)
        })
    })?;
    subject.sample(&load)
}

pub(super) fn put_rate(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    put_at(subject, settings, if subject.addresses.len() == 1 { RATE } else { RATE_OF_SEVERAL })
}

/// Puts offered at so many per second.
pub(super) fn put_at(subject: &mut Subject<'_>, settings: &Settings, rate: f64) -> Result<Sample> {
    subject.probe.reset_peak();
    let plan = subject.plan(settings);
    let rate = rate / plan.threads as f64;
    let (usage, parts) = measure(&plan, &subject.probe, async |shard: Shard<'_>| {
        let calls = putters(&shard).await?;
        let window = shard.ready()?;
        let (mut operations, mut latencies) = (0, histogram());
        for call in offer(window, rate, Arc::new(AtomicBool::new(false)), calls).await? {
            // What was due in the window counts, however late its answer: leaving late answers out
            // would hide the very stall that an open loop is there to show.
            if window.holds(call.due) {
                operations += 1;
                latencies.saturating_record(nanos(call.latency));
            }
        }
        Ok((operations, latencies))
    })?;
    subject.sample(&total(usage, parts))
}

/// One put call per connection of this thread's share, for an open loop.
pub(super) async fn putters(shard: &Shard<'_>) -> Result<Vec<impl AsyncFn() -> Result<(), Status> + use<>>> {
    let connections = connect(shard, CONNECTIONS).await?;
    let first = shard.index as u64 * 1000;
    Ok(connections
        .into_iter()
        .zip(first..)
        .map(|(connection, seed)| {
            let random = std::cell::RefCell::new(crate::random::Random::new(seed));
            let (kv, value) = (connection.kv(), value(VALUE));
            async move || {
                let key = key("put/", random.borrow_mut().below(PUT_KEYS));
                kv.clone().put(PutRequest { key, value: value.clone(), ..Default::default() }).await?;
                Ok(())
            }
        })
        .collect())
}

pub(super) fn get_one(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    get(subject, settings, ONE, false)
}

pub(super) fn get_many(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    get(subject, settings, MANY, false)
}

pub(super) fn get_serializable(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    get(subject, settings, MANY, true)
}

fn get(subject: &mut Subject<'_>, settings: &Settings, crowd: Crowd, serializable: bool) -> Result<Sample> {
    subject.fill("get/", 0..GET_KEYS, VALUE)?;
    subject.probe.reset_peak();
    let load = closed_loop(&subject.plan(settings), &subject.probe, crowd, async |mut seat: Seat| {
        let mut kv = seat.connection.kv();
        Ok(async move || {
            let key = key("get/", seat.random.below(GET_KEYS));
            let answer = kv.range(RangeRequest { key, serializable, ..Default::default() }).await?;
            expect(answer.get_ref().kvs.len(), 1)
        })
    })?;
    subject.sample(&load)
}

pub(super) fn pages(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    subject.fill("page/", 0..PAGE_KEYS, VALUE)?;
    subject.probe.reset_peak();
    let load: Load =
        closed_loop(&subject.plan(settings), &subject.probe, READERS, async |mut seat: Seat| {
            let mut client = seat.connection.raw();
            Ok(async move || {
                let first = seat.random.below(PAGE_KEYS - PAGE);
                let (key, range_end) = (key("page/", first), prefix_end("page/"));
                let request = RangeRequest { key, range_end, limit: PAGE as i64, ..Default::default() };
                let page = call_raw(&mut client, "/etcdserverpb.KV/Range", request).await?;
                expect(keys_in_range(&page), PAGE as usize)
            })
        })?;
    subject.sample(&load)
}

pub(super) fn compare_and_put(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    subject.probe.reset_peak();
    let load = closed_loop(&subject.plan(settings), &subject.probe, MANY, async |seat: Seat| {
        let (mut kv, value) = (seat.connection.kv(), value(VALUE));
        let key = key("txn/", seat.index as u64);
        // A key of its own: the compare succeeds always but for the first time on a used server,
        // when the failure branch tells the revision to go on from.
        let mut known = 0;
        Ok(async move || {
            let put = PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
            let get = RangeRequest { key: key.clone(), ..Default::default() };
            let request = TxnRequest {
                compare: vec![Compare {
                    result: CompareResult::Equal as i32,
                    target: CompareTarget::Mod as i32,
                    key: key.clone(),
                    target_union: Some(TargetUnion::ModRevision(known)),
                    ..Default::default()
                }],
                success: vec![RequestOp { request: Some(Request::RequestPut(put)) }],
                failure: vec![RequestOp { request: Some(Request::RequestRange(get)) }],
            };
            let answer = kv.txn(request).await?.into_inner();
            known = match answer.responses.into_iter().next().and_then(|op| op.response) {
                Some(Response::ResponsePut(_)) => answer.header.map_or(0, |header| header.revision),
                Some(Response::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.mod_revision),
                _ => return Err(Status::data_loss("a txn answered neither of its branches")),
            };
            Ok(Turn::Did)
        })
    })?;
    subject.sample(&load)
}

pub(super) fn mix(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    subject.fill("get/", 0..GET_KEYS, VALUE)?;
    subject.probe.reset_peak();
    let load = closed_loop(&subject.plan(settings), &subject.probe, MANY, async |mut seat: Seat| {
        let (mut kv, value) = (seat.connection.kv(), value(VALUE));
        Ok(async move || {
            let key = key("get/", seat.random.below(GET_KEYS));
            if seat.random.below(10) == 0 {
                kv.put(PutRequest { key, value: value.clone(), ..Default::default() }).await?;
                return Ok(Turn::Did);
            }
            let answer = kv.range(RangeRequest { key, ..Default::default() }).await?;
            expect(answer.get_ref().kvs.len(), 1)
        })
    })?;
    subject.sample(&load)
}

/// A fast wrong answer is no measurement.
fn expect(got: usize, wanted: usize) -> Result<Turn, Status> {
    if got == wanted {
        return Ok(Turn::Did);
    }
    Err(Status::data_loss(format!("{got} keys in an answer that should have {wanted}")))
}
