//! Every metric of etcd's is there, by its name, type and labels, and moves.
#![allow(clippy::unwrap_used)]

mod common;
mod numbers;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::auth_client::AuthClient;
use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::request_op::Request as Operation;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    AlarmRequest, AlarmType, AuthRoleListRequest, CompactionRequest, DefragmentRequest, DeleteRangeRequest,
    HashKvRequest, HashRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    MemberAddRequest, MemberPromoteRequest, PutRequest, RangeRequest, RequestOp, SnapshotRequest, TxnRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use common::{PATIENCE, ask, with_config};
use gateway::Access;
use numbers::Numbers;
use server::{Config, Feature};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

/// etcd 3.7.1's metrics: name, type, labels.
const ETCD: &str = include_str!("data/metrics.tsv");

/// What there is no sample of before a member has sent or received a snapshot; `server`'s tests of those
/// look for them.
const NOT_YET: [&str; 2] = [
    "etcd_network_snapshot_receive_total_duration_seconds",
    "etcd_network_snapshot_send_total_duration_seconds",
];

/// What the work done here does not move: failures that do not happen, the snapshots that are not sent, what is
/// under way at the moment, and what only etcd has.
const STILL: [&str; 36] = [
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
    "etcd_debugging_disk_backend_commit_spill_duration_seconds",
    "etcd_debugging_mvcc_pending_events_total",
    "etcd_debugging_mvcc_slow_watcher_total",
    "etcd_debugging_store_expires_total",
    "etcd_debugging_store_reads_total",
    "etcd_debugging_store_watch_requests_total",
    "etcd_debugging_store_watchers",
    "etcd_debugging_store_writes_total",
    "etcd_disk_defrag_inflight",
    "etcd_grpc_proxy_cache_hits_total",
    "etcd_grpc_proxy_cache_keys_total",
    "etcd_grpc_proxy_cache_misses_total",
    "etcd_grpc_proxy_events_coalescing_total",
    "etcd_grpc_proxy_watchers_coalescing_total",
    "etcd_network_disconnected_peers_total",
    "etcd_network_peer_received_failures_total",
    "etcd_network_peer_sent_failures_total",
    "etcd_network_snapshot_receive_failures",
    "etcd_network_snapshot_receive_inflights_total",
    "etcd_network_snapshot_receive_success",
    "etcd_network_snapshot_send_failures",
    "etcd_network_snapshot_send_inflights_total",
    "etcd_network_snapshot_send_success",
    "etcd_server_heartbeat_send_failures_total",
    "etcd_server_is_learner",
    "etcd_server_learner_promote_successes",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_read_indexes_failed_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_snapshot_apply_in_progress_total",
    "etcd_snap_db_fsync_duration_seconds",
    "etcd_snap_db_save_total_duration_seconds",
    "etcd_server_feature_enabled",
    "process_virtual_memory_max_bytes",
];

/// What etcd 3.7.1's mixin asks for, in the rules and panels below `contrib/mixin`: the metric as the query
/// spells it, the labels that it picks or groups by, and the values that it picks. (`job`, `instance` and `up`
/// are Prometheus' own.)
const MIXIN: [(&str, &[(&str, &str)]); 25] = [
    ("etcd_disk_backend_commit_duration_seconds_bucket", &[("le", "+Inf")]),
    ("etcd_disk_wal_fsync_duration_seconds_bucket", &[("le", "+Inf")]),
    ("etcd_mvcc_db_total_size_in_bytes", &[]),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", &[]),
    ("etcd_network_client_grpc_received_bytes_total", &[]),
    ("etcd_network_client_grpc_sent_bytes_total", &[]),
    ("etcd_network_peer_received_bytes_total", &[("From", "")]),
    ("etcd_network_peer_round_trip_time_seconds_bucket", &[("To", ""), ("le", "+Inf")]),
    ("etcd_network_peer_sent_bytes_total", &[("To", "")]),
    ("etcd_network_peer_sent_failures_total", &[("To", "")]),
    ("etcd_server_has_leader", &[]),
    ("etcd_server_leader_changes_seen_total", &[]),
    ("etcd_server_proposals_applied_total", &[]),
    ("etcd_server_proposals_committed_total", &[]),
    ("etcd_server_proposals_failed_total", &[]),
    ("etcd_server_proposals_pending", &[]),
    ("etcd_server_quota_backend_bytes", &[]),
    ("grpc_server_handled_total", &[("grpc_code", "ResourceExhausted"), ("grpc_type", "unary")]),
    ("grpc_server_handled_total", &[("grpc_service", "etcdserverpb.Watch"), ("grpc_type", "bidi_stream")]),
    ("grpc_server_handled_total", &[("grpc_service", "etcdserverpb.Lease"), ("grpc_type", "bidi_stream")]),
    (
        "grpc_server_handling_seconds_bucket",
        &[("grpc_method", "Put"), ("grpc_type", "unary"), ("le", "+Inf")],
    ),
    ("grpc_server_started_total", &[("grpc_type", "unary")]),
    ("grpc_server_started_total", &[("grpc_service", "etcdserverpb.Watch"), ("grpc_type", "bidi_stream")]),
    ("grpc_server_started_total", &[("grpc_service", "etcdserverpb.Lease"), ("grpc_type", "bidi_stream")]),
    ("process_resident_memory_bytes", &[]),
];

/// Of those, what stays at zero while all is well.
const WELL: [&str; 3] = [
    "etcd_network_peer_sent_failures_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
];

#[test]
fn all_of_etcds_metrics_are_there_and_move() {
    let founder = |config: &mut Config, peer: SocketAddr| {
        config.peer_urls = vec![format!("http://{peer}")];
        config.initial_cluster = [("default".to_owned(), config.peer_urls.clone())].into();
        config.extensive_metrics = true;
        config.snapshot_count = 10;
        config.warning_apply = Duration::ZERO;
        config.features = vec![Feature { name: "FastLeaseKeepAlive", stage: "BETA", is_on: true }];
    };
    with_config(Access::default(), true, founder, async |client, peer, _stop| {
        let channel = Endpoint::from_shared(format!("http://{client}")).unwrap().connect().await.unwrap();
        let mut watching = Watching::begin(&channel).await;
        keys(&channel, &mut watching).await;
        leases(&channel).await;
        maintenance(&channel).await;
        health(client, &channel).await;
        trouble(&channel).await;
        let joined = learner(&channel, peer).await;
        // Commits come every few seconds, and so does what follows from them.
        let mut numbers = scrape(client).await;
        tokio::time::timeout(PATIENCE / 2, async {
            while !settled(&numbers) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                numbers = scrape(client).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{:?} are missing or at rest", lacking(&numbers)));
        assert_eq!(lacking(&numbers), Vec::<String>::new());
        assert_eq!(unanswered(&numbers), Vec::<String>::new());
        drop(watching);
        joined.send(()).unwrap();
    });
}

fn settled(numbers: &Numbers) -> bool {
    lacking(numbers).is_empty() && unanswered(numbers).is_empty()
}

/// The metrics of etcd's that are not as they should be, and what is wrong.
fn lacking(numbers: &Numbers) -> Vec<String> {
    let mut lacking = Vec::new();
    for row in ETCD.lines().skip(1) {
        let mut columns = row.split('\t');
        let [name, kind] = [(); 2].map(|()| columns.next().unwrap());
        if NOT_YET.contains(&name) {
            continue;
        }
        let mut labels: Vec<&str> =
            columns.next().unwrap().split(',').filter(|name| !name.is_empty()).collect();
        labels.sort_unstable();
        match numbers.family(name) {
            None => lacking.push(format!("{name} is missing")),
            Some(family) if family.kind != kind => lacking.push(format!("{name} is a {}", family.kind)),
            Some(family) if family.labels != labels => {
                lacking.push(format!("{name} has the labels {:?}", family.labels));
            }
            Some(family) if family.sum == 0.0 && !STILL.contains(&name) => {
                lacking.push(format!("{name} is at rest"));
            }
            Some(_) => {}
        }
    }
    lacking
}

/// The queries of the mixin that would find nothing.
fn unanswered(numbers: &Numbers) -> Vec<String> {
    let finds = |(name, labels): &&(&str, &[(&str, &str)])| {
        let found: Vec<f64> = numbers.samples(name, labels).collect();
        !found.is_empty() && (WELL.contains(name) || found.iter().sum::<f64>() > 0.0)
    };
    MIXIN.iter().filter(|query| !finds(query)).map(|(name, labels)| format!("{name} {labels:?}")).collect()
}

async fn scrape(client: SocketAddr) -> Numbers {
    let (status, text) = ask(client, "GET /metrics", "").await;
    assert_eq!(status, 200);
    Numbers::read(&text)
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() }
}

struct Watching {
    requests: UnboundedSender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watching {
    async fn begin(channel: &Channel) -> Self {
        let (requests, queue) = unbounded_channel();
        let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
        requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).unwrap();
        let asked = UnboundedReceiverStream::new(queue);
        let mut answers = WatchClient::new(channel.clone()).watch(asked).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);
        Self { requests, answers }
    }

    async fn next(&mut self) -> WatchResponse {
        self.answers.message().await.unwrap().unwrap()
    }
}

/// Every kind of request about keys, with something to be told of and something to be taken away.
async fn keys(channel: &Channel, watching: &mut Watching) {
    let mut kv = KvClient::new(channel.clone());
    for value in ["1", "2", "3"] {
        kv.put(put("k", value)).await.unwrap();
        assert_eq!(watching.next().await.events.len(), 1);
    }
    let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
    watching.requests.send(WatchRequest { request_union: Some(progress) }).unwrap();
    assert!(watching.next().await.events.is_empty());
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    assert_eq!(kv.range(range.clone()).await.unwrap().into_inner().count, 1);
    let delete = DeleteRangeRequest { key: "other".into(), ..DeleteRangeRequest::default() };
    kv.delete_range(delete).await.unwrap();
    let both = [Operation::RequestPut(put("k", "4")), Operation::RequestRange(range.clone())];
    let success = both.map(|request| RequestOp { request: Some(request) }).to_vec();
    kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    let read = vec![RequestOp { request: Some(Operation::RequestRange(range)) }];
    let read = kv.txn(TxnRequest { success: read, ..TxnRequest::default() }).await.unwrap();
    let revision = read.into_inner().header.unwrap().revision;
    kv.compact(CompactionRequest { revision, physical: true }).await.unwrap();
}

/// A lease that is renewed and revoked, and one that ends by itself.
async fn leases(channel: &Channel) {
    let mut lease = LeaseClient::new(channel.clone());
    for (id, ttl) in [(7, 60), (8, 1)] {
        lease.lease_grant(LeaseGrantRequest { ttl, id }).await.unwrap();
    }
    let renewal = tokio_stream::once(LeaseKeepAliveRequest { id: 7 });
    let mut renewed = lease.lease_keep_alive(renewal).await.unwrap().into_inner();
    assert_eq!(renewed.message().await.unwrap().unwrap().ttl, 60);
    assert!(renewed.message().await.unwrap().is_none());
    lease.lease_revoke(LeaseRevokeRequest { id: 7 }).await.unwrap();
}

async fn maintenance(channel: &Channel) {
    let mut maintenance = MaintenanceClient::new(channel.clone());
    maintenance.hash(HashRequest {}).await.unwrap();
    maintenance.hash_kv(HashKvRequest::default()).await.unwrap();
    maintenance.defragment(DefragmentRequest {}).await.unwrap();
    let mut backup = maintenance.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    while backup.message().await.unwrap().is_some() {}
    AuthClient::new(channel.clone()).role_list(AuthRoleListRequest {}).await.unwrap();
}

/// What probes ask, while all is well and while there is an alarm.
async fn health(client: SocketAddr, channel: &Channel) {
    for path in ["GET /health", "GET /livez", "GET /readyz"] {
        assert_eq!(ask(client, path, "").await.0, 200);
    }
    let alarm =
        AlarmRequest { action: AlarmAction::Activate.into(), member_id: 7, alarm: AlarmType::Nospace.into() };
    MaintenanceClient::new(channel.clone()).alarm(alarm).await.unwrap();
    assert_eq!(ask(client, "GET /health", "").await.0, 503);
}

/// A call that is refused, and a stream whose client sends what nobody can read.
async fn trouble(channel: &Channel) {
    let refused = KvClient::new(channel.clone()).put(put("k", "5")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<PutRequest, WatchResponse>::default();
    // In the place of a message are bytes that are none.
    let asked = PutRequest { key: b"\xff".to_vec().into(), ..PutRequest::default() };
    let path = "/etcdserverpb.Watch/Watch".parse().unwrap();
    let answer = client.streaming(Request::new(tokio_stream::once(asked)), path, codec).await;
    assert!(answer.unwrap().into_inner().message().await.is_err());
}

/// Adds a member that serves nobody but the first one, until it is told to stop. To promote what is not there
/// fails.
async fn learner(channel: &Channel, peer: SocketAddr) -> std::sync::mpsc::Sender<()> {
    let mut cluster = ClusterClient::new(channel.clone());
    cluster.member_promote(MemberPromoteRequest { id: 1 }).await.unwrap_err();
    let listener = gateway::bind((Ipv4Addr::LOCALHOST, 0).into(), false, false).unwrap();
    let own = format!("http://{}", listener.local_addr().unwrap());
    cluster.member_add(MemberAddRequest { peer_ur_ls: vec![own], is_learner: true }).await.unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let founder = format!("http://{peer}");
    std::thread::spawn(move || {
        common::join(listener, &founder, || _ = stopped.recv());
    });
    stop
}
