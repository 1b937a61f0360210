//! Requests that chance would not hit upon: numbers at their ends, and answers that are too long for
//! one message.

use api::etcdserverpb::*;

use crate::call::{Call, Watch};
use crate::pair;

/// What seed 0 begins with.
pub(crate) fn calls() -> Vec<Call> {
    let mut calls = leases();
    // A request carries the id of the member that it was sent to, and that is a byte longer or shorter.
    if pair::members() == 1 {
        calls.extend(sizes());
    }
    calls.extend(long_history());
    calls
}

fn leases() -> Vec<Call> {
    let mut calls = Vec::new();
    for (id, ttl) in
        [(-5, 600), (i64::MIN, 600), (9, i64::MAX), (9, i64::MIN), (9, 1), (9, 2), (9, 3), (9, 0)]
    {
        calls.push(Call::LeaseGrant(LeaseGrantRequest { ttl, id }));
        calls.push(Call::LeaseTimeToLive(LeaseTimeToLiveRequest { id, keys: true }));
        calls.push(Call::Put(PutRequest { key: "leased".into(), lease: id, ..Default::default() }));
        calls.push(Call::LeaseLeases);
        calls.push(Call::LeaseRevoke(LeaseRevokeRequest { id }));
        calls.push(Call::LeaseRevoke(LeaseRevokeRequest { id }));
    }
    calls.push(Call::LeaseTimeToLive(LeaseTimeToLiveRequest { id: 0, keys: false }));
    calls.push(Call::LeaseRevoke(LeaseRevokeRequest { id: 0 }));
    calls.push(Call::LeaseKeepAlive(vec![0]));
    calls.push(Call::LeaseKeepAlive(vec![-1, 0, 9, i64::MIN]));
    calls.push(Call::LeaseKeepAlive(vec![]));
    calls
}

/// Values of every size around the limit, where each byte counts, and far beyond it.
fn sizes() -> Vec<Call> {
    let value = |size| vec![b'v'; size].into();
    let put = |size| PutRequest { key: "large".into(), value: value(size), ..Default::default() };
    let mut calls: Vec<Call> = (4_060..4_080).map(|size| Call::Put(put(size))).collect();
    calls.extend([520_000, 528_000, 528_384, 600_000].map(|size| Call::Put(put(size))));
    let large = Call::Range(RangeRequest { key: vec![b'k'; 600_000].into(), ..Default::default() });
    let long = RangeRequest { key: vec![b'k'; 5_000].into(), ..Default::default() };
    calls.push(large);
    calls.push(Call::Range(long));
    let request = Some(request_op::Request::RequestPut(put(4_060)));
    calls.push(Call::Txn(TxnRequest { success: vec![RequestOp { request }], ..Default::default() }));
    calls.push(Call::Txn(TxnRequest::default()));
    calls
}

/// More history than fits into one message, told in fragments and whole.
fn long_history() -> Vec<Call> {
    let value = vec![b'v'; 4_000];
    let put = PutRequest { key: "long".into(), value: value.into(), ..Default::default() };
    let mut calls = vec![Call::Put(put); 150];
    for fragment in [true, false] {
        let request = WatchCreateRequest {
            key: "long".into(),
            start_revision: 2,
            prev_kv: true,
            fragment,
            ..Default::default()
        };
        calls.push(Call::Watch(Watch::Create(1, request)));
        calls.push(Call::Watch(Watch::Settle));
    }
    calls.push(Call::Watch(Watch::Close(1)));
    calls.push(Call::Range(RangeRequest { key: "long".into(), revision: 100, ..Default::default() }));
    calls
}
