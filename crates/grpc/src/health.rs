//! gRPC's own health service, by which probes of containers and load balancers ask whether there is a
//! server, without a word of etcd's API.
//!
//! As in etcd it knows one name, the empty one for the whole server, which serves for as long as it
//! answers. Whether the member has a leader is for `/health` to say.

use std::collections::HashMap;
use std::sync::Arc;

use server::Member;
use tokio_stream::{Stream, StreamExt as _};
use tonic::codegen::BoxFuture;
use tonic::codegen::tokio_stream::once;
use tonic::server::{ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};

use crate::status;

/// The messages of `grpc.health.v1`, which is small enough to be written down here.
pub(crate) mod message {
    /// Asks about one service; the empty name stands for all.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct CheckRequest {
        #[prost(string, tag = "1")]
        pub(crate) service: String,
    }

    /// How a service is.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct CheckResponse {
        #[prost(enumeration = "Serving", tag = "1")]
        pub(crate) status: i32,
    }

    /// Asks about all services.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ListRequest {}

    /// How they are, by name.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ListResponse {
        #[prost(map = "string, message", tag = "1")]
        pub(crate) statuses: std::collections::HashMap<String, CheckResponse>,
    }

    /// `ServingStatus`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
    #[repr(i32)]
    pub(crate) enum Serving {
        Unknown = 0,
        Yes = 1,
        No = 2,
        /// The answer of `Watch` to a name that nobody has.
        UnknownService = 3,
    }
}

use message::{CheckRequest, CheckResponse, ListRequest, ListResponse, Serving};

fn serving(service: &str) -> Option<Serving> {
    service.is_empty().then_some(Serving::Yes)
}

/// One question, one answer.
pub(crate) struct Check;

impl UnaryService<CheckRequest> for Check {
    type Response = CheckResponse;
    type Future = std::future::Ready<Result<Response<CheckResponse>, Status>>;

    fn call(&mut self, request: Request<CheckRequest>) -> Self::Future {
        std::future::ready(check(&request.into_inner()))
    }
}

fn check(request: &CheckRequest) -> Result<Response<CheckResponse>, Status> {
    let status = serving(&request.service).ok_or_else(|| Status::not_found("unknown service"))?;
    Ok(Response::new(CheckResponse { status: status.into() }))
}

/// All there is to know.
pub(crate) struct List;

impl UnaryService<ListRequest> for List {
    type Response = ListResponse;
    type Future = std::future::Ready<Result<Response<ListResponse>, Status>>;

    fn call(&mut self, _: Request<ListRequest>) -> Self::Future {
        let all = CheckResponse { status: Serving::Yes.into() };
        let statuses = HashMap::from([(String::new(), all)]);
        std::future::ready(Ok(Response::new(ListResponse { statuses })))
    }
}

/// One question, an answer whenever it changes.
pub(crate) struct Watch(pub(crate) Arc<Member>);

type Answers = std::pin::Pin<Box<dyn Stream<Item = Result<CheckResponse, Status>> + Send>>;

impl ServerStreamingService<CheckRequest> for Watch {
    type Response = CheckResponse;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<CheckRequest>) -> Self::Future {
        let member = Arc::clone(&self.0);
        let answers = answers(&request.into_inner(), async move { member.stopping().await });
        Box::pin(std::future::ready(Ok(Response::new(answers))))
    }
}

/// What is known, and then nothing new until the end.
fn answers(request: &CheckRequest, end: impl Future<Output = ()> + Send + 'static) -> Answers {
    let status = serving(&request.service).unwrap_or(Serving::UnknownService);
    let first = once(Ok(CheckResponse { status: status.into() }));
    let last = futures_util::stream::once(async move {
        end.await;
        Err(status::etcd(api::error::Error::Stopped))
    });
    Box::pin(first.chain(last))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::{pending, ready};

    use futures_util::FutureExt as _;
    use prost::Message as _;
    use tokio_stream::StreamExt as _;
    use tonic::Code;

    use super::*;

    fn about(service: &str) -> CheckRequest {
        CheckRequest { service: service.to_owned() }
    }

    #[test]
    fn the_server_serves_and_nobody_else_is_known() {
        // Field 1, varint 1: what every probe looks for.
        assert_eq!(check(&about("")).unwrap().into_inner().encode_to_vec(), [8, 1]);
        let refusal = check(&about("etcdserverpb.KV")).unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::NotFound, "unknown service"));
    }

    #[test]
    fn a_list_has_the_empty_name() {
        let list = List.call(Request::new(ListRequest {})).now_or_never().unwrap().unwrap().into_inner();
        assert_eq!(list.statuses[""].status(), Serving::Yes);
        assert_eq!(list.statuses.len(), 1);
    }

    #[test]
    fn a_watch_says_what_is_and_stays_open() {
        for (service, status) in [("", Serving::Yes), ("other", Serving::UnknownService)] {
            let mut answers = answers(&about(service), pending());
            assert_eq!(answers.next().now_or_never().unwrap().unwrap().unwrap().status(), status);
            assert!(answers.next().now_or_never().is_none(), "{service}: nothing new");
        }
    }

    #[test]
    fn a_watch_ends_with_the_member() {
        let mut answers = answers(&about(""), ready(()));
        assert!(answers.next().now_or_never().unwrap().unwrap().is_ok());
        let end = answers.next().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(end.message(), "etcdserver: server stopped");
        assert!(answers.next().now_or_never().unwrap().is_none());
    }
}
