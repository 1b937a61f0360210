//! The paths of the client port that are not gRPC.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use server::{ETCD_VERSION, Member, STORAGE_VERSION};
use tonic::body::Body;

use crate::health;

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers by path.
pub(crate) async fn answer<B>(member: &Arc<Member>, request: &Request<B>) -> Response<Body> {
    match request.uri().path() {
        "/health" => {
            get(request.method(), health_answer(member, request.uri().query().unwrap_or_default())).await
        }
        "/version" => version(member, request.method()),
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            reply(StatusCode::OK, kind, server::scrape(member))
        }
        _ => reply(StatusCode::NOT_FOUND, TEXT, "404 page not found\n"),
    }
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
    if health.is_good() {
        return json(StatusCode::OK, &health);
    }
    // etcd sends its bad news through Go's error helper: as text, with a line's end.
    let text = serde_json::to_string(&health).unwrap_or_default() + "\n";
    tracing::warn!(output = text.trim_end(), "/health error");
    reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
}

async fn get(method: &Method, answer: impl Future<Output = Response<Body>>) -> Response<Body> {
    if method == Method::GET { answer.await } else { not_allowed() }
}

fn not_allowed() -> Response<Body> {
    let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
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
