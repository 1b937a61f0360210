//! The peer port of a member without peers: who it is, and which version it speaks.

use http::header::HeaderName;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use server::Member;
use tonic::body::Body;

use crate::endpoints::{json, reply, version};

/// Answers by path.
pub(crate) fn answer<B>(member: &Member, request: &Request<B>) -> Response<Body> {
    let mut response = match (request.uri().path(), request.method()) {
        ("/version", method) => version(member, method),
        ("/members", &Method::GET) => {
            json(StatusCode::OK, &member.cluster().members.values().collect::<Vec<_>>())
        }
        _ => reply(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n"),
    };
    if let Ok(id) = HeaderValue::from_str(&format!("{:x}", member.cluster_id())) {
        response.headers_mut().insert(HeaderName::from_static("x-etcd-cluster-id"), id);
    }
    response
}
