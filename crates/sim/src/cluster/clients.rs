//! Clients that read and write, and what they remember of it.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request as Op;
use api::etcdserverpb::response_op::Response as Answer;
use api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest,
};
use api::mvccpb;
use apply::Body;
use bytes::Bytes;
use mvcc::KeyRange;

use super::requests::{Ask, Told};
use crate::linearizability as lin;
use crate::random::Random;

const KEYS: u64 = 7;
const FIRST: &[u8] = b"k";
const END: &[u8] = b"l";

/// What a client asks, as the history has it and as a member gets it.
pub(crate) fn request(
    random: &mut Random,
    number: u64,
    revision: i64,
    reads_only: bool,
) -> (Option<lin::Request>, Ask) {
    match if reads_only { 13 + random.below(7) } else { random.below(20) } {
        0..7 => {
            let put = put(random, number, 0);
            (Some(put_of(&put)), Ask::Put(put))
        }
        7..9 => {
            let delete = delete(random);
            (Some(delete_of(&delete)), Ask::Delete(delete))
        }
        9..13 => {
            let txn = txn(random, number, revision);
            (Some(txn_of(&txn)), Ask::Txn(txn))
        }
        13..18 => {
            let key = key(random);
            let request = lin::Request::Range { key: key.to_vec(), end: None };
            (Some(request), Ask::Range(KeyRange::Key(key)))
        }
        18 => (
            Some(lin::Request::Range { key: FIRST.to_vec(), end: Some(END.to_vec()) }),
            Ask::Range(KeyRange::Range { start: FIRST.into(), end: END.into() }),
        ),
        _ => (None, Ask::Serializable(KeyRange::Range { start: FIRST.into(), end: END.into() })),
    }
}

/// What the history has of an answer, if it is one that belongs there.
pub(crate) fn response(told: &Told) -> Option<lin::Response> {
    match told {
        Told::Read { revision, found } => {
            let body = lin::Body::Range(found.iter().map(kv).collect());
            Some(lin::Response { revision: *revision, body })
        }
        Told::Done(reply) => {
            let body = match &reply.body {
                Body::Put(response) => {
                    // Whether it was asked for is not told; nobody was there if it was not.
                    lin::Body::Put { previous: response.prev_kv.as_ref().map(|prev| Some(kv(prev))) }
                }
                Body::DeleteRange(response) => delete_body(response.deleted, &response.prev_kvs),
                Body::Txn(response) => txn_body(response.succeeded, &response.responses),
                _ => return None,
            };
            Some(lin::Response { revision: reply.revision, body })
        }
        _ => None,
    }
}

fn key(random: &mut Random) -> Bytes {
    Bytes::from(format!("k{}", random.below(KEYS)))
}

fn put(random: &mut Random, number: u64, part: u64) -> PutRequest {
    let mut value = format!("{number}.{part}").into_bytes();
    if random.one_in(12) {
        value.resize(random.below(1500) as usize + value.len(), b'.');
    }
    PutRequest { key: key(random), value: value.into(), prev_kv: random.one_in(2), ..PutRequest::default() }
}

fn delete(random: &mut Random) -> DeleteRangeRequest {
    let (key, range_end) =
        if random.one_in(8) { (FIRST.into(), END.into()) } else { (key(random), Bytes::new()) };
    DeleteRangeRequest { key, range_end, prev_kv: random.one_in(2) }
}

fn txn(random: &mut Random, number: u64, revision: i64) -> TxnRequest {
    let compare = (0..1 + random.below(2)).map(|_| compare(random, revision)).collect();
    TxnRequest { compare, success: ops(random, number, 1), failure: ops(random, number, 5) }
}

fn compare(random: &mut Random, revision: i64) -> Compare {
    let result = [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
    let result = result[random.below(4) as usize];
    let near = revision - random.below(20) as i64;
    let (target, union) = match random.below(3) {
        0 => (CompareTarget::Version, TargetUnion::Version(random.below(3) as i64)),
        1 => (CompareTarget::Create, TargetUnion::CreateRevision(near * random.below(2) as i64)),
        _ => (CompareTarget::Mod, TargetUnion::ModRevision(near * random.below(2) as i64)),
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: key(random),
        target_union: Some(union),
        ..Compare::default()
    }
}

/// Operations on keys that differ, as every request must have them.
fn ops(random: &mut Random, number: u64, part: u64) -> Vec<RequestOp> {
    let first = random.below(KEYS);
    let mut list = Vec::new();
    for i in 0..random.below(4) {
        let key = Bytes::from(format!("k{}", (first + i) % KEYS));
        let op = match random.below(4) {
            0 => Op::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }),
            1 => Op::RequestRange(RangeRequest { key, ..RangeRequest::default() }),
            _ => Op::RequestPut(PutRequest { key, ..put(random, number, part + i) }),
        };
        list.push(RequestOp { request: Some(op) });
    }
    list
}

fn put_of(put: &PutRequest) -> lin::Request {
    lin::Request::Put { key: put.key.to_vec(), value: put.value.to_vec(), lease: put.lease }
}

fn delete_of(delete: &DeleteRangeRequest) -> lin::Request {
    let end = (!delete.range_end.is_empty()).then(|| delete.range_end.to_vec());
    lin::Request::Delete { key: delete.key.to_vec(), end }
}

fn txn_of(txn: &TxnRequest) -> lin::Request {
    lin::Request::Txn {
        compare: txn.compare.iter().filter_map(compare_of).collect(),
        success: txn.success.iter().filter_map(op_of).collect(),
        failure: txn.failure.iter().filter_map(op_of).collect(),
    }
}

fn compare_of(compare: &Compare) -> Option<lin::Compare> {
    let target = match compare.target_union.as_ref()? {
        TargetUnion::Version(right) => lin::Target::Version(*right),
        TargetUnion::CreateRevision(right) => lin::Target::CreateRevision(*right),
        TargetUnion::ModRevision(right) => lin::Target::ModRevision(*right),
        TargetUnion::Value(right) => lin::Target::Value(right.to_vec()),
        TargetUnion::Lease(_) => return None,
    };
    let order = match CompareResult::try_from(compare.result).ok()? {
        CompareResult::Equal => lin::Order::Equal,
        CompareResult::NotEqual => lin::Order::NotEqual,
        CompareResult::Less => lin::Order::Less,
        CompareResult::Greater => lin::Order::Greater,
    };
    Some(lin::Compare { key: compare.key.to_vec(), target, order })
}

fn op_of(op: &RequestOp) -> Option<lin::Request> {
    Some(match op.request.as_ref()? {
        Op::RequestPut(put) => put_of(put),
        Op::RequestDeleteRange(delete) => delete_of(delete),
        Op::RequestRange(range) => lin::Request::Range { key: range.key.to_vec(), end: None },
        Op::RequestTxn(txn) => txn_of(txn),
    })
}

fn kv(kv: &mvccpb::KeyValue) -> lin::KeyValue {
    lin::KeyValue {
        key: kv.key.to_vec(),
        value: kv.value.to_vec(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn delete_body(deleted: i64, previous: &[mvccpb::KeyValue]) -> lin::Body {
    let previous = (!previous.is_empty()).then(|| previous.iter().map(kv).collect());
    lin::Body::Delete { deleted, previous }
}

fn txn_body(succeeded: bool, responses: &[ResponseOp]) -> lin::Body {
    let bodies = responses.iter().filter_map(|response| {
        Some(match response.response.as_ref()? {
            Answer::ResponseRange(range) => lin::Body::Range(range.kvs.iter().map(kv).collect()),
            Answer::ResponsePut(put) => {
                lin::Body::Put { previous: put.prev_kv.as_ref().map(|prev| Some(kv(prev))) }
            }
            Answer::ResponseDeleteRange(delete) => delete_body(delete.deleted, &delete.prev_kvs),
            Answer::ResponseTxn(txn) => txn_body(txn.succeeded, &txn.responses),
        })
    });
    lin::Body::Txn { succeeded, bodies: bodies.collect() }
}
