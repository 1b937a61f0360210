//! The peer port of a member without peers: who it is, and which version it speaks.

use http::header::HeaderName;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use server::Member;
use tonic::body::Body;

use crate::endpoints::{not_allowed, not_found, reply, version};

/// Answers by path.
pub(crate) fn answer<B>(member: &Member, request: &Request<B>) -> Response<Body> {
    match (request.uri().path(), request.method()) {
        ("/version", method) => version(member, method),
        ("/members", &Method::GET) => members(member),
        ("/members", _) => not_allowed(),
        _ => not_found(),
    }
}

/// The members with their ids as numbers, in one line.
fn members(member: &Member) -> Response<Body> {
    let cluster = member.cluster();
    let mut text = serde_json::to_vec(&cluster.members.values().collect::<Vec<_>>()).unwrap_or_default();
    text.push(b'\n');
    let mut response = reply(StatusCode::OK, "application/json", text);
    if let Ok(id) = HeaderValue::from_str(&format!("{:x}", member.cluster_id())) {
        response.headers_mut().insert(HeaderName::from_static("x-etcd-cluster-id"), id);
    }
    response
}
