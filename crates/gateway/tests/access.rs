//! Every method of etcd's, called by nobody, by a user who may nothing, and by root.
#![allow(clippy::unwrap_used)]

mod common;

use api::authpb::Permission;
use api::etcdserverpb::auth_client::AuthClient;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, AuthenticateRequest, CompactionRequest, Compare, DeleteRangeRequest,
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    MemberRemoveRequest, PutRequest, RangeRequest, TxnRequest, WatchCreateRequest, WatchRequest,
    WatchResponse,
};
use api::v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use api::v3lockpb::{LockRequest, UnlockRequest};
use bytes::{Buf as _, BufMut as _, Bytes};
use common::with_member;
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Messages as they are on the wire.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

const EMPTY: &str = "etcdserver: user name is empty";
const DENIED: &str = "etcdserver: permission denied";
const FAILED: &str = "etcdserver: authentication failed, invalid user ID or password";

/// What a method is asked, and what nobody and the user who may nothing are told; `ok` for an answer.
fn case(method: &str) -> (Bytes, &'static str, &'static str) {
    let key = || Bytes::from("k");
    let range = || RangeRequest { key: key(), ..Default::default() }.encode_to_vec();
    let name = || "root".to_owned();
    let (asked, nobody, eve) = match method {
        "KV/Range" | "KV/RangeStream" => (range(), EMPTY, DENIED),
        "KV/Put" => (PutRequest { key: key(), ..Default::default() }.encode_to_vec(), EMPTY, DENIED),
        "KV/DeleteRange" => {
            (DeleteRangeRequest { key: key(), ..Default::default() }.encode_to_vec(), EMPTY, DENIED)
        }
        "KV/Txn" => {
            let compare = Compare {
                result: CompareResult::Greater.into(),
                target: CompareTarget::Version.into(),
                key: key(),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::Version(0)),
            };
            (TxnRequest { compare: vec![compare], ..Default::default() }.encode_to_vec(), EMPTY, DENIED)
        }
        "KV/Compact" => {
            (CompactionRequest { revision: 1_000, physical: false }.encode_to_vec(), EMPTY, DENIED)
        }
        "Watch/Watch" => {
            // All that follows a key, by a user who may not even read that one.
            let create = WatchCreateRequest { key: key(), range_end: "\0".into(), ..Default::default() };
            let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            (request.encode_to_vec(), EMPTY, DENIED)
        }
        "Lease/LeaseGrant" => (LeaseGrantRequest { id: 0, ttl: 600 }.encode_to_vec(), EMPTY, "ok"),
        "Lease/LeaseRevoke" => (LeaseRevokeRequest { id: 7 }.encode_to_vec(), EMPTY, DENIED),
        "Lease/LeaseKeepAlive" => (LeaseKeepAliveRequest { id: 7 }.encode_to_vec(), EMPTY, DENIED),
        "Lease/LeaseTimeToLive" => {
            (LeaseTimeToLiveRequest { id: 7, keys: true }.encode_to_vec(), EMPTY, DENIED)
        }
        "Lease/LeaseLeases" => (Vec::new(), EMPTY, DENIED),
        "Cluster/MemberRemove" => (MemberRemoveRequest { id: 9 }.encode_to_vec(), EMPTY, DENIED),
        "Cluster/MemberAdd" | "Cluster/MemberUpdate" | "Cluster/MemberPromote" => (Vec::new(), EMPTY, DENIED),
        "Cluster/MemberList" | "Maintenance/Alarm" | "Maintenance/Status" => (Vec::new(), EMPTY, "ok"),
        "Maintenance/Defragment"
        | "Maintenance/Hash"
        | "Maintenance/HashKV"
        | "Maintenance/Snapshot"
        | "Maintenance/MoveLeader"
        | "Maintenance/Downgrade" => (Vec::new(), EMPTY, DENIED),
        "Auth/AuthStatus" => (Vec::new(), "ok", "ok"),
        "Auth/Authenticate" => {
            let request = AuthenticateRequest { name: name(), password: "wrong".into() };
            (request.encode_to_vec(), FAILED, FAILED)
        }
        "Auth/AuthEnable" | "Auth/AuthDisable" | "Auth/UserList" | "Auth/RoleList" => {
            (Vec::new(), EMPTY, DENIED)
        }
        "Auth/UserAdd" => {
            let request = AuthUserAddRequest { name: "zoe".into(), ..Default::default() };
            (request.encode_to_vec(), EMPTY, DENIED)
        }
        "Auth/UserGet" => (AuthUserGetRequest { name: name() }.encode_to_vec(), EMPTY, DENIED),
        "Auth/UserDelete" => (AuthUserDeleteRequest { name: "zed".into() }.encode_to_vec(), EMPTY, DENIED),
        "Auth/UserChangePassword" => {
            let request = AuthUserChangePasswordRequest { name: "zed".into(), ..Default::default() };
            (request.encode_to_vec(), EMPTY, DENIED)
        }
        "Auth/UserGrantRole" => {
            let request = AuthUserGrantRoleRequest { user: "eve".into(), role: name() };
            (request.encode_to_vec(), EMPTY, DENIED)
        }
        "Auth/UserRevokeRole" => {
            let request = AuthUserRevokeRoleRequest { name: "eve".into(), role: "q".into() };
            (request.encode_to_vec(), EMPTY, DENIED)
        }
        "Auth/RoleAdd" => (AuthRoleAddRequest { name: "q".into() }.encode_to_vec(), EMPTY, DENIED),
        "Auth/RoleGet" => (AuthRoleGetRequest { role: name() }.encode_to_vec(), EMPTY, DENIED),
        "Auth/RoleDelete" => (AuthRoleDeleteRequest { role: "q".into() }.encode_to_vec(), EMPTY, DENIED),
        "Auth/RoleGrantPermission" => {
            let perm = Some(Permission { key: key(), ..Default::default() });
            let request = AuthRoleGrantPermissionRequest { name: "q".into(), perm };
            (request.encode_to_vec(), EMPTY, DENIED)
        }
        "Auth/RoleRevokePermission" => {
            let request =
                AuthRoleRevokePermissionRequest { role: "q".into(), key: key(), ..Default::default() };
            (request.encode_to_vec(), EMPTY, DENIED)
        }
        "Lock/Lock" => (LockRequest { name: key(), lease: 0 }.encode_to_vec(), EMPTY, DENIED),
        "Lock/Unlock" => (UnlockRequest { key: key() }.encode_to_vec(), EMPTY, DENIED),
        "Election/Campaign" => {
            (CampaignRequest { name: key(), ..Default::default() }.encode_to_vec(), EMPTY, DENIED)
        }
        "Election/Leader" | "Election/Observe" => {
            (LeaderRequest { name: key() }.encode_to_vec(), EMPTY, DENIED)
        }
        "Election/Proclaim" | "Election/Resign" => {
            let leader = Some(LeaderKey { name: key(), key: key(), rev: 1, lease: 7 });
            let request = if method == "Election/Proclaim" {
                ProclaimRequest { leader, value: key() }.encode_to_vec()
            } else {
                ResignRequest { leader }.encode_to_vec()
            };
            (request, EMPTY, DENIED)
        }
        other => panic!("what is {other} to be told?"),
    };
    (asked.into(), nobody, eve)
}

/// Calls a method and takes its first answer.
async fn call(channel: &Channel, path: &str, asked: Bytes, token: Option<&str>) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(asked);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    let mut answers = client.server_streaming(request, path.parse().unwrap(), Raw).await?.into_inner();
    Ok(answers.message().await?.unwrap_or_default())
}

/// What the caller was told of what it may.
async fn told(channel: &Channel, path: &str, asked: Bytes, token: Option<&str>) -> String {
    match call(channel, path, asked, token).await {
        // A watcher is refused by an answer.
        Ok(answer) if path.ends_with("/Watch") => {
            let answer = WatchResponse::decode(answer).unwrap();
            assert!(answer.canceled && answer.created && answer.watch_id == -1, "{answer:?}");
            answer.cancel_reason.split(" desc = ").nth(1).unwrap().to_owned()
        }
        Ok(_) => "ok".to_owned(),
        Err(status) => status.message().to_owned(),
    }
}

async fn set_up(channel: &Channel) -> [String; 2] {
    let mut auth = AuthClient::new(channel.clone());
    for name in ["root", "eve"] {
        let (name, password) = (name.to_owned(), format!("{name}pw"));
        auth.user_add(AuthUserAddRequest { name, password, ..Default::default() }).await.unwrap();
    }
    let root = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    auth.user_grant_role(root).await.unwrap();
    LeaseClient::new(channel.clone()).lease_grant(LeaseGrantRequest { id: 7, ttl: 600 }).await.unwrap();
    let put = PutRequest { key: "k".into(), lease: 7, ..Default::default() };
    KvClient::new(channel.clone()).put(put).await.unwrap();
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
    let mut tokens = [String::new(), String::new()];
    for (token, name) in tokens.iter_mut().zip(["root", "eve"]) {
        let request = AuthenticateRequest { name: name.into(), password: format!("{name}pw") };
        *token = auth.authenticate(request).await.unwrap().into_inner().token;
    }
    tokens
}

/// Deny by default: whatever etcd 3.7.1 can be asked is asked without a right to it.
#[test]
fn every_method_is_refused_to_whom_it_must_be() {
    let rows = include_str!("../../api/tests/data/rpcs.tsv");
    with_member(|channel, _stop| async move {
        let [root, eve] = set_up(&channel).await;
        let mut methods = 0;
        for row in rows.lines().skip(1) {
            let columns: Vec<&str> = row.split('\t').collect();
            let (method, path) = (
                format!("{}/{}", columns[1], columns[2]),
                format!("/{}.{}/{}", columns[0], columns[1], columns[2]),
            );
            let (asked, nobody, some) = case(&method);
            assert_eq!(told(&channel, &path, asked.clone(), None).await, nobody, "{method} by nobody");
            assert_eq!(told(&channel, &path, asked.clone(), Some(&eve)).await, some, "{method} by eve");
            if method != "Auth/AuthStatus" && method != "Auth/Authenticate" {
                let forged = told(&channel, &path, asked, Some("forgedforgedforg.1")).await;
                assert_eq!(forged, "etcdserver: invalid auth token", "{method} with a made-up token");
            }
            methods += 1;
        }
        assert_eq!(methods, 49);
        // For root all the same doors are open; what waits for ever, or ends authentication, is not asked.
        for row in rows.lines().skip(1) {
            let columns: Vec<&str> = row.split('\t').collect();
            let method = format!("{}/{}", columns[1], columns[2]);
            let path = format!("/{}.{}/{}", columns[0], columns[1], columns[2]);
            if matches!(
                method.as_str(),
                "Watch/Watch" | "Election/Observe" | "Auth/AuthDisable" | "Lock/Lock"
            ) || method == "Election/Campaign"
            {
                continue;
            }
            let said = told(&channel, &path, case(&method).0, Some(&root)).await;
            assert!(said != EMPTY && said != DENIED, "{method} by root: {said}");
        }
    });
}
