//! Connections: accepted on one thread, dealt out to all, ended in order.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use grpc::{ClientCertificate, Services};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use parking_lot::Mutex;
use server::{Member, REQUEST_OVERHEAD};
use tls::{Door, Guest, Handshakes, Listener, Socket, Stream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tonic::body::Body;

use crate::access::{self, Access};
use crate::coalesce::Coalesced;
use crate::greeting::{self, Greeting};
use crate::json::{self, Json};
use crate::listen::Listeners;
use crate::pings::Watched;
use crate::probes::ProbeMetrics;
use crate::traffic::Counted;
use crate::{endpoints, peer};

/// How long open connections have to end once the member stops.
const FAREWELL: Duration = Duration::from_millis(500);

/// Questions of other members that may wait to be taken up.
const MAX_QUESTIONS: usize = 1024;

/// The rests after failures to accept, Go's: the first, doubled each time up to the last.
const RESTS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How HTTP/2 is spoken.
#[derive(Clone, Debug)]
pub struct Http2 {
    /// `--max-concurrent-streams`.
    pub max_concurrent_streams: u32,
    /// `--grpc-keepalive-min-time`: how far apart a client's pings are to be; zero for as it likes.
    pub keepalive_min_time: Duration,
    /// `--grpc-keepalive-interval`: the silence after which a client is pinged; zero for never.
    pub keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`: the time it has to answer.
    pub keepalive_timeout: Duration,
}

/// How a member's ports are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How HTTP/2 is spoken.
    pub http2: Http2,
    /// Who may use the paths that are not gRPC.
    pub access: Access,
    /// `--enable-grpc-gateway`: whether the API is there as JSON too.
    pub json: bool,
}

/// What is needed to serve a member's ports from its runtime threads.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    member: Arc<Member>,
    services: Services,
    probed: ProbeMetrics,
    settings: Settings,
    /// None where it is switched off.
    json: Option<Json>,
    listeners: Mutex<Option<Listeners>>,
    deal_to: Vec<UnboundedSender<Dealt>>,
    dealt: Mutex<Vec<Option<UnboundedReceiver<Dealt>>>>,
    ready: Box<dyn Fn() + Send + Sync>,
}

impl Gateway {
    /// A gateway on bound sockets; `ready` is called once requests are being served.
    pub fn new(
        member: Arc<Member>,
        listeners: Listeners,
        settings: Settings,
        ready: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (deal_to, dealt) = (0..member.config().shards)
            .map(|_| {
                let (sender, receiver) = unbounded_channel();
                (sender, Some(receiver))
            })
            .unzip();
        Self(Arc::new(Inner {
            services: Services::new(Arc::clone(&member)),
            probed: ProbeMetrics::new(member.metrics().registry()),
            json: settings
                .json
                .then(|| Json::new(member.config().max_request_bytes.saturating_add(REQUEST_OVERHEAD))),
            member,
            settings,
            listeners: Mutex::new(Some(listeners)),
            deal_to,
            dealt: Mutex::new(dealt),
            ready: Box::new(ready),
        }))
    }

    /// Serves what is dealt to runtime thread `shard`; the first one also accepts, other members at
    /// once and clients as soon as the member has something to tell them. Ends when the member stops
    /// and the connections have said goodbye.
    pub async fn serve(self, shard: usize) {
        let Some(mut dealt) = self.0.dealt.lock().get_mut(shard).and_then(Option::take) else { return };
        if shard == 0 {
            let listeners = self.0.listeners.lock().take().unwrap_or_default();
            self.meet_peers(listeners.peer);
            tokio::spawn(self.0.services.clone().monitor_leader());
            tokio::select! {
                () = self.0.member.ready() => {}
                () = self.0.member.stopping() => return,
            }
            let is_split = !listeners.http.is_empty();
            for listener in listeners.client {
                let traffic = if is_split { Traffic::Grpc } else { Traffic::Both };
                tokio::spawn(self.clone().accept(listener, traffic));
            }
            for listener in listeners.http {
                tokio::spawn(self.clone().accept(listener, Traffic::Http));
            }
            (self.0.ready)();
        }
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(greeting::LIMIT);
        let http2 = &self.0.settings.http2;
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(http2.max_concurrent_streams)
            .keep_alive_interval((!http2.keepalive_interval.is_zero()).then_some(http2.keepalive_interval))
            .keep_alive_timeout(http2.keepalive_timeout);
        let builders = Builders {
            http1: builder.clone().http1_only(),
            http2: builder.clone().http2_only(),
            either: builder,
        };
        let open = GracefulShutdown::new();
        let (enter, mut entered) = unbounded_channel();
        let handshakes = Handshakes::default();
        loop {
            tokio::select! {
                Some((guest, traffic)) = dealt.recv() => match guest.settle() {
                    Ok((socket, door)) if door.is_open() => {
                        self.connect(Stream::Plain(socket), traffic, &builders, &open);
                    }
                    Ok((socket, door)) => handshakes.spawn(let_in(socket, door, traffic, enter.clone())),
                    Err(error) => tracing::warn!(%error, "failed to take in a connection"),
                },
                Some((stream, traffic)) = entered.recv() => self.connect(stream, traffic, &builders, &open),
                () = self.0.member.stopping() => break,
            }
        }
        tokio::select! {
            () = open.shutdown() => {}
            () = tokio::time::sleep(FAREWELL) => {}
        }
    }

    fn connect(&self, stream: Stream, traffic: Traffic, builders: &Builders, open: &GracefulShutdown) {
        let gateway = self.clone();
        let (caller, remote) = (Caller::of(&stream), stream.remote());
        let builder = builders.of(traffic, stream.is_secure());
        let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let (gateway, caller) = (gateway.clone(), caller.clone());
            // Boxed, since a call is large, and hyper and tokio would move it several times.
            Box::pin(async move {
                Ok::<http::Response<Body>, Infallible>(gateway.answer(request, caller, remote, traffic).await)
            })
        });
        let metrics = self.0.member.metrics();
        let stream = Counted {
            inner: Greeting::new(stream),
            received: metrics.client_received.clone(),
            sent: metrics.client_sent.clone(),
        };
        let connection = builder
            .serve_connection(
                TokioIo::new(Watched::new(Coalesced::new(stream), self.0.settings.http2.keepalive_min_time)),
                service,
            )
            .into_owned();
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }

    async fn answer(
        &self,
        mut request: http::Request<Incoming>,
        caller: Caller,
        remote: Option<SocketAddr>,
        traffic: Traffic,
    ) -> http::Response<Body> {
        let is_grpc = request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if traffic == Traffic::Grpc && !is_grpc {
            not_grpc(&request)
        } else if traffic != Traffic::Http && is_grpc && request.version() == http::Version::HTTP_2 {
            if let Some(certificate) = caller.certificate() {
                request.extensions_mut().insert(certificate.clone());
            }
            self.0.services.call_from(remote, request).await
        } else {
            self.answer_http(request, &caller).await
        }
    }

    /// Answers what is not gRPC, to whom it may concern.
    async fn answer_http(
        &self,
        mut request: http::Request<Incoming>,
        caller: &Caller,
    ) -> http::Response<Body> {
        let access = &self.0.settings.access;
        json::rename(&mut request);
        let refusal = match caller {
            Caller::Plain => access.refuse(&request),
            Caller::Secured(_) => self.refuse_name(&request, caller),
        };
        if let Some(refusal) = refusal {
            return refusal.map(|text| Body::new(Full::new(text)));
        }
        let origin = access::origin(&request);
        let mut response = if request.method() == http::Method::OPTIONS {
            // A browser that asks whether it may ask.
            http::Response::new(Body::empty())
        } else {
            match &self.0.json {
                Some(json) if request.uri().path().starts_with(json::PREFIX) => {
                    json.answer(&self.0.services, request).await
                }
                _ => endpoints::answer(&self.0.member, &self.0.probed, &request).await,
            }
        };
        access.mark(origin.as_ref(), response.headers_mut());
        response
    }

    /// The answer to a client whose certificate names somebody, where that would be passed over: with JSON a user
    /// needs a token.
    fn refuse_name(
        &self,
        request: &http::Request<Incoming>,
        caller: &Caller,
    ) -> Option<http::Response<bytes::Bytes>> {
        let names_somebody =
            caller.certificate().is_some_and(|certificate| !certificate.common_name.is_empty());
        let is_passed_over = self.0.json.is_some()
            && self.0.member.config().client_cert_auth
            && request.uri().path().starts_with(json::PREFIX)
            && self.0.member.auth().is_enabled();
        (names_somebody && is_passed_over).then(|| {
            endpoints::error(
                http::StatusCode::BAD_REQUEST,
                "CommonName of client sending a request against gateway will be ignored and not used as expected",
            )
        })
    }

    async fn accept(self, listener: Listener, traffic: Traffic) {
        let mut turn = 0;
        self.each_connection(listener, |guest| {
            // A thread that is gone belongs to a member that stops.
            let _ = self.0.deal_to[turn].send((guest, traffic));
            turn = (turn + 1) % self.0.deal_to.len();
        })
        .await;
    }

    /// Has the peers' thread listen; what it does not answer itself is answered on this one.
    fn meet_peers(&self, listeners: Vec<Listener>) {
        let (ask, questions) = channel(MAX_QUESTIONS);
        for listener in listeners {
            self.0.member.peers().serve(listener, ask.clone());
        }
        tokio::spawn(peer::serve(Arc::clone(&self.0.member), questions));
    }

    /// Accepts until the member stops.
    async fn each_connection(&self, listener: Listener, mut take: impl FnMut(Guest)) {
        let listener = match listener.listen() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                return;
            }
        };
        let (first, last) = RESTS;
        let mut rest = first;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(guest) => {
                        rest = first;
                        take(guest);
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: more will be free, but nobody knows when.
                        tracing::warn!(%error, "retry-in" = ?rest, "failed to accept a connection");
                        tokio::time::sleep(rest).await;
                        rest = (rest * 2).min(last);
                    }
                },
                () = self.0.member.stopping() => return,
            }
        }
    }
}

/// Somebody who has connected, and what is served where they did.
type Dealt = (Guest, Traffic);

/// What is served at a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Both,
    Grpc,
    Http,
}

/// How connections are served, by what they may speak.
struct Builders {
    either: Builder<TokioExecutor>,
    http1: Builder<TokioExecutor>,
    http2: Builder<TokioExecutor>,
}

impl Builders {
    /// As in etcd, HTTP/2 for what is not gRPC takes TLS where the two have listeners of their own.
    fn of(&self, traffic: Traffic, is_secure: bool) -> &Builder<TokioExecutor> {
        match traffic {
            Traffic::Grpc => &self.http2,
            Traffic::Http if !is_secure => &self.http1,
            Traffic::Both | Traffic::Http => &self.either,
        }
    }
}

/// The answer of a listener for gRPC alone to anything else over HTTP/2.
fn not_grpc<B>(request: &http::Request<B>) -> http::Response<Body> {
    let kind = request.headers().get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let kind = String::from_utf8_lossy(kind.unwrap_or_default());
    let status = tonic::Status::invalid_argument(format!("invalid gRPC request content-type {kind:?}"));
    let mut response = status.into_http();
    *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// Who has connected, as far as their connection tells.
#[derive(Clone)]
enum Caller {
    /// Nothing is known.
    Plain,
    /// Somebody over TLS, with the certificate that they have proved to own.
    Secured(Option<Arc<ClientCertificate>>),
}

impl Caller {
    fn of(stream: &Stream) -> Caller {
        if !stream.is_secure() {
            return Caller::Plain;
        }
        let certificate = stream.common_name().map(|common_name| ClientCertificate { common_name });
        Caller::Secured(certificate.map(Arc::new))
    }

    fn certificate(&self) -> Option<&ClientCertificate> {
        match self {
            Caller::Secured(Some(certificate)) => Some(certificate),
            Caller::Secured(None) | Caller::Plain => None,
        }
    }
}

/// Takes in a connection that has to prove something first.
async fn let_in(socket: Socket, door: Door, traffic: Traffic, entered: UnboundedSender<(Stream, Traffic)>) {
    match door.enter(socket).await {
        // Nobody waits for it if the member stops.
        Ok(stream) => drop(entered.send((stream, traffic))),
        Err(rejection) => {
            let remote = rejection.remote.map_or_else(|| "@".to_owned(), |remote| remote.to_string());
            tracing::warn!(
                "remote-addr" = remote,
                error = rejection.why,
                "rejected connection on client endpoint"
            );
        }
    }
}
