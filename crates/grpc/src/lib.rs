//! The etcd v3 API: checks a request, asks the member, fills in the header.
//!
//! [`Services`] takes every gRPC request of a connection. Two calls do not go through the generated
//! services, because their answers are written from parts that exist in wire form already: `Range`
//! (module `range`) and `Watch` (module `watch`). Everything else is a trait of `api` with an implementation
//! in the module of its service's name.
//!
//! | module | what it serves |
//! |---|---|
//! | `kv`, `range`, `stream_range` | KV: range, range stream, put, delete, txn, compact |
//! | `watch` | Watch |
//! | `lease` | Lease: grant, revoke, keep-alive, time-to-live, list |
//! | `cluster` | Cluster: members added, removed, updated, promoted, listed |
//! | `maintenance` | Maintenance |
//! | `lock`, `election` | Lock and Election: `turn` waits, `caller` asks in the client's name |
//! | `auth` | Auth: users, roles, permissions, tokens |
//! | `access` | who calls, and whether the call may begin |
//! | `leader` | calls and streams that want a leader |
//! | `health`, `reflection` | gRPC's own services |
//! | `quota` | the look at the space left before a write is proposed |
//! | `status` | the one place where an error becomes a gRPC code and text |
//! | `codec` | answers in wire form |
//!
//! No thread, lock or queue lives here: waiting is the member's business.

mod access;
mod auth;
mod caller;
mod cluster;
mod codec;
mod election;
mod health;
mod kv;
mod leader;
mod lease;
mod lock;
mod maintenance;
mod metrics;
mod quota;
mod range;
mod reflection;
mod service;
mod status;
mod stream_range;
mod turn;
mod watch;

use std::sync::Arc;

use api::etcdserverpb::ResponseHeader;
use api::raft_request::Command;
use apply::Body;
use server::Member;
use tonic::{Extensions, Status};

pub use access::ClientCertificate;
pub use metrics::RpcMetrics;
pub use service::Services;

/// Has the cluster agree on a request; the answer's header is filled, its body as applied.
///
/// It is the caller's whose call brought these extensions along.
async fn propose(
    member: &Arc<Member>,
    extensions: &Extensions,
    command: impl Command,
) -> Result<(ResponseHeader, Body), Status> {
    let caller = access::caller(member, extensions)?;
    let reply = member.propose_as(&caller, command).await.map_err(status::server)?;
    let reply = reply.map_err(status::rejection)?;
    Ok((member.header(reply.revision), reply.body))
}

/// Applying a command answered with another command's answer.
fn unexpected(body: &Body) -> Status {
    Status::internal(format!("unexpected outcome of a request: {body:?}"))
}
