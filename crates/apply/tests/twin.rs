//! Random transactions on the machine and on its naive twin: answers, events, keys and leases.
#![allow(clippy::unwrap_used)]

mod support;

use api::etcdserverpb::{
    CompactionRequest, InternalRaftRequest, LeaseGrantRequest, LeaseRevokeRequest, RangeRequest, RequestOp,
    TxnRequest, request_op::Request,
};
use api::mvccpb::KeyValue;
use apply::{Applied, Body, ReadFailure, Rejection};
use bytes::Bytes;
use lease::LeaseId;
use prost::Message;
use support::model::{Change, Model};
use support::{Rng, Stage};

fn events(applied: &Applied) -> Vec<Change> {
    let events = applied.events.iter().flat_map(|(_, events)| events);
    let changes = events.enumerate().map(|(sub, event)| {
        assert_eq!(event.revision.sub, sub as i64);
        let record = KeyValue::decode(event.record.clone()).unwrap();
        assert_eq!((&record.key, record.mod_revision), (&event.key, event.revision.main));
        (event.tombstone, record)
    });
    changes.collect()
}

struct Pair {
    stage: Option<Stage>,
    model: Model,
    context: String,
}

impl Pair {
    fn stage(&mut self) -> &mut Stage {
        self.stage.as_mut().unwrap()
    }

    fn txn(&mut self, request: TxnRequest) {
        let expected = self.model.txn(&request);
        let applied = self.stage().request(InternalRaftRequest { txn: Some(request), ..Default::default() });
        let context = &self.context;
        assert_eq!(
            events(&applied),
            expected.as_ref().map_or(Vec::new(), |(_, changes)| changes.clone()),
            "{context}"
        );
        match (applied.outcome, expected) {
            (Ok(reply), Ok((response, _))) => {
                assert_eq!(reply.body, Body::Txn(response), "{context}");
                assert_eq!(reply.revision, self.model.revision(), "{context}");
            }
            (Err(rejection), Err(expected)) => assert_eq!(rejection, expected, "{context}"),
            (outcome, expected) => panic!("{context}: {outcome:?} where {expected:?} is right"),
        }
    }

    /// A put or deletion alone is a transaction of one operation.
    fn alone(&mut self, op: Request) {
        let txn = TxnRequest { success: vec![RequestOp { request: Some(op.clone()) }], ..Default::default() };
        let expected = self.model.txn(&txn);
        let mut request = InternalRaftRequest::default();
        match op {
            Request::RequestPut(put) => request.put = Some(put),
            Request::RequestDeleteRange(delete) => request.delete_range = Some(delete),
            other => panic!("{other:?}"),
        }
        let applied = self.stage().request(request);
        let context = &self.context;
        assert_eq!(
            events(&applied),
            expected.as_ref().map_or(Vec::new(), |(_, changes)| changes.clone()),
            "{context}"
        );
        let expected = expected.map(|(response, _)| match response.responses[0].response.clone().unwrap() {
            api::etcdserverpb::response_op::Response::ResponsePut(mut put) => {
                put.header = None;
                Body::Put(put)
            }
            api::etcdserverpb::response_op::Response::ResponseDeleteRange(mut delete) => {
                delete.header = None;
                Body::DeleteRange(delete)
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(applied.outcome.map(|reply| reply.body), expected, "{context}");
    }

    /// Reads beside the log answer as the same transaction in it would.
    fn read_only(&mut self, request: &TxnRequest) {
        let read = apply::txn::read_only(&self.stage().shared.store, request);
        match (read, self.model.txn(request)) {
            (Ok(mut response), Ok((expected, changes))) => {
                assert_eq!(
                    response.header.take().unwrap().revision,
                    self.model.revision(),
                    "{}",
                    self.context
                );
                assert_eq!(response, expected, "{}", self.context);
                assert!(changes.is_empty());
            }
            (Err(ReadFailure::Rejected(rejection)), Err(expected)) => {
                assert_eq!(rejection, expected, "{}", self.context);
            }
            (outcome, expected) => panic!("{}: {outcome:?} where {expected:?} is right", self.context),
        }
    }

    fn compare(&mut self) {
        let all = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..Default::default()
        };
        self.read_only(&TxnRequest {
            success: vec![RequestOp { request: Some(Request::RequestRange(all)) }],
            ..Default::default()
        });
        for lease in 1..=4 {
            let expected = self.model.leases.contains(&lease).then(|| self.model.keys_of(lease));
            let lessor = self.stage.as_ref().unwrap().shared.lessor.lock();
            let keys = lessor.keys(LeaseId(lease));
            let keys = keys.map(|keys| keys.into_iter().map(Bytes::copy_from_slice).collect::<Vec<_>>());
            assert_eq!(keys, expected, "{}: lease {lease}", self.context);
        }
    }
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let stage = Some(Stage::new(apply::Options::default()));
    let mut pair = Pair { stage, model: Model::new(), context: String::new() };
    for step in 0..400 {
        pair.context = format!("seed {seed}, step {step}");
        let current = pair.model.revision();
        match rng.below(20) {
            0..=9 => pair.txn(rng.txn(current, 2)),
            10 => pair.alone(Request::RequestPut(rng.put())),
            11 => pair.alone(Request::RequestDeleteRange(rng.delete())),
            12 | 13 => {
                let compare = rng.txn(current, 0).compare;
                let mut ops = || RequestOp { request: Some(Request::RequestRange(rng.range(current))) };
                pair.read_only(&TxnRequest { compare, success: vec![ops(), ops()], failure: vec![ops()] });
            }
            14 | 15 => {
                let (id, ttl) = (1 + rng.below(4) as i64, 60);
                let lease_grant = Some(LeaseGrantRequest { id, ttl });
                let applied = pair.stage().request(InternalRaftRequest { lease_grant, ..Default::default() });
                assert_eq!(applied.outcome.is_ok(), pair.model.leases.insert(id), "{}", pair.context);
            }
            16 => {
                let id = 1 + rng.below(4) as i64;
                let lease_revoke = Some(LeaseRevokeRequest { id });
                let applied =
                    pair.stage().request(InternalRaftRequest { lease_revoke, ..Default::default() });
                let expected = pair.model.revoke(id);
                assert_eq!(applied.outcome.is_ok(), expected.is_some(), "{}", pair.context);
                assert_eq!(events(&applied), expected.unwrap_or_default(), "{}", pair.context);
            }
            17 => {
                let revision = (current - rng.below(8) as i64).max(0);
                let compaction = Some(CompactionRequest { revision, physical: false });
                let applied = pair.stage().request(InternalRaftRequest { compaction, ..Default::default() });
                let expected: Result<(), Rejection> = pair.model.compact(revision);
                assert_eq!(applied.outcome.map(|_| ()), expected, "{}", pair.context);
            }
            18 => {
                pair.stage().machine.seal();
                pair.stage().store_step();
            }
            _ if rng.one_in(8) => pair.stage = pair.stage.take().map(Stage::restart),
            _ => pair.compare(),
        }
    }
    pair.compare();
}

#[test]
fn the_machine_agrees_with_its_twin() {
    for seed in 0..60 {
        run(seed);
    }
}
