//! Counting what is applied, under etcd's names.
//!
//! etcd counts in its store: every operation of a transaction by itself, every key that goes with a
//! lease as a delete, and as a transaction whatever did more than one operation. A delete counts
//! once however many keys it found. The operations are taken from the answer, because that names
//! the branch that ran.

use api::etcdserverpb::TxnResponse;
use api::etcdserverpb::response_op::Response;
use apply::{Applied, Body};

use crate::metrics::Metrics;

/// Operations of one entry or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    ranges: u64,
    puts: u64,
    deletes: u64,
}

impl Tally {
    fn add(&mut self, response: &TxnResponse) {
        for op in &response.responses {
            match &op.response {
                Some(Response::ResponseRange(_)) => self.ranges += 1,
                Some(Response::ResponsePut(_)) => self.puts += 1,
                Some(Response::ResponseDeleteRange(_)) => self.deletes += 1,
                Some(Response::ResponseTxn(nested)) => self.add(nested),
                None => {}
            }
        }
    }

    fn count(self, metrics: &Metrics) {
        let Tally { ranges, puts, deletes } = self;
        metrics.ranges.inc_by(ranges);
        metrics.puts.inc_by(puts);
        metrics.deletes.inc_by(deletes);
        metrics.txns.inc_by(u64::from(ranges + puts + deletes > 1));
    }
}

/// Counts a transaction that only read.
pub(crate) fn read_only(metrics: &Metrics, response: &TxnResponse) {
    let mut tally = Tally::default();
    tally.add(response);
    tally.count(metrics);
}

/// Counts an applied entry. One that was refused did nothing.
pub(crate) fn applied(metrics: &Metrics, applied: &Applied) {
    let Ok(reply) = &applied.outcome else { return };
    let mut tally = Tally::default();
    match &reply.body {
        Body::Put(_) => tally.puts = 1,
        Body::DeleteRange(_) => tally.deletes = 1,
        Body::Txn(response) => tally.add(response),
        Body::LeaseGrant(grant) => {
            metrics.leases_granted.inc();
            metrics.lease_ttl.observe(grant.ttl as f64);
        }
        Body::LeaseRevoke(_) => {
            metrics.leases_revoked.inc();
            tally.deletes = applied.events.as_ref().map_or(0, |(_, events)| events.len() as u64);
        }
        _ => {}
    }
    if let Some((_, events)) = applied.events.as_ref().filter(|_| tally.puts > 0) {
        let size: usize = events.iter().filter(|event| !event.tombstone).map(mvcc::Event::size).sum();
        metrics.put_size.add(i64::try_from(size).unwrap_or(i64::MAX));
    }
    tally.count(metrics);
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::{DeleteRangeResponse, PutResponse, RangeResponse, ResponseOp};

    use super::*;

    fn txn(responses: Vec<Response>) -> TxnResponse {
        let responses =
            responses.into_iter().map(|response| ResponseOp { response: Some(response) }).collect();
        TxnResponse { responses, ..TxnResponse::default() }
    }

    #[test]
    fn operations_of_nested_transactions_count_one_by_one() {
        let nested = txn(vec![
            Response::ResponsePut(PutResponse::default()),
            Response::ResponseDeleteRange(DeleteRangeResponse { deleted: 7, ..Default::default() }),
        ]);
        let outer = txn(vec![
            Response::ResponsePut(PutResponse::default()),
            Response::ResponseRange(RangeResponse::default()),
            Response::ResponseTxn(nested),
        ]);
        let metrics = Metrics::new();
        read_only(&metrics, &outer);
        assert_eq!((metrics.ranges.get(), metrics.puts.get()), (1, 2));
        assert_eq!((metrics.deletes.get(), metrics.txns.get()), (1, 1));
    }

    #[test]
    fn a_single_operation_is_no_transaction() {
        let metrics = Metrics::new();
        read_only(&metrics, &txn(vec![Response::ResponseRange(RangeResponse::default())]));
        assert_eq!((metrics.ranges.get(), metrics.txns.get()), (1, 0));
    }
}
