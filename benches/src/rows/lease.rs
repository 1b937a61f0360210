//! Lease grants and keep-alives.

use anyhow::Result;
use api::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use super::kv::MANY;
use super::{Settings, Subject};
use crate::load::{Seat, Turn, closed_loop};
use crate::metric::Sample;

/// Long enough that no lease expires while a row runs.
const TTL_SECONDS: i64 = 3600;

pub(super) fn grant(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    subject.probe.reset_peak();
    let load = closed_loop(&subject.plan(settings), &subject.probe, MANY, async |seat: Seat| {
        let mut lease = seat.connection.lease();
        Ok(async move || {
            lease.lease_grant(LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 }).await?;
            Ok(Turn::Did)
        })
    })?;
    subject.sample(&load)
}

pub(super) fn keep_alive(subject: &mut Subject<'_>, settings: &Settings) -> Result<Sample> {
    subject.probe.reset_peak();
    let load = closed_loop(&subject.plan(settings), &subject.probe, MANY, async |seat: Seat| {
        let mut lease = seat.connection.lease();
        let granted = lease.lease_grant(LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 }).await?.into_inner();
        let (send, requests) = mpsc::unbounded_channel();
        let renewal = LeaseKeepAliveRequest { id: granted.id };
        // etcd sends a stream's headers with its first answer, so the first request must be on its
        // way before the call returns.
        let _ = send.send(renewal);
        let mut answers = lease.lease_keep_alive(UnboundedReceiverStream::new(requests)).await?.into_inner();
        answers.message().await?;
        Ok(async move || {
            send.send(renewal).map_err(|_| Status::unavailable("the keep-alive stream has ended"))?;
            match answers.message().await? {
                Some(answer) if answer.ttl > 0 => Ok(Turn::Did),
                Some(_) => Err(Status::not_found("the lease has gone")),
                None => Err(Status::unavailable("the keep-alive stream has ended")),
            }
        })
    })?;
    subject.sample(&load)
}
