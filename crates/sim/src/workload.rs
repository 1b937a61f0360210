//! Seeded commands: few keys and few leases, so that they meet often.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, RequestHeader, RequestOp, TxnRequest,
};
use bytes::Bytes;
use prost::Message;

use crate::random::Random;

/// Keys are single letters from here on.
const KEYS: u64 = 8;
const LEASES: u64 = 4;

/// A source of commands.
#[derive(Clone, Debug)]
pub struct Workload {
    random: Random,
    next_id: u64,
}

impl Workload {
    /// The commands that follow from a seed.
    pub fn new(seed: u64) -> Workload {
        Workload { random: Random::new(seed), next_id: 1 }
    }

    /// The next command, encoded as the log holds it. `revision` is the current one, as far as is known.
    pub fn command(&mut self, revision: i64) -> Vec<u8> {
        let mut request = InternalRaftRequest {
            header: Some(RequestHeader { id: self.next_id, ..RequestHeader::default() }),
            ..InternalRaftRequest::default()
        };
        self.next_id += 1;
        match self.random.below(20) {
            0..9 => request.put = Some(self.put()),
            9..12 => request.delete_range = Some(self.delete()),
            12..16 => request.txn = Some(self.txn()),
            16 => request.lease_grant = Some(LeaseGrantRequest { id: self.lease(), ttl: 600 }),
            17 => request.lease_revoke = Some(LeaseRevokeRequest { id: self.lease() }),
            _ => {
                // Sometimes of the future, sometimes of what is compacted: then it is rejected.
                let revision = revision + 1 - self.random.below(6) as i64;
                request.compaction = Some(CompactionRequest { revision, ..CompactionRequest::default() });
            }
        }
        request.encode_to_vec()
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(vec![b'a' + self.random.below(KEYS) as u8])
    }

    /// One of few ids, not all of which are granted.
    fn lease(&mut self) -> i64 {
        1 + self.random.below(LEASES) as i64
    }

    fn put(&mut self) -> PutRequest {
        // Some values are long, and some of those are zeros, which a torn sector also is.
        let len = if self.random.one_in(4) { self.random.below(1400) } else { self.random.below(40) };
        let fill = if self.random.one_in(3) { 0 } else { self.random.below(256) as u8 };
        let lease = if self.random.one_in(3) { self.lease() } else { 0 };
        PutRequest { key: self.key(), value: vec![fill; len as usize].into(), lease, ..PutRequest::default() }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        let range_end = if self.random.one_in(2) { Bytes::from_static(b"z") } else { Bytes::new() };
        let range_end = if self.random.one_in(3) { range_end } else { Bytes::new() };
        DeleteRangeRequest { key, range_end, prev_kv: false }
    }

    fn txn(&mut self) -> TxnRequest {
        let compare = Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key: self.key(),
            target_union: Some(TargetUnion::Version(self.random.below(3) as i64)),
            ..Compare::default()
        };
        TxnRequest { compare: vec![compare], success: self.ops(), failure: self.ops() }
    }

    /// Operations on keys that differ, as every request must have them.
    fn ops(&mut self) -> Vec<RequestOp> {
        let first = self.random.below(KEYS);
        (0..self.random.below(4))
            .map(|i| {
                let key = Bytes::from(vec![b'a' + ((first + i) % KEYS) as u8]);
                let request = if self.random.one_in(3) {
                    Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
                } else {
                    Request::RequestPut(PutRequest { key, ..self.put() })
                };
                RequestOp { request: Some(request) }
            })
            .collect()
    }
}
