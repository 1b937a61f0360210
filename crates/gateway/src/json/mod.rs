//! The API as JSON over HTTP, below `/v3/`.
//!
//! A path stands for a method. The JSON value of the request becomes the method's message, by reflection
//! over the descriptors of `proto/`; the message goes to `grpc` as any client's would, but through no
//! socket; and what comes back becomes JSON, one value, or for a stream one `{"result": …}` a line.
//!
//! ```text
//! POST /v3/kv/range {"key": "Zm9v"}
//!   -> routes: /etcdserverpb.KV/Range, RangeRequest -> RangeResponse
//!   -> split, translate: the message, bytes from base64
//!   -> call: framed as gRPC, through `grpc::Services`, unframed
//!   -> translate: {"header": {"cluster_id": "…", …}, "kvs": [{"key": "Zm9v", …}], "count": "1"}
//! ```
//!
//! What goes wrong is told as `{"error", "code", "message"}` with the HTTP status of the gRPC code. The
//! library of etcd 3.5's gateway says it so; that of 3.6 and 3.7 leaves `error` out, and nobody who reads
//! its answers minds that it is there.

mod call;
mod refusal;
mod requests;
mod results;
mod routes;
mod split;
mod translate;

use grpc::Services;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use prost_reflect::MessageDescriptor;
use tonic::Status;
use tonic::body::Body;

use crate::json::call::Answers;
use crate::json::requests::Requests;
use crate::json::results::Results;
use crate::json::routes::Route;
pub(crate) use crate::json::routes::Routes;

/// Below which the methods are.
pub(crate) const PREFIX: &str = "/v3/";

/// Messages of more bytes take a millisecond or more to write.
const LONG: usize = 64 * 1024;

/// How the gateway says what a message was on its way.
const GRPC_CONTENT_TYPE: (http::HeaderName, HeaderValue) = (
    http::HeaderName::from_static("grpc-metadata-content-type"),
    HeaderValue::from_static("application/grpc"),
);

/// A path of etcd's betas, which still stands for the one that is there.
const BETA: &str = "/v3beta/";

/// Puts the path of today into a request that names an old one.
pub(crate) fn rename<B>(request: &mut Request<B>) {
    let Some(rest) = request.uri().path_and_query().and_then(|target| target.as_str().strip_prefix(BETA))
    else {
        return;
    };
    if let Ok(target) = format!("{PREFIX}{rest}").parse() {
        *request.uri_mut() = target;
    }
}

/// The JSON gateway of a member.
pub(crate) struct Json {
    routes: Routes,
    /// The longest JSON value that is read, in bytes.
    limit: usize,
}

impl Json {
    /// A gateway to services that take messages of up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        // As base64 a message is a third longer, and names and numbers are longer than their tags; there is
        // no bound to white space, but who sends it cannot want it.
        Self { routes: Routes::new(), limit: limit.saturating_mul(2) }
    }

    /// Serves one request to a path below [`PREFIX`].
    pub(crate) async fn answer<B>(&self, services: &Services, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let path = request.uri().path();
        let Some(route) = path.strip_prefix(PREFIX).and_then(|path| self.routes.find(path)) else {
            return refusal::whole(&Status::not_found("Not Found"));
        };
        if request.method() != Method::POST {
            return refusal::whole(&Status::unimplemented("Method Not Allowed"));
        }
        let (head, body) = request.into_parts();
        let requests = Requests::new(body, route.input.clone(), self.limit);
        let answers = if route.takes_stream {
            call::begin(services, route, &head.headers, Body::new(requests)).await
        } else {
            // What comes after the first value is nobody's business.
            match requests.first().await {
                Ok(message) => {
                    call::begin(services, route, &head.headers, Body::new(Full::new(message))).await
                }
                Err(status) => return refusal::whole(&status),
            }
        };
        let mut response =
            if route.gives_stream { stream(route, answers).await } else { one(route, answers).await };
        let (name, value) = GRPC_CONTENT_TYPE;
        response.headers_mut().insert(name, value);
        response
    }
}

/// The answer of a method that has one.
async fn one(route: &Route, mut answers: Answers) -> Response<Body> {
    let answer = match answers.next().await {
        Some(Ok(message)) => written(&route.output, message).await,
        Some(Err(status)) => Err(status),
        None => Err(Status::internal("a call ended without an answer")),
    };
    match answer {
        Ok(text) => json(StatusCode::OK, Body::new(Full::new(Bytes::from(text)))),
        Err(status) => refusal::whole(&status),
    }
}

/// A message as JSON. A long one is written on a thread of its own: this one has other requests to serve.
async fn written(kind: &MessageDescriptor, message: Bytes) -> Result<Vec<u8>, Status> {
    if message.len() <= LONG {
        return translate::to_json(kind, message);
    }
    let kind = kind.clone();
    tokio::task::spawn_blocking(move || translate::to_json(&kind, message))
        .await
        .unwrap_or_else(|_| Err(Status::internal("the answer was interrupted")))
}

/// The answers of a method that has any number. Nothing is sent before the first of them: if that is a
/// refusal, the HTTP status tells it.
async fn stream(route: &Route, mut answers: Answers) -> Response<Body> {
    match answers.next().await {
        Some(Err(status)) => refusal::of_stream(&status),
        first => {
            let first = first.and_then(Result::ok);
            json(StatusCode::OK, Body::new(Results::new(first, answers, route.output.clone())))
        }
    }
}

fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// How the requests of one method are read, without anybody who answers them.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) struct Reading<'a> {
    route: &'a Route,
    limit: usize,
}

#[cfg(any(test, feature = "fuzzing"))]
impl<'a> Reading<'a> {
    /// Of the method number `number`, if they went round, with values of up to `limit` bytes.
    pub(crate) fn nth(routes: &'a Routes, number: usize, limit: usize) -> Self {
        Self { route: routes.nth(number), limit }
    }

    /// The framed messages of a body.
    pub(crate) fn requests<B>(&self, body: B) -> Requests<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        Requests::new(body, self.route.input.clone(), self.limit)
    }

    /// A framed request as JSON.
    pub(crate) fn written(&self, framed: &Bytes) -> Result<Vec<u8>, Status> {
        translate::to_json(&self.route.input, framed.slice(requests::FRAME..))
    }
}
