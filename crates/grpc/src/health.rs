//! gRPC's own health service, by which probes of containers and load balancers ask whether there is a
//! server, without a word of etcd's API.
//!
//! As in etcd it knows one name, the empty one for the whole server, which serves for as long as it
//! answers; with the feature gate `StopGRPCServiceOnDefrag` not while the store's file is rewritten, though
//! here nobody is held up meanwhile. Whether the member has a leader is for `/health` to say.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use api::error::Error as Etcd;
use server::Member;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::codegen::BoxFuture;
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

/// What there is to know of the server.
#[derive(Clone)]
pub(crate) struct Health {
    /// How many defragmentations run; none if that does not matter.
    defragmentations: Option<watch::Receiver<usize>>,
}

impl Health {
    pub(crate) fn of(member: &Member) -> Self {
        let matters = member.config().not_serving_on_defrag;
        Self { defragmentations: matters.then(|| member.defragmentations()) }
    }

    fn now(&self) -> Serving {
        match &self.defragmentations {
            Some(running) if *running.borrow() > 0 => Serving::No,
            _ => Serving::Yes,
        }
    }

    /// Waits until that may have changed.
    async fn changed(&mut self) {
        if let Some(running) = &mut self.defragmentations
            && running.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    fn check(&self, request: &CheckRequest) -> Result<Response<CheckResponse>, Status> {
        if !request.service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(CheckResponse { status: self.now().into() }))
    }

    /// What is known, and then what is new, until the end.
    fn answers(self, request: &CheckRequest, end: impl Future<Output = ()> + Send + 'static) -> Answers {
        struct State {
            health: Health,
            is_known: bool,
            said: Option<Serving>,
            /// None once it has come.
            end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
        }
        let is_known = request.service.is_empty();
        let state = State { health: self, is_known, said: None, end: Some(Box::pin(end)) };
        Box::pin(futures_util::stream::unfold(state, |mut state| async move {
            loop {
                let now = if state.is_known { state.health.now() } else { Serving::UnknownService };
                if state.said.replace(now) != Some(now) {
                    return Some((Ok(CheckResponse { status: now.into() }), state));
                }
                tokio::select! {
                    () = state.end.as_mut()? => {
                        state.end = None;
                        return Some((Err(status::etcd(Etcd::Stopped)), state));
                    }
                    () = state.health.changed() => {}
                }
            }
        }))
    }
}

/// One question, one answer.
pub(crate) struct Check(pub(crate) Health);

impl UnaryService<CheckRequest> for Check {
    type Response = CheckResponse;
    type Future = std::future::Ready<Result<Response<CheckResponse>, Status>>;

    fn call(&mut self, request: Request<CheckRequest>) -> Self::Future {
        std::future::ready(self.0.check(&request.into_inner()))
    }
}

/// All there is to know.
pub(crate) struct List(pub(crate) Health);

impl UnaryService<ListRequest> for List {
    type Response = ListResponse;
    type Future = std::future::Ready<Result<Response<ListResponse>, Status>>;

    fn call(&mut self, _: Request<ListRequest>) -> Self::Future {
        let all = CheckResponse { status: self.0.now().into() };
        let statuses = HashMap::from([(String::new(), all)]);
        std::future::ready(Ok(Response::new(ListResponse { statuses })))
    }
}

/// One question, an answer whenever it changes.
pub(crate) struct Watch(pub(crate) Health, pub(crate) Arc<Member>);

type Answers = Pin<Box<dyn Stream<Item = Result<CheckResponse, Status>> + Send>>;

impl ServerStreamingService<CheckRequest> for Watch {
    type Response = CheckResponse;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<CheckRequest>) -> Self::Future {
        let member = Arc::clone(&self.1);
        let answers = self.0.clone().answers(&request.into_inner(), async move { member.stopping().await });
        Box::pin(std::future::ready(Ok(Response::new(answers))))
    }
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

    fn good() -> Health {
        Health { defragmentations: None }
    }

    #[test]
    fn a_server_that_is_busy_says_so_while_it_is() {
        let (running, defragmentations) = watch::channel(0);
        let health = Health { defragmentations: Some(defragmentations) };
        let now = || health.check(&about("")).unwrap().into_inner().status();
        let mut answers = health.clone().answers(&about(""), pending());
        let mut next = || answers.next().now_or_never().map(|answer| answer.unwrap().unwrap().status());
        assert_eq!((now(), next(), next()), (Serving::Yes, Some(Serving::Yes), None));
        running.send_replace(2);
        assert_eq!((now(), next(), next()), (Serving::No, Some(Serving::No), None));
        running.send_replace(1);
        assert_eq!(next(), None, "nothing new");
        running.send_replace(0);
        assert_eq!((now(), next()), (Serving::Yes, Some(Serving::Yes)));
        drop(running);
        assert_eq!(next(), None);
    }

    #[test]
    fn the_server_serves_and_nobody_else_is_known() {
        // Field 1, varint 1: what every probe looks for.
        assert_eq!(good().check(&about("")).unwrap().into_inner().encode_to_vec(), [8, 1]);
        let refusal = good().check(&about("etcdserverpb.KV")).unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::NotFound, "unknown service"));
    }

    #[test]
    fn a_list_has_the_empty_name() {
        let list =
            List(good()).call(Request::new(ListRequest {})).now_or_never().unwrap().unwrap().into_inner();
        assert_eq!(list.statuses[""].status(), Serving::Yes);
        assert_eq!(list.statuses.len(), 1);
    }

    #[test]
    fn a_watch_says_what_is_and_stays_open() {
        for (service, status) in [("", Serving::Yes), ("other", Serving::UnknownService)] {
            let mut answers = good().answers(&about(service), pending());
            assert_eq!(answers.next().now_or_never().unwrap().unwrap().unwrap().status(), status);
            assert!(answers.next().now_or_never().is_none(), "{service}: nothing new");
        }
    }

    #[test]
    fn a_watch_ends_with_the_member() {
        let mut answers = good().answers(&about(""), ready(()));
        assert!(answers.next().now_or_never().unwrap().unwrap().is_ok());
        let end = answers.next().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(end.message(), "etcdserver: server stopped");
        assert!(answers.next().now_or_never().unwrap().is_none());
    }
}
