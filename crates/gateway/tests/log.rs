//! What the log tells of slow requests, and of users and roles: etcd's lines and fields, and no secrets.
#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::{Debug, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::etcdserverpb::auth_client::AuthClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::request_op::Request as Operation;
use api::etcdserverpb::{
    AuthRoleAddRequest, AuthUserAddRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use common::with_config;
use gateway::Access;
use server::Config;
use tonic::transport::Endpoint;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps every line that is of ours.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?}; ", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
            && ["server", "grpc"].iter().any(|room| metadata.target().starts_with(room))
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Log {
    /// Whether there is a line with all of these in it.
    fn has(&self, parts: &[&str]) -> bool {
        self.0.lock().unwrap().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }
}

#[test]
fn slow_requests_and_changes_of_users_are_told_without_secrets() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let change = |config: &mut Config, _: SocketAddr| {
        // Whatever is done is slow.
        (config.warning_apply, config.warning_request) = (Duration::ZERO, Duration::ZERO);
        config.bcrypt_cost = 4;
    };
    with_config(Access::default(), true, change, async |client, _peer, _stop| {
        let channel = Endpoint::from_shared(format!("http://{client}")).unwrap().connect().await.unwrap();
        let mut kv = KvClient::new(channel.clone());
        let put = PutRequest { key: "k".into(), value: "secret".into(), ..PutRequest::default() };
        kv.put(put.clone()).await.unwrap();
        let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        kv.range(range.clone()).await.unwrap();
        let read = vec![RequestOp { request: Some(Operation::RequestRange(range)) }];
        kv.txn(TxnRequest { success: read, ..TxnRequest::default() }).await.unwrap();
        let write = vec![RequestOp { request: Some(Operation::RequestPut(put)) }];
        kv.txn(TxnRequest { success: write, ..TxnRequest::default() }).await.unwrap();
        kv.delete_range(DeleteRangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
        let mut auth = AuthClient::new(channel);
        auth.role_add(AuthRoleAddRequest { name: "reader".into() }).await.unwrap();
        let user =
            AuthUserAddRequest { name: "ann".into(), password: "pass-secret".into(), ..Default::default() };
        auth.user_add(user).await.unwrap();
        let grant = AuthUserGrantRoleRequest { user: "ann".into(), role: "reader".into() };
        auth.user_grant_role(grant).await.unwrap();
        let revoke = AuthUserRevokeRoleRequest { name: "ann".into(), role: "reader".into() };
        auth.user_revoke_role(revoke).await.unwrap();
    });
    let stats = "message=request stats";
    let apply = "message=apply request took too long";
    for parts in [
        &["WARN", apply, "prefix=\"\"", r#"put:<key:\"k\" value_size:6 >"#, "expected-duration=0ns"][..],
        &["WARN", apply, "prefix=\"read-only range \"", "range_response_count:1 size:"],
        &["WARN", apply, "prefix=\"read-only txn \"", "responses:<range_response_count:1>"],
        &["WARN", apply, r#"txn:<compare:<> success:<request_put:<key:\"k\" value_size:6 >>"#],
        &["WARN", stats, "/etcdserverpb.KV/Put", "request count=1", "request size=11", "time spent="],
        &["WARN", stats, "/etcdserverpb.KV/Range", "response count=1", r#"request content="key:\"k\" ""#],
        &["WARN", stats, "/etcdserverpb.KV/Txn", "success:<request_range:<", "request count=1"],
        &["WARN", stats, "/etcdserverpb.KV/DeleteRange", "response count=1"],
        &["WARN", stats, "/etcdserverpb.Auth/UserAdd", "request count=-1"],
        &["INFO", "message=created a role", "role-name=\"reader\""],
        &["INFO", "message=added a user", "user-name=\"ann\""],
        &[
            "INFO",
            "message=granted a role to a user",
            "user-roles=[\"reader\"]",
            "added-role-name=\"reader\"",
        ],
        &["INFO", "message=revoked a role from a user", "old-user-roles=[\"reader\"]", "new-user-roles=[]"],
    ] {
        assert!(log.has(parts), "{parts:?} in {:#?}", log.0.lock().unwrap());
    }
    assert!(!log.has(&["secret"]), "{:#?}", log.0.lock().unwrap());
}
