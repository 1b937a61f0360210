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
mod otlp;
mod quota;
mod range;
mod reflection;
mod service;
mod slow;
mod stats;
mod status;
mod stream_range;
mod trace;
mod turn;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use api::etcdserverpb::ResponseHeader;
use api::raft_request::Command;
use apply::Body;
use server::Member;
use tonic::{Extensions, Status};

pub use access::ClientCertificate;
pub use metrics::RpcMetrics;
pub use service::Services;

use stats::Stats;
use trace::Trace;

/// Has the cluster agree on a request; the answer's header is filled, its body as applied.
///
/// It is the caller's whose call brought these extensions along.
async fn propose(
    member: &Arc<Member>,
    extensions: &Extensions,
    command: impl Command,
) -> Result<(ResponseHeader, Body), Status> {
    let (header, body, _) = propose_counted(member, extensions, command).await?;
    Ok((header, body))
}

/// The same, with what the log tells of it if it took long; a refusal carries that along.
async fn propose_counted(
    member: &Arc<Member>,
    extensions: &Extensions,
    command: impl Command,
) -> Result<(ResponseHeader, Body, Option<Stats>), Status> {
    let began = Instant::now();
    let caller = access::caller(member, extensions)?;
    let mut entry = Arc::default();
    let outcome = member.propose_kept(&caller, command, &mut entry).await;
    let reply = outcome.map_err(status::server).and_then(|outcome| outcome.map_err(status::rejection));
    if let Some(trace) = extensions.get::<Trace>() {
        trace.entry(&entry, began, reply.as_ref().err().map(Status::message));
    }
    let stats = stats::wanted(began, member.config().warning_request)
        .then(|| Stats::of_entry(&entry, reply.as_ref().ok().map(|reply| &reply.body)))
        .flatten();
    match reply {
        Ok(reply) => Ok((member.header(reply.revision), reply.body, stats)),
        Err(mut status) => {
            if let Some(stats) = stats {
                status.set_source(Arc::new(stats));
            }
            Err(status)
        }
    }
}

/// Applying a command answered with another command's answer.
fn unexpected(body: &Body) -> Status {
    Status::internal(format!("unexpected outcome of a request: {body:?}"))
}
