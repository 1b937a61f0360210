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
use server::{LeaseError, Member};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

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
            match &request {
                Ok(_) => messages.received.inc(),
                Err(error) => messages.failed_to_receive("lease-keepalive", error),
            }
            let sent = messages.sent.clone();
            async move {
                let answer = keep_alive(&member, request.map_err(status::received)?.id).await?;
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
        let request = request.into_inner();
        let response = match self.member.lease_time_to_live(request).await {
            Ok(response) => response,
            Err(LeaseError::NotFound) => {
                LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() }
            }
            Err(error) => return Err(status::lease(error)),
        };
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
    let ttl = match member.renew_lease(id).await {
        Ok(ttl) => ttl,
        Err(LeaseError::NotFound) => 0,
        Err(error) => return Err(status::lease(error)),
    };
    Ok(LeaseKeepAliveResponse { header: Some(header), id, ttl })
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
