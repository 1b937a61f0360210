//! Each command, carried out.

use std::time::Duration;

use api::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    LeaseCheckpointRequest, LeaseCheckpointResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, RangeRequest, RangeResponse, TxnRequest,
};
use backend::{Table, TableOp};
use bytes::Bytes;
use lease::{LeaseId, Stored};
use mvcc::{Committed, CompactError, KeyRange};
use prost::Message;

use crate::check;
use crate::command::Command;
use crate::machine::Machine;
use crate::quota::{LEASE_COST, put_cost, txn_cost};
use crate::read;
use crate::rejection::{ReadFailure, Rejection};
use crate::reply::Body;
use crate::txn::Writing;

/// The answer, and what became of the keys.
type Attempt = Result<(Body, Option<Committed>), ReadFailure>;

impl Machine {
    pub(crate) fn run(&mut self, command: Command, now: Duration) -> Attempt {
        match command {
            Command::Range(request) => self.range(&request),
            Command::Put(request) => self.put(&request),
            Command::DeleteRange(request) => self.delete_range(&request),
            Command::Txn(request) => self.txn(&request),
            Command::Compaction(request) => self.compact(&request),
            Command::LeaseGrant(request) => self.grant(&request, now),
            Command::LeaseRevoke(request) => self.revoke(&request),
            Command::LeaseCheckpoint(request) => Ok(self.checkpoint(&request, now)),
            Command::Alarm(request) => Ok(self.alarm(&request)),
            Command::ClusterVersionSet(request) => {
                let op = self.cluster.set_version(request.ver);
                Ok(self.cluster_changed(Some(op)))
            }
            Command::ClusterMemberAttrSet(request) => {
                let op = self.cluster.set_attributes(&request)?;
                Ok(self.cluster_changed(op))
            }
            Command::DowngradeInfoSet(request) => {
                let op = self.cluster.set_downgrade(&request);
                Ok(self.cluster_changed(Some(op)))
            }
            Command::DowngradeVersionTest => Ok((Body::Internal, None)),
            Command::Unsupported(name) => Err(Rejection::Unsupported(name).into()),
            Command::Authentication(command) => Ok((Body::Auth(self.authenticate(command, now)?), None)),
        }
    }

    /// What the raised alarms forbid. A damaged cluster neither reads nor writes; a full one only
    /// refuses what would make it fuller.
    pub(crate) fn forbidden(&self, command: &Command) -> Option<Rejection> {
        let touches_data = matches!(
            command,
            Command::Range(_)
                | Command::Put(_)
                | Command::DeleteRange(_)
                | Command::Txn(_)
                | Command::Compaction(_)
                | Command::LeaseGrant(_)
                | Command::LeaseRevoke(_)
        );
        if touches_data && self.alarms.corrupt() {
            return Some(Rejection::Corrupt);
        }
        (self.alarms.no_space() && cost(command) > 0).then_some(Rejection::NoSpace)
    }

    pub(crate) fn is_over_quota(&self, command: &Command) -> bool {
        let cost = cost(command);
        if cost == 0 || self.options.quota.limit().is_none() {
            return false;
        }
        !self.options.quota.admits(cost, self.backend.size_in_use())
    }

    /// No member of ours proposes a range, but etcd's log may hold one.
    fn range(&mut self, request: &RangeRequest) -> Attempt {
        check::range(request)?;
        let response = read::range(&self.writer.begin(), request)?;
        Ok((Body::Range(RangeResponse { header: None, ..response }), None))
    }

    fn put(&mut self, request: &PutRequest) -> Attempt {
        let mut writing = Writing::new(self.writer.begin());
        let response = writing.put_alone(&self.lessor, request)?;
        Ok((Body::Put(response), writing.commit(&self.lessor)))
    }

    fn delete_range(&mut self, request: &DeleteRangeRequest) -> Attempt {
        let mut writing = Writing::new(self.writer.begin());
        let response = writing.delete_alone(request)?;
        Ok((Body::DeleteRange(response), writing.commit(&self.lessor)))
    }

    fn txn(&mut self, request: &TxnRequest) -> Attempt {
        let compacted = self.store.compact_revision();
        let mut writing = Writing::new(self.writer.begin());
        let response = writing.txn(&self.lessor, compacted, request)?;
        Ok((Body::Txn(response), writing.commit(&self.lessor)))
    }

    /// Logical, and at once; the rows go in the background.
    fn compact(&mut self, request: &CompactionRequest) -> Attempt {
        let op = self.writer.schedule_compaction(request.revision).map_err(|error| match error {
            CompactError::Compacted { .. } => Rejection::Compacted,
            CompactError::Future { .. } => Rejection::FutureRevision,
        })?;
        self.ops.push(op);
        Ok((Body::Compaction(CompactionResponse::default()), None))
    }

    fn grant(&mut self, request: &LeaseGrantRequest, now: Duration) -> Attempt {
        let granted = self.lessor.lock().grant(LeaseId(request.id), request.ttl, now);
        let stored = granted.map_err(Rejection::from)?;
        self.ops.push(lease_row(stored));
        let response =
            LeaseGrantResponse { id: request.id, ttl: stored.ttl, ..LeaseGrantResponse::default() };
        Ok((Body::LeaseGrant(response), None))
    }

    /// The keys go first, in byte order and in one revision, then the lease: whoever is told that
    /// the lease is gone finds no key of it. Sorting and deleting hold no lock.
    fn revoke(&mut self, request: &LeaseRevokeRequest) -> Attempt {
        let id = LeaseId(request.id);
        let mut keys = self.lessor.lock().take_keys(id).map_err(Rejection::from)?.into_sorted();
        // Planted: A5, the outcome depends on this member's role.
        if planted::is("replay-differs") && self.lessor.lock().is_primary() {
            keys.reverse();
        }
        let mut txn = self.writer.begin();
        for key in keys {
            txn.delete_range(&KeyRange::Key(Bytes::from(key)));
        }
        let committed = txn.commit();
        self.lessor.lock().revoke(id).map_err(Rejection::from)?;
        self.ops.push(TableOp::delete(Table::Lease, lease_key(id)));
        Ok((Body::LeaseRevoke(LeaseRevokeResponse::default()), committed))
    }

    fn checkpoint(&mut self, request: &LeaseCheckpointRequest, now: Duration) -> (Body, Option<Committed>) {
        let mut lessor = self.lessor.lock();
        for checkpoint in &request.checkpoints {
            let stored = lessor.checkpoint(LeaseId(checkpoint.id), checkpoint.remaining_ttl, now);
            self.ops.extend(stored.map(lease_row));
        }
        (Body::LeaseCheckpoint(LeaseCheckpointResponse::default()), None)
    }

    fn alarm(&mut self, request: &AlarmRequest) -> (Body, Option<Committed>) {
        let (alarms, op) = self.alarms.apply(request);
        if let Some(op) = op {
            self.ops.push(op);
            self.shared_alarms.set(self.alarms.clone());
        }
        (Body::Alarm(AlarmResponse { alarms, ..AlarmResponse::default() }), None)
    }

    fn cluster_changed(&mut self, op: Option<TableOp>) -> (Body, Option<Committed>) {
        if let Some(op) = op {
            self.ops.push(op);
            self.shared_cluster.set(self.cluster.clone());
        }
        (Body::Internal, None)
    }
}

/// What a command is charged against the quota, in bytes.
fn cost(command: &Command) -> u64 {
    match command {
        Command::Put(request) => put_cost(request),
        Command::Txn(request) => txn_cost(request),
        Command::LeaseGrant(_) => LEASE_COST,
        _ => 0,
    }
}

fn lease_key(id: LeaseId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}

fn lease_row(Stored { id, ttl, remaining_ttl }: Stored) -> TableOp {
    let record = api::leasepb::Lease { id: id.0, ttl, remaining_ttl };
    TableOp::put(Table::Lease, lease_key(id), record.encode_to_vec())
}
