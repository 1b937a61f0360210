//! Finds the service that a request is for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use api::error::Error as Etcd;
use api::etcdserverpb::auth_server::AuthServer;
use api::etcdserverpb::cluster_server::ClusterServer;
use api::etcdserverpb::kv_server::KvServer;
use api::etcdserverpb::lease_server::LeaseServer;
use api::etcdserverpb::maintenance_server::MaintenanceServer;
use api::etcdserverpb::{RangeRequest, WatchRequest};
use api::v3electionpb::election_server::ElectionServer;
use api::v3lockpb::lock_server::LockServer;
use server::{Credentials, Member, REQUEST_OVERHEAD};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::{Service, StdError};
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::access;
use crate::auth::AuthService;
use crate::caller::Home;
use crate::cluster::ClusterService;
use crate::codec::WireCodec;
use crate::election::ElectionService;
use crate::health::{self, Health};
use crate::kv::KvService;
use crate::leader::{self, LeaderWatch};
use crate::lease::LeaseService;
use crate::lock::LockService;
use crate::maintenance::MaintenanceService;
use crate::metrics::{self, Messages, RpcMetrics};
use crate::range::{self, RangeReply};
use crate::reflection::{self, Reflection};
use crate::status;
use crate::trace::Tracer;
use crate::watch::{self, WatchFrames, WatchReply};

/// What clients may compress their requests with; Go's gRPC library, and so etcd, knows it too. Answers
/// are not compressed: clients announce that they could read it whether or not they want it.
const GZIP: CompressionEncoding = CompressionEncoding::Gzip;

/// gRPC's own health service.
const HEALTH: &str = "grpc.health.v1.Health";

/// Whether a learner answers a call. Ranges are looked at once they are read: it serves those that ask
/// for no more than it has.
fn serves_learners(service: &str, method: &str) -> bool {
    matches!(
        (service, method),
        ("etcdserverpb.KV", "Range") | ("etcdserverpb.Maintenance", "Status" | "Snapshot")
    )
}

/// Whether a call has more than one answer.
fn is_stream(service: &str, method: &str) -> bool {
    matches!(
        (service, method),
        ("etcdserverpb.Watch", "Watch")
            | ("etcdserverpb.Lease", "LeaseKeepAlive")
            | ("etcdserverpb.KV", "RangeStream")
            | ("etcdserverpb.Maintenance", "Snapshot")
            | ("v3electionpb.Election", "Observe")
            | (HEALTH, "Watch")
    )
}

/// All gRPC services of a member. Cloning is cheap; every connection has a clone.
#[derive(Clone)]
pub struct Services {
    member: Arc<Member>,
    metrics: Arc<RpcMetrics>,
    tracer: Option<Tracer>,
    leader: LeaderWatch,
    kv: KvServer<KvService>,
    lease: LeaseServer<LeaseService>,
    cluster: ClusterServer<ClusterService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    auth: AuthServer<AuthService>,
    lock: LockServer<LockService>,
    election: ElectionServer<ElectionService>,
    reflection: Reflection,
    health: Health,
}

impl Services {
    /// The services of `member`.
    pub fn new(member: Arc<Member>) -> Self {
        let limit = member.config().max_request_bytes.saturating_add(REQUEST_OVERHEAD);
        let metrics =
            Arc::new(RpcMetrics::new(member.metrics().registry(), member.config().extensive_metrics));
        let kv = Arc::new(KvService { member: Arc::clone(&member) });
        let lease = Arc::new(LeaseService {
            member: Arc::clone(&member),
            messages: metrics.messages("/etcdserverpb.Lease/LeaseKeepAlive"),
        });
        let home = Home { member: Arc::clone(&member), kv: Arc::clone(&kv), lease: Arc::clone(&lease) };
        let cluster = ClusterService { member: Arc::clone(&member) };
        let auth = AuthService { member: Arc::clone(&member) };
        let maintenance = MaintenanceService { member: Arc::clone(&member) };
        Self {
            metrics,
            tracer: Tracer::new(&member),
            leader: LeaderWatch::new(),
            kv: KvServer::from_arc(kv).max_decoding_message_size(limit).accept_compressed(GZIP),
            lease: LeaseServer::from_arc(lease).max_decoding_message_size(limit).accept_compressed(GZIP),
            cluster: ClusterServer::new(cluster).max_decoding_message_size(limit).accept_compressed(GZIP),
            maintenance: MaintenanceServer::new(maintenance)
                .max_decoding_message_size(limit)
                .accept_compressed(GZIP),
            auth: AuthServer::new(auth).max_decoding_message_size(limit).accept_compressed(GZIP),
            lock: LockServer::new(LockService(home.clone()))
                .max_decoding_message_size(limit)
                .accept_compressed(GZIP),
            election: ElectionServer::new(ElectionService(home))
                .max_decoding_message_size(limit)
                .accept_compressed(GZIP),
            reflection: Reflection::new(),
            health: Health::of(&member),
            member,
        }
    }

    /// Serves one call, of a client that is known by no address.
    pub async fn call<B>(&self, request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        self.call_from(None, request).await
    }

    /// Serves one call.
    pub async fn call_from<B>(
        &self,
        remote: Option<SocketAddr>,
        mut request: http::Request<B>,
    ) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        let mut call = self.metrics.start(request.uri().path(), request.headers());
        call.remote = remote;
        let begin = |tracer: &Tracer| tracer.begin(request.uri().path(), request.headers());
        call.trace = self.tracer.as_ref().and_then(begin);
        if let Some(trace) = &call.trace {
            request.extensions_mut().insert(trace.clone());
        }
        let response = status::refused(self.dispatch(request, call.is_known()).await);
        call.finish(response, self.member.config().warning_request)
    }

    async fn dispatch<B>(&self, mut request: http::Request<B>, known: bool) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        let path = request.uri().path().to_owned();
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
            return Status::unimplemented(format!("malformed method name: {path:?}")).into_http();
        };
        if (known || service == HEALTH) && !serves_learners(service, method) && self.member.is_learner() {
            return status::etcd(Etcd::NotSupportedForLearner).into_http();
        }
        if known && !metrics::version_is_text(request.headers()) {
            return status::etcd(Etcd::InvalidClientApiVersion).into_http();
        }
        let wants_leader = leader::is_required(request.headers());
        if wants_leader && self.member.raft().leader() == 0 {
            return status::etcd(Etcd::NoLeader).into_http();
        }
        let Some(gate) = access::gate(service, method) else {
            // Whatever else may be served below, it is not without having been thought of.
            return unknown(service, method).into_http();
        };
        let credentials = access::credentials(request.headers(), request.extensions());
        self.member.await_token(&credentials).await;
        if let Err(refusal) = access::admit(&self.member, gate, &credentials) {
            return refusal.into_http();
        }
        if credentials != Credentials::default() {
            request.extensions_mut().insert(credentials);
        }
        if !wants_leader {
            return self.route(request, known).await;
        }
        let is_stream = is_stream(service, method);
        let response = self.route(request, known).await;
        if is_stream { self.leader.bind(response) } else { response }
    }

    /// Ends streams that want a leader when there is none for too long; until the member stops.
    pub async fn monitor_leader(self) {
        self.leader.monitor(self.member).await;
    }

    async fn route<B>(&self, request: http::Request<B>, known: bool) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        let path = request.uri().path();
        let (service, method) = path.trim_start_matches('/').rsplit_once('/').unwrap_or_default();
        match (service, method) {
            ("etcdserverpb.KV", "Range") => self.range(request).await,
            ("etcdserverpb.Watch", "Watch") => self.watch(request).await,
            ("etcdserverpb.KV", _) if known => answered(self.kv.clone().call(request).await),
            ("etcdserverpb.Lease", _) if known => answered(self.lease.clone().call(request).await),
            ("etcdserverpb.Cluster", _) if known => answered(self.cluster.clone().call(request).await),
            ("etcdserverpb.Maintenance", _) if known => {
                answered(self.maintenance.clone().call(request).await)
            }
            ("etcdserverpb.Auth", _) if known => answered(self.auth.clone().call(request).await),
            ("v3lockpb.Lock", _) if known => answered(self.lock.clone().call(request).await),
            ("v3electionpb.Election", _) if known => answered(self.election.clone().call(request).await),
            (HEALTH, "Check") => self.plain().unary(health::Check(self.health.clone()), request).await,
            (HEALTH, "List") => self.plain().unary(health::List(self.health.clone()), request).await,
            (HEALTH, "Watch") => {
                let watch = health::Watch(self.health.clone(), Arc::clone(&self.member));
                self.plain().server_streaming(watch, request).await
            }
            (service, _) if service.starts_with(reflection::PREFIX) => {
                let service = service.to_owned();
                self.reflection.call(&service, request.map(Body::new)).await
            }
            _ => unknown(service, method).into_http(),
        }
    }

    fn request_limit(&self) -> Option<usize> {
        Some(self.member.config().max_request_bytes.saturating_add(REQUEST_OVERHEAD))
    }

    async fn range<B>(&self, request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        Grpc::new(WireCodec::<RangeReply, RangeRequest>::default())
            .apply_max_message_size_config(self.request_limit(), None)
            .accept_compressed(GZIP)
            .unary(RangeCall(Arc::clone(&self.member)), request)
            .await
    }

    async fn watch<B>(&self, request: http::Request<B>) -> http::Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        Grpc::new(WireCodec::<WatchReply, WatchRequest>::default())
            .apply_max_message_size_config(self.request_limit(), None)
            .accept_compressed(GZIP)
            .streaming(
                WatchCall(Arc::clone(&self.member), self.metrics.messages("/etcdserverpb.Watch/Watch")),
                request,
            )
            .await
    }

    /// A call of a service that is not generated, with messages that prost writes and reads.
    fn plain<A, Q>(&self) -> Grpc<ProstCodec<A, Q>>
    where
        A: prost::Message + Send + 'static,
        Q: prost::Message + Default + Send + 'static,
    {
        Grpc::new(ProstCodec::default())
            .apply_max_message_size_config(self.request_limit(), None)
            .accept_compressed(GZIP)
    }
}

/// What there is not.
fn unknown(service: &str, method: &str) -> Status {
    Status::unimplemented(match service {
        "etcdserverpb.KV"
        | "etcdserverpb.Watch"
        | "etcdserverpb.Lease"
        | "etcdserverpb.Cluster"
        | "etcdserverpb.Maintenance"
        | "etcdserverpb.Auth"
        | "v3lockpb.Lock"
        | "v3electionpb.Election"
        | HEALTH => format!("unknown method {method} for service {service}"),
        _ => format!("unknown service {service}"),
    })
}

fn answered(response: Result<http::Response<Body>, Infallible>) -> http::Response<Body> {
    match response {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

struct RangeCall(Arc<Member>);

impl tonic::server::UnaryService<RangeRequest> for RangeCall {
    type Response = RangeReply;
    type Future = tonic::codegen::BoxFuture<Response<RangeReply>, Status>;

    fn call(&mut self, request: Request<RangeRequest>) -> Self::Future {
        Box::pin(range::serve(Arc::clone(&self.0), request))
    }
}

struct WatchCall(Arc<Member>, Messages);

impl tonic::server::StreamingService<WatchRequest> for WatchCall {
    type Response = WatchReply;
    type ResponseStream = WatchFrames;
    type Future = std::future::Ready<Result<Response<WatchFrames>, Status>>;

    fn call(&mut self, request: Request<tonic::Streaming<WatchRequest>>) -> Self::Future {
        let credentials = request.extensions().get::<Credentials>().cloned().unwrap_or_default();
        std::future::ready(Ok(Response::new(watch::frames(
            Arc::clone(&self.0),
            credentials,
            request.into_inner(),
            self.1.clone(),
        ))))
    }
}
