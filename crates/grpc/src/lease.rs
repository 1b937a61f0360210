//! The Lease service.

use std::sync::Arc;
use std::time::Duration;

use ::lease::{LeaseId, Renewal};
use api::error::Error as Etcd;
use api::etcdserverpb::lease_server::Lease;
use api::etcdserverpb::{
    LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use apply::Body;
use server::Member;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::Messages;
use crate::{propose, status};

/// How often a keep-alive of an expired lease looks whether the lease is gone.
const EXPIRED_LOOK: Duration = Duration::from_millis(50);

/// Grants, renews and ends leases.
pub(crate) struct LeaseService {
    pub(crate) member: Arc<Member>,
    pub(crate) messages: Messages,
}

type KeepAlives = std::pin::Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let mut grant = request.into_inner();
        if grant.id == 0 {
            // The id is drawn before the proposal: every member must come to the same one (L9).
            grant.id = self.member.new_lease_id();
        }
        crate::quota::check(&self.member, apply::quota::LEASE_COST).await?;
        match propose(&self.member, grant).await? {
            (header, Body::LeaseGrant(mut response)) => {
                response.header = Some(header);
                Ok(Response::new(response))
            }
            (_, other) => Err(crate::unexpected(&other)),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        match propose(&self.member, request.into_inner()).await? {
            (header, Body::LeaseRevoke(mut response)) => {
                response.header = Some(header);
                Ok(Response::new(response))
            }
            (_, other) => Err(crate::unexpected(&other)),
        }
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        let member = Arc::clone(&self.member);
        let messages = self.messages.clone();
        let answers = request.into_inner().then(move |request| {
            let member = Arc::clone(&member);
            messages.received.inc();
            let sent = messages.sent.clone();
            async move {
                let answer = keep_alive(&member, request.map_err(status::received)?.id).await?;
                sent.inc();
                Ok(answer)
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let id = LeaseId(request.id);
        caught_up(&self.member).await?;
        let lessor = self.member.lessor().lock();
        let response = match lessor.time_to_live(id, self.member.now()) {
            Ok(left) => LeaseTimeToLiveResponse {
                header: None,
                id: request.id,
                ttl: left.remaining,
                granted_ttl: left.granted,
                keys: match request.keys {
                    true => {
                        lessor.keys(id).into_iter().flatten().map(bytes::Bytes::copy_from_slice).collect()
                    }
                    false => Vec::new(),
                },
            },
            Err(::lease::Error::NotPrimary) => return Err(status::etcd(Etcd::LeaderChanged)),
            Err(_) => LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() },
        };
        drop(lessor);
        Ok(Response::new(LeaseTimeToLiveResponse { header: Some(self.member.header(0)), ..response }))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.member.lessor().lock().list();
        let leases = leases.into_iter().map(|id| LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.member.header(0)), leases }))
    }
}

async fn keep_alive(member: &Arc<Member>, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
    // The header is filled before the renewal: its revision must not be above one at which the
    // lease may be found revoked.
    let header = member.header(0);
    let mut waited = false;
    let ttl = loop {
        let renewal = member.lessor().lock().renew(LeaseId(id), member.now());
        match renewal {
            Ok(Renewal::Renewed(ttl)) => break ttl,
            Ok(Renewal::ClearCheckpoint) => clear_checkpoint(member, id).await?,
            // Its grant may be committed and not applied yet (L4). What was committed when this was
            // asked is applied after one wait; under load there is always more.
            Err(::lease::Error::NotFound) if !waited => {
                caught_up(member).await?;
                waited = true;
            }
            // Its time is up, but only its revocation through the log settles that it is gone.
            Err(::lease::Error::Expired) => tokio::time::sleep(EXPIRED_LOOK).await,
            Err(::lease::Error::NotPrimary) => return Err(status::etcd(Etcd::NoLeader)),
            Err(_) => break 0,
        }
    };
    if ttl > 0 {
        member.metrics().leases_renewed.inc();
    }
    Ok(LeaseKeepAliveResponse { header: Some(header), id, ttl })
}

/// Has every member forget the remaining time that an earlier leader noted for a lease.
async fn clear_checkpoint(member: &Arc<Member>, id: i64) -> Result<(), Status> {
    let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl: 0 }];
    propose(member, LeaseCheckpointRequest { checkpoints }).await.map(|_| ())
}

/// Waits until all that is committed here is applied.
async fn caught_up(member: &Arc<Member>) -> Result<(), Status> {
    if member.raft().applied() >= member.raft().committed() {
        return Ok(());
    }
    member.linearize().await.map_err(status::server)
}
