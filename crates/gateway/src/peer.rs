//! The paths of the peer port that are not raft's: what members ask each other once in a while.
//!
//! Raft's own paths are `peer`'s, on a thread of their own, which hands everything else over to the
//! first runtime thread.

use std::sync::Arc;
use std::time::Duration;

use ::peer::Other;
use api::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse, ResponseHeader};
use api::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use apply::Rejection;
use apply::permission::Need;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use prost::Message as _;
use serde::Serialize;
use server::{
    ChangeError, Credentials, DOWNGRADE_ENABLED, Error, HASH_KV, LEASES, LEASES_INTERNAL, LeaseError, Member,
    PROMOTE,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::endpoints::{error, json, not_allowed, not_found, reply, version};

/// How long a question about a lease may wait for this member to catch up (etcd's number).
const APPLY_LIMIT: Duration = Duration::from_secs(1);

/// The longest question about a lease, in bytes (etcd's number).
const MAX_LEASE_REQUEST: usize = 64 * 1024;

const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");

/// Answers what comes over the peer port, each question by itself, until the member stops.
pub(crate) async fn serve(member: Arc<Member>, mut questions: mpsc::Receiver<Other>) {
    loop {
        tokio::select! {
            question = questions.recv() => {
                let Some((request, answer_to)) = question else { return };
                let member = Arc::clone(&member);
                tokio::spawn(async move {
                    // Who asked may have gone.
                    let _ = answer_to.send(answer(&member, &request).await);
                });
            }
            () = member.stopping() => return,
        }
    }
}

/// Answers by path.
async fn answer(member: &Arc<Member>, request: &Request<Bytes>) -> Response<Bytes> {
    let (path, method) = (request.uri().path(), request.method());
    match path {
        "/version" => version(member, method),
        "/members" if method == Method::GET => {
            named(member, members(member.cluster().members.values().collect()))
        }
        "/members" | DOWNGRADE_ENABLED | HASH_KV if method != Method::GET => not_allowed(&Method::GET),
        DOWNGRADE_ENABLED => named(member, downgrade_enabled(member).await),
        HASH_KV => member.tell_hash(request).await,
        // As in etcd without a word of what would be allowed.
        LEASES | LEASES_INTERNAL if method != Method::POST => {
            error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        }
        LEASES | LEASES_INTERNAL if request.body().len() > MAX_LEASE_REQUEST => {
            error(StatusCode::PAYLOAD_TOO_LARGE, "request body too large")
        }
        LEASES => renew(member, request.body()).await,
        LEASES_INTERNAL => time_to_live(member, request.body()).await,
        path => match path.strip_prefix(PROMOTE) {
            Some(_) if method != Method::POST => not_allowed(&Method::POST),
            Some(id) => named(member, promote(member, id, request.headers()).await),
            None => not_found(),
        },
    }
}

/// Adds the cluster's id, by which whoever joins knows where it has come.
fn named(member: &Member, mut response: Response<Bytes>) -> Response<Bytes> {
    if let Ok(id) = HeaderValue::from_str(&format!("{:x}", member.cluster_id())) {
        response.headers_mut().insert(CLUSTER_ID, id);
    }
    response
}

/// Members with their ids as numbers, in one line.
fn members(members: Vec<&apply::Member>) -> Response<Bytes> {
    let mut text = apply::to_json(&members).to_vec();
    text.push(b'\n');
    reply(StatusCode::OK, "application/json", text)
}

/// A member passes on what it was asked by a client, with the client's token: who that is, the leader
/// finds out for itself.
async fn promote(member: &Arc<Member>, id: &str, headers: &HeaderMap) -> Response<Bytes> {
    let Ok(number) = id.parse::<u64>() else {
        return error(StatusCode::NOT_FOUND, &format!("member {id} not found in cluster"));
    };
    let token = headers.get(AUTHORIZATION).and_then(|token| token.to_str().ok());
    let credentials = Credentials {
        token: token.map(|token| token.strip_prefix("Bearer ").unwrap_or(token).to_owned()),
        common_name: None,
    };
    member.await_token(&credentials).await;
    let caller = member.caller(&credentials);
    let refusal = match caller.and_then(|caller| member.allow(&caller, &[Need::Root])) {
        // Passed on if the leader has changed meanwhile.
        Ok(()) => match member.promote_member(number, token).await {
            Ok(changed) => return members(changed.iter().collect()),
            Err(refusal) => refusal,
        },
        Err(refusal) => ChangeError::Rejected(refusal.into()),
    };
    tracing::warn!("member-id" = format!("{number:x}"), error = %refusal, "failed to promote a member");
    match refusal {
        ChangeError::Rejected(Rejection::MemberNotFound) => {
            error(StatusCode::NOT_FOUND, "membership: ID not found")
        }
        ChangeError::Rejected(Rejection::MemberNotLearner) => {
            error(StatusCode::PRECONDITION_FAILED, "membership: can only promote a learner member")
        }
        ChangeError::LearnerNotReady => error(
            StatusCode::PRECONDITION_FAILED,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        _ => {
            #[derive(Serialize)]
            struct Failure {
                message: &'static str,
            }
            json(StatusCode::INTERNAL_SERVER_ERROR, &Failure { message: "Internal Server Error" })
        }
    }
}

async fn renew(member: &Arc<Member>, body: &Bytes) -> Response<Bytes> {
    let Ok(request) = LeaseKeepAliveRequest::decode(body.clone()) else { return unreadable() };
    match timeout(APPLY_LIMIT, member.renew_lease_here(request.id)).await {
        Ok(Ok(ttl)) => {
            let response = LeaseKeepAliveResponse { header: None, id: request.id, ttl };
            protobuf(&response)
        }
        Ok(Err(refusal)) => refused(refusal, StatusCode::BAD_REQUEST),
        Err(_) => behind(),
    }
}

async fn time_to_live(member: &Arc<Member>, body: &Bytes) -> Response<Bytes> {
    let request = LeaseInternalRequest::decode(body.clone()).ok();
    let Some(request) = request.and_then(|request| request.lease_time_to_live_request) else {
        return unreadable();
    };
    match timeout(APPLY_LIMIT, member.lease_time_to_live_here(request)).await {
        Ok(Ok(mut response)) => {
            response.header = Some(ResponseHeader::default());
            protobuf(&LeaseInternalResponse { lease_time_to_live_response: Some(response) })
        }
        Ok(Err(refusal)) => refused(refusal, StatusCode::INTERNAL_SERVER_ERROR),
        Err(_) => behind(),
    }
}

fn protobuf(message: &impl prost::Message) -> Response<Bytes> {
    reply(StatusCode::OK, "application/protobuf", message.encode_to_vec())
}

fn unreadable() -> Response<Bytes> {
    error(StatusCode::BAD_REQUEST, "error unmarshalling request")
}

fn behind() -> Response<Bytes> {
    let text = "waiting for node to catch up its applied index has timed out";
    error(StatusCode::REQUEST_TIMEOUT, text)
}

/// Why there is nothing to say of a lease; `elsewhere` is the status by which a member that does not
/// keep the time says so.
fn refused(refusal: LeaseError, elsewhere: StatusCode) -> Response<Bytes> {
    match refusal {
        LeaseError::NotFound => error(StatusCode::NOT_FOUND, "lease not found"),
        LeaseError::NotPrimary => error(elsewhere, "not a primary lessor"),
        LeaseError::Failed(Error::Timeout) => behind(),
        LeaseError::Failed(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string()),
    }
}

async fn downgrade_enabled(member: &Arc<Member>) -> Response<Bytes> {
    if let Err(failure) = member.linearize().await {
        let text = format!("failed linearized read: {failure}");
        return error(StatusCode::INTERNAL_SERVER_ERROR, &text);
    }
    let enabled = member.cluster().downgrade.as_ref().is_some_and(|downgrade| downgrade.enabled);
    reply(StatusCode::OK, "text/plain", enabled.to_string())
}
