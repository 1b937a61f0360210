//! The paths of the client port that are not gRPC.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use server::{ETCD_VERSION, Member, STORAGE_VERSION};
use tonic::body::Body;

use crate::health;

const TEXT: &str = "text/plain; charset=utf-8";

/// What the answers tell browsers: pages of every origin may use them, as with etcd's default of
/// `--cors`.
const CORS: [(HeaderName, HeaderValue); 3] = [
    (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE")),
    (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("accept, content-type, authorization")),
];

/// Answers by path.
pub(crate) async fn answer<B>(member: &Arc<Member>, request: &Request<B>) -> Response<Body> {
    let mut response = match (request.uri().path(), request.method()) {
        // A browser that asks whether it may ask.
        (_, &Method::OPTIONS) => Response::new(Body::empty()),
        ("/health", method) => {
            get(method, health_answer(member, request.uri().query().unwrap_or_default())).await
        }
        ("/version", method) => version(member, method),
        ("/metrics", _) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            reply(StatusCode::OK, kind, server::scrape(member))
        }
        _ => not_found(),
    };
    response.headers_mut().extend(CORS);
    response
}

/// `/version`, on both ports.
pub(crate) fn version(member: &Member, method: &Method) -> Response<Body> {
    #[derive(Serialize)]
    struct Versions {
        etcdserver: &'static str,
        etcdcluster: String,
        storage: &'static str,
    }
    if method != Method::GET {
        return not_allowed();
    }
    let etcdcluster = member.cluster().version.clone().unwrap_or_else(|| "not_decided".to_owned());
    json(StatusCode::OK, &Versions { etcdserver: ETCD_VERSION, etcdcluster, storage: STORAGE_VERSION })
}

async fn health_answer(member: &Arc<Member>, query: &str) -> Response<Body> {
    let values = |name: &str| {
        query
            .split('&')
            .filter_map(move |pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value.to_owned())
            .collect::<Vec<_>>()
    };
    let serializable = values("serializable").first().is_some_and(|value| value == "true");
    let health = health::check(member, &values("exclude"), serializable).await;
    let text = serde_json::to_string(&health).unwrap_or_default();
    if health.is_good() {
        // etcd names no type, and Go takes it for text.
        return reply(StatusCode::OK, TEXT, text);
    }
    tracing::warn!(output = text, "/health error");
    error(StatusCode::SERVICE_UNAVAILABLE, &text)
}

async fn get(method: &Method, answer: impl Future<Output = Response<Body>>) -> Response<Body> {
    if method == Method::GET { answer.await } else { not_allowed() }
}

pub(crate) fn not_allowed() -> Response<Body> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

/// What there is at a path that there is not.
pub(crate) fn not_found() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// Bad news as Go's helper sends them: text that ends its line, and that no browser may take for
/// something else.
fn error(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = reply(status, TEXT, format!("{text}\n"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A JSON answer. What is serialised here is made of strings and numbers, which cannot fail.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    reply(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

/// An answer with a body.
pub(crate) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
