//! The paths of the client port that are not gRPC.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use server::{ETCD_VERSION, Member};
use tonic::body::Body;

use crate::health;
use crate::probes::{self, Found, ProbeMetrics};
use crate::profile;
use crate::vars::Vars;

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// Answers by path.
pub(crate) async fn answer<B>(
    member: &Arc<Member>,
    probed: &ProbeMetrics,
    request: &Request<B>,
) -> Response<Body> {
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let response = match (path, request.method()) {
        ("/health", &Method::GET) => health_answer(member, query).await,
        ("/health", _) => not_allowed(&Method::GET),
        ("/version", method) => version(member, method),
        ("/debug/vars", &Method::GET) => {
            let text = serde_json::to_vec_pretty(&Vars::of(member)).unwrap_or_default();
            reply(StatusCode::OK, "application/json; charset=utf-8", text)
        }
        ("/debug/vars", _) => not_allowed(&Method::GET),
        (path, method) if member.config().pprof && is_below(path, profile::PREFIX) => match *method {
            Method::GET => {
                let seconds = values(query, "seconds");
                profile::answer(&path[profile::PREFIX.len()..], seconds.first().map(String::as_str)).await
            }
            _ => not_allowed(&Method::GET),
        },
        ("/metrics", _) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            reply(StatusCode::OK, kind, server::scrape(member))
        }
        (path, method) => match probes::find(path) {
            Some(asked) if method == Method::GET => {
                let found = probes::run(member, probed, asked, &values(query, "exclude")).await;
                probe_answer(path, found, query)
            }
            Some(_) => not_allowed(&Method::GET),
            None => not_found(),
        },
    };
    response.map(|body| Body::new(Full::new(body)))
}

/// `/version`, on both ports.
pub(crate) fn version(member: &Member, method: &Method) -> Response<Bytes> {
    #[derive(Serialize)]
    struct Versions {
        etcdserver: &'static str,
        etcdcluster: String,
        storage: String,
    }
    if method != Method::GET {
        return not_allowed(&Method::GET);
    }
    let cluster = member.cluster();
    let storage = cluster.storage_version().to_owned();
    let etcdcluster = cluster.version.clone().unwrap_or_else(|| "not_decided".to_owned());
    json(StatusCode::OK, &Versions { etcdserver: ETCD_VERSION, etcdcluster, storage })
}

/// Whether a path is this one, or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a query gives for a name, every time that it names it.
fn values(query: &str, name: &str) -> Vec<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).collect()
}

async fn health_answer(member: &Arc<Member>, query: &str) -> Response<Bytes> {
    let serializable = values(query, "serializable").first().is_some_and(|value| value == "true");
    let health = health::check(member, &values(query, "exclude"), serializable).await;
    let text = serde_json::to_string(&health).unwrap_or_default();
    if health.is_good() {
        // etcd names no type, and Go takes it for text.
        return reply(StatusCode::OK, TEXT, text);
    }
    tracing::warn!(output = text, "/health error");
    error(StatusCode::SERVICE_UNAVAILABLE, &text)
}

/// `/livez`, `/readyz` and the single checks below them: `ok`, and a line for every check where one
/// of them failed or the query asks for it.
fn probe_answer(path: &str, found: Found, query: &str) -> Response<Bytes> {
    if !found.is_good {
        tracing::error!(path, reason = found.lines, "Health check error");
        return error(StatusCode::SERVICE_UNAVAILABLE, &found.lines);
    }
    let verbose = query.split('&').any(|pair| pair.split('=').next() == Some("verbose"));
    let text = if verbose { found.lines + "ok\n" } else { "ok\n".to_owned() };
    let mut response = reply(StatusCode::OK, TEXT, text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to a method that a path does not know; `allowed` is the one that it does.
pub(crate) fn not_allowed(allowed: &Method) -> Response<Bytes> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    if let Ok(allowed) = HeaderValue::from_str(allowed.as_str()) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// What there is at a path that there is not.
pub(crate) fn not_found() -> Response<Bytes> {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// Bad news as Go's helper sends them: text that ends its line, and that no browser may take for
/// something else.
pub(crate) fn error(status: StatusCode, text: &str) -> Response<Bytes> {
    let mut response = reply(status, TEXT, format!("{text}\n"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A JSON answer. What is serialised here is made of strings and numbers, which cannot fail.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Bytes> {
    reply(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

/// An answer with a body.
pub(crate) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
