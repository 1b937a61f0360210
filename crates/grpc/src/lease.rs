//! The Lease service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::error::Error as Etcd;
use api::etcdserverpb::lease_server::Lease;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use apply::Body;
use apply::permission::Need;
use auth::Access;
use lease::LeaseId;
use server::{Credentials, LeaseError, Member};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::access::Reader;
use crate::metrics::Messages;
use crate::{propose, status};

/// Grants, renews and ends leases.
pub(crate) struct LeaseService {
    pub(crate) member: Arc<Member>,
    pub(crate) messages: Messages,
}

type KeepAlives = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let (_, extensions, mut grant) = request.into_parts();
        if grant.id == 0 {
            // The id is drawn before the proposal: every member must come to the same one (L9).
            grant.id = self.member.new_lease_id();
        }
        crate::quota::check(&self.member, apply::quota::LEASE_COST).await?;
        match propose(&self.member, &extensions, grant).await? {
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
        let (_, extensions, request) = request.into_parts();
        match propose(&self.member, &extensions, request).await? {
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
        let credentials = request.extensions().get::<Credentials>().cloned().unwrap_or_default();
        let answers = request.into_inner().then(move |request| {
            let (member, credentials) = (Arc::clone(&member), credentials.clone());
            match &request {
                Ok(_) => messages.received.inc(),
                Err(error) => messages.failed_to_receive("lease-keepalive", error),
            }
            let sent = messages.sent.clone();
            async move {
                let answer = keep_alive(&member, &credentials, request.map_err(status::received)?.id).await?;
                sent.inc();
                Ok(answer)
            }
        });
        let member = Arc::clone(&self.member);
        let stopping = Some(Box::pin(async move { member.stopping().await }) as _);
        Ok(Response::new(Box::pin(UntilStopped { answers: Box::pin(answers), stopping })))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        // The time it has left anybody may know, its keys only who may read them.
        let lease = Need::Lease(Access::Read, LeaseId(request.id));
        let needs = if request.keys { vec![lease] } else { Vec::new() };
        let reader = Reader::of(&self.member, &extensions, &needs)?;
        let response = match self.member.lease_time_to_live(request).await {
            Ok(response) => response,
            Err(LeaseError::NotFound) => {
                LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() }
            }
            Err(error) => return Err(status::lease(error)),
        };
        if request.keys {
            reader.may_be_told(&self.member)?;
            // The leader may know keys that this member did not.
            reader.may_read(&self.member, &response.keys)?;
        }
        Ok(Response::new(LeaseTimeToLiveResponse { header: Some(self.member.header(0)), ..response }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.member.lessor().lock().list();
        if self.member.auth().is_enabled() {
            // A lease tells of its keys, even by its mere name.
            let needs: Vec<Need<'_>> = leases.iter().map(|id| Need::Lease(Access::Read, *id)).collect();
            Reader::of(&self.member, request.extensions(), &needs)?.may_be_told(&self.member)?;
        }
        let leases = leases.into_iter().map(|id| LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.member.header(0)), leases }))
    }
}

async fn keep_alive(
    member: &Arc<Member>,
    credentials: &Credentials,
    id: i64,
) -> Result<LeaseKeepAliveResponse, Status> {
    // The header is filled before the renewal: its revision must not be above one at which the
    // lease may be found revoked.
    let header = member.header(0);
    if member.auth().is_enabled() {
        may_renew(member, credentials, id).map_err(status::auth)?;
    }
    let ttl = match member.renew_lease(id).await {
        Ok(ttl) => ttl,
        Err(LeaseError::NotFound) => 0,
        Err(error) => return Err(status::lease(error)),
    };
    Ok(LeaseKeepAliveResponse { header: Some(header), id, ttl })
}

/// Whoever renews a lease keeps its keys: it takes what it takes to put them.
fn may_renew(member: &Member, credentials: &Credentials, id: i64) -> Result<(), auth::Error> {
    let caller = member.caller(credentials)?;
    member.require_somebody(&caller)?;
    member.allow(&caller, &[Need::Lease(Access::Write, LeaseId(id))])
}

/// Answers until there are no more, or the member stops; then the client is told so.
struct UntilStopped<S> {
    answers: Pin<Box<S>>,
    /// None once it has come.
    stopping: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<T, S: Stream<Item = Result<T, Status>>> Stream for UntilStopped<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(stopping) = &mut self.stopping else { return Poll::Ready(None) };
        if stopping.as_mut().poll(context).is_ready() {
            self.stopping = None;
            return Poll::Ready(Some(Err(status::etcd(Etcd::Stopped))));
        }
        self.answers.as_mut().poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_stream_ends_with_its_requests_or_with_the_member() {
        let until = |answers: Vec<Result<i32, Status>>, open: bool| {
            let (stop, stopped) = oneshot::channel::<()>();
            let stopping = Some(Box::pin(stopped.map(|_| ())) as Pin<Box<dyn Future<Output = ()> + Send>>);
            let rest = futures_util::stream::poll_fn(move |_| match open {
                true => Poll::Pending,
                false => Poll::Ready(None),
            });
            let answers = Box::pin(tokio_stream::iter(answers).chain(rest));
            (UntilStopped { answers, stopping }, stop)
        };
        let (mut ended, _stop) = until(vec![Ok(1)], false);
        assert_eq!(ended.next().now_or_never().unwrap().unwrap().unwrap(), 1);
        assert!(ended.next().now_or_never().unwrap().is_none());

        let (mut open, stop) = until(vec![Ok(1)], true);
        assert!(open.next().now_or_never().unwrap().unwrap().is_ok());
        assert!(open.next().now_or_never().is_none());
        stop.send(()).unwrap();
        let end = open.next().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(end.message(), "etcdserver: server stopped");
        assert!(open.next().now_or_never().unwrap().is_none());
    }
}
