//! The peer port: raft's paths are answered here, all others elsewhere.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use raft::Body;
use tls::{Guest, Handshakes, Listener, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::budget::{Budget, TOO_MUCH};
use crate::connect::Impatient;
use crate::framing::Kind;
use crate::hub::Hub;
use crate::identity::{self, CLUSTER_ID, FROM, MIN_VERSION, OTHER_CLUSTER, RAFT_TO, VERSION, hex_value};
use crate::link::count;
use crate::writer::StreamBody;
use crate::{Other, codec, probe, snapshot};

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);

/// The longest message that is posted, in bytes. What may be longer comes on streams, which this member has asked
/// for.
const LONGEST_MESSAGE: usize = 64 << 20;

/// The longest body of a request that is not raft's, bytes.
const LONGEST_OTHER: usize = 16 << 20;

/// The rests after failures to accept: the first, doubled each time up to the last.
const RESTS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// What answers consist of.
pub(crate) enum Reply {
    Stream(Box<StreamBody>),
    Full(Full<Bytes>),
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Reply::Stream(stream) => Pin::new(stream.as_mut()).poll_frame(context),
            Reply::Full(full) => Pin::new(full).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Reply::Full(full) if full.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Stream(_) => SizeHint::default(),
            Reply::Full(full) => full.size_hint(),
        }
    }
}

type Answer = Response<Reply>;

/// Accepts for as long as the thread runs.
pub(crate) async fn accept(hub: Arc<Hub>, listener: Listener, other: mpsc::Sender<Other>) {
    let listener = match listener.listen() {
        Ok(listener) => listener,
        Err(error) => return hub.events.failed(&format!("cannot accept peers: {error}")),
    };
    let handshakes = Handshakes::default();
    let (first, last) = RESTS;
    let mut rest = first;
    loop {
        match listener.accept().await {
            Ok(guest) => {
                rest = first;
                let_in(&hub, guest, &handshakes, &other);
            }
            Err(error) => {
                tracing::warn!(%error, "retry-in" = ?rest, "failed to accept a peer");
                sleep(rest).await;
                rest = (rest * 2).min(last);
            }
        }
    }
}

/// Serves somebody who has connected, once they have proved what they have to.
fn let_in(hub: &Arc<Hub>, guest: Guest, handshakes: &Handshakes, other: &mpsc::Sender<Other>) {
    let (socket, door) = match guest.settle() {
        Ok(settled) => settled,
        Err(error) => return tracing::warn!(%error, "failed to take in a peer"),
    };
    let (hub, other) = (Arc::clone(hub), other.clone());
    let from = socket.remote().map_or_else(|| "@".to_owned(), |remote| remote.to_string());
    if door.is_open() {
        let spawner = Arc::clone(&hub);
        spawner.spawn(connection(hub, Stream::Plain(socket), from, other));
        return;
    }
    handshakes.spawn(async move {
        match door.enter(socket).await {
            Ok(stream) => {
                let spawner = Arc::clone(&hub);
                spawner.spawn(connection(hub, stream, from, other));
            }
            Err(rejection) => tracing::warn!(
                "remote-addr" = from,
                error = rejection.why,
                "rejected connection on peer endpoint"
            ),
        }
    });
}

async fn connection(hub: Arc<Hub>, stream: Stream, from: String, other: mpsc::Sender<Other>) {
    let stream = TokioIo::new(Impatient::new(stream, hub.settings.write_timeout));
    let service = service_fn(move |request: Request<Incoming>| {
        let (hub, other) = (Arc::clone(&hub), other.clone());
        async move { Ok::<Answer, Infallible>(answer(&hub, request, other).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(stream, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(from, %error, "peer connection ended");
    }
}

async fn answer(hub: &Arc<Hub>, request: Request<Incoming>, other: mpsc::Sender<Other>) -> Answer {
    let path = request.uri().path();
    if let Some(of_stream) = path.strip_prefix("/raft/stream/") {
        let of_stream = of_stream.to_owned();
        return stream(hub, &request, &of_stream);
    }
    match path {
        "/raft" => pipeline(hub, request).await,
        "/raft/snapshot" => snapshot(hub, request).await,
        probe::PATH => probing(),
        raft if raft.starts_with("/raft/") => refuse(StatusCode::NOT_FOUND, "404 page not found"),
        _ => elsewhere(hub, request, other).await,
    }
}

// ---------------------------------------------------------------- raft's paths

/// A peer wants to listen to us.
fn stream(hub: &Arc<Hub>, request: &Request<Incoming>, path: &str) -> Answer {
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    let mut answer = attach(hub, request.headers(), path);
    answer.headers_mut().insert(CLUSTER_ID, hex_value(hub.settings.cluster_id));
    answer.headers_mut().insert(VERSION, HeaderValue::from_static(hub.settings.version));
    answer
}

fn attach(hub: &Arc<Hub>, headers: &HeaderMap, path: &str) -> Answer {
    let who = identity::text(headers, &FROM);
    if let Err(why) = identity::check(&hub.settings, headers) {
        complain(headers, why);
        return refuse(StatusCode::PRECONDITION_FAILED, why);
    }
    let Some((kind, from)) = path.split_once('/') else {
        return refuse(StatusCode::NOT_FOUND, "invalid path");
    };
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.path() == kind) else {
        return refuse(StatusCode::NOT_FOUND, "invalid path");
    };
    let Some(from) = identity::parse_id(from) else {
        return refuse(StatusCode::NOT_FOUND, "invalid from");
    };
    if hub.events.is_removed(from) {
        let text = "rejected stream from remote peer because it was removed";
        tracing::warn!("remote-peer-id-from" = who, "{text}");
        return refuse(StatusCode::GONE, "removed member");
    }
    let Some(link) = hub.member(from) else {
        // It may have been added while this member was behind: then it can already be answered.
        hub.add(from, &identity::peer_urls(headers), false);
        tracing::warn!("remote-peer-id-from" = who, "failed to find remote peer in cluster");
        return refuse(StatusCode::NOT_FOUND, "error sender not found");
    };
    if identity::text(headers, &RAFT_TO) != identity::id_text(hub.settings.id) {
        let to = identity::text(headers, &RAFT_TO);
        let text = "ignored streaming request; ID mismatch";
        tracing::warn!("remote-peer-id-from" = who, "remote-peer-id-header" = to, "{text}");
        return refuse(StatusCode::PRECONDITION_FAILED, "to field mismatch");
    }
    match StreamBody::attach(Arc::clone(hub), link, kind) {
        Some(body) => {
            let mut answer = Response::new(Reply::Stream(Box::new(body)));
            // Nothing is to follow when it ends.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            answer
        }
        None => refuse(StatusCode::NOT_FOUND, "error sender not found"),
    }
}

/// Says in the log why somebody was turned away.
fn complain(headers: &HeaderMap, why: &str) {
    let header = |name| identity::text(headers, &name);
    tracing::warn!(
        "remote-peer-server-name" = header(FROM),
        "remote-peer-server-version" = header(VERSION),
        "remote-peer-server-minimum-cluster-version" = header(MIN_VERSION),
        "remote-peer-cluster-id" = header(CLUSTER_ID),
        error = why,
        "{}",
        if why == OTHER_CLUSTER {
            "request cluster ID mismatch"
        } else {
            "failed version compatibility check"
        }
    );
}

/// A message of its own.
async fn pipeline(hub: &Arc<Hub>, request: Request<Incoming>) -> Answer {
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    let mut answer = match take_message(hub, request).await {
        Ok(()) => status(StatusCode::NO_CONTENT),
        Err((code, why)) => {
            tracing::warn!(error = why, "failed to process Raft message");
            refuse(code, &why)
        }
    };
    answer.headers_mut().insert(CLUSTER_ID, hex_value(hub.settings.cluster_id));
    answer
}

async fn take_message(hub: &Arc<Hub>, request: Request<Incoming>) -> Result<(), (StatusCode, String)> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    introduce(hub, request.headers())?;
    let from = identity::parse_id(identity::text(request.headers(), &FROM));
    let body = read(request.into_body(), LONGEST_MESSAGE, &hub.bodies, hub.settings.read_timeout).await;
    let bytes = body.map_err(|error| bad(format!("error reading raft message: {error}")))?;
    let link = from.and_then(|from| hub.link(from));
    if let Some(link) = &link {
        count(&link.counters.received_bytes, bytes.len());
    }
    let message = codec::decode(bytes).and_then(codec::to_raft).map_err(|refused| {
        if let Some(link) = &link {
            count(&link.counters.received_failures, 1);
        }
        bad(format!("error unmarshalling raft message: {refused}"))
    })?;
    snapshot::check_parties(hub, &message)?;
    if matches!(message.body, Body::Snapshot(_)) {
        return Err(bad("a snapshot comes with its database".to_owned()));
    }
    hub.events.receive(&mut vec![message]);
    Ok(())
}

/// A database.
async fn snapshot(hub: &Arc<Hub>, request: Request<Incoming>) -> Answer {
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    let taken = match introduce(hub, request.headers()) {
        Ok(()) => snapshot::receive(hub, request).await,
        Err(refusal) => Err(refusal),
    };
    let mut answer = match taken {
        Ok(()) => status(StatusCode::NO_CONTENT),
        Err((code, why)) => refuse(code, &why),
    };
    answer.headers_mut().insert(CLUSTER_ID, hex_value(hub.settings.cluster_id));
    answer
}

fn probing() -> Answer {
    let mut answer = Response::new(Reply::Full(probe::answer().into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Whether the sender of a POST may speak; who is unknown can be answered from now on.
fn introduce(hub: &Arc<Hub>, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    identity::check(&hub.settings, headers).map_err(|why| {
        tracing::warn!(
            "remote-peer-id" = identity::text(headers, &FROM),
            error = why,
            "rejected raft message"
        );
        (StatusCode::PRECONDITION_FAILED, why.to_owned())
    })?;
    if let Some(from) = identity::parse_id(identity::text(headers, &FROM))
        && !hub.events.is_removed(from)
    {
        hub.add(from, &identity::peer_urls(headers), false);
    }
    Ok(())
}

// ---------------------------------------------------------------- other paths

async fn elsewhere(hub: &Hub, request: Request<Incoming>, other: mpsc::Sender<Other>) -> Answer {
    let (head, body) = request.into_parts();
    let body = match read(body, LONGEST_OTHER, &hub.bodies, hub.settings.read_timeout).await {
        Ok(body) => body,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    let (to, answer) = oneshot::channel();
    let answer = match other.send((Request::from_parts(head, body), to)).await {
        Ok(()) => answer.await.ok(),
        Err(_) => None,
    };
    match answer {
        Some(answer) => answer.map(|body| Reply::Full(Full::new(body))),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "server stopped"),
    }
}

/// Reads a body that is not too long and does not pause for too long.
async fn read(body: Incoming, longest: usize, budget: &Budget, limit: Duration) -> Result<Bytes, String> {
    let mut share = budget.share();
    let mut body = Limited::new(body, longest);
    let mut first = Bytes::new();
    let mut all = Vec::new();
    loop {
        let frame = timeout(limit, body.frame()).await.map_err(|_| "timed out".to_owned())?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        if !share.take(data.len()) {
            return Err(TOO_MUCH.to_owned());
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

// ---------------------------------------------------------------- answers

fn status(code: StatusCode) -> Answer {
    let mut answer = Response::new(Reply::Full(Full::default()));
    *answer.status_mut() = code;
    answer
}

/// Bad news as Go's helper sends them: text that ends its line, and that no browser may take for
/// something else.
fn refuse(code: StatusCode, why: &str) -> Answer {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
    const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
    let headers: [(HeaderName, HeaderValue); 2] = [(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, NOSNIFF)];
    let mut answer = Response::new(Reply::Full(format!("{why}\n").into()));
    *answer.status_mut() = code;
    answer.headers_mut().extend(headers);
    answer
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
