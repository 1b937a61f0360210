//! What the client and peer ports answer that is not gRPC, by HTTP/1.1 and by HTTP/2.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use etcd_client::{Txn, TxnOp, WatchOptions};
use http_body_util::BodyExt as _;
use tests::Server;
use tower::ServiceExt as _;

use crate::support::{get, request};

#[tokio::test]
async fn health_and_version() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let port = server.client_port();
    for path in [
        "/health",
        "/health?serializable=true",
        "/health?exclude=NOSPACE",
        "/health?exclude=NOSPACE&exclude=CORRUPT",
    ] {
        let answer = get(port, path)?;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"health":"true","reason":""}"#),
            "{path}"
        );
    }
    for path in ["/health", "/version"] {
        let answer = request(port, "POST", path)?;
        assert_eq!((answer.status, answer.body.as_str()), (405, "Method Not Allowed\n"), "{path}");
        assert_eq!(answer.header("allow"), Some("GET"));
    }
    let version = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    for port in [port, server.peer_port()] {
        let answer = get(port, "/version")?;
        assert_eq!((answer.status, answer.body.as_str()), (200, version));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let answer = get(port, "/no/such/path")?;
        assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found\n"));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    // Browsers of every origin may read the answers of the client port.
    assert_eq!(get(port, "/health")?.header("access-control-allow-origin"), Some("*"));
    Ok(())
}

#[tokio::test]
async fn members_on_the_peer_port() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let answer = get(server.peer_port(), "/members")?;
    assert_eq!(answer.status, 200);
    assert!(answer.header("x-etcd-cluster-id").is_some_and(|id| u64::from_str_radix(id, 16).is_ok()));
    let members: serde_json::Value = serde_json::from_str(&answer.body)?;
    let member = members.get(0).context("one member")?;
    assert_eq!(member["name"], "default");
    assert_eq!(member["clientURLs"][0], server.endpoint());
    assert_eq!(member["peerURLs"][0], format!("http://127.0.0.1:{}", server.peer_port()));
    let id = server.client().await?.member_list().await?.members()[0].id();
    assert_eq!(member["id"], id);
    assert_eq!(request(server.peer_port(), "POST", "/members")?.status, 405);
    Ok(())
}

#[tokio::test]
async fn the_same_paths_by_http_2_on_the_same_port() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut channel = tonic::transport::Endpoint::from_shared(server.endpoint())?.connect().await?;
    for (path, status, body) in [
        ("/health", 200, r#"{"health":"true","reason":""}"#),
        ("/version", 200, r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#),
        ("/nothing", 404, "404 page not found\n"),
    ] {
        let asked =
            http::Request::get(format!("{}{path}", server.endpoint())).body(tonic::body::Body::empty())?;
        let answer = tower::Service::call(channel.ready().await?, asked).await?;
        assert_eq!(answer.version(), http::Version::HTTP_2);
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.into_body().collect().await?.to_bytes(), body, "{path}");
    }
    Ok(())
}

/// The values of all samples, by name and labels as written.
fn samples(port: u16) -> Result<BTreeMap<String, f64>> {
    let answer = get(port, "/metrics")?;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    let mut samples = BTreeMap::new();
    for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("a sample in {line:?}"))?;
        assert!(samples.insert(name.to_owned(), value.parse()?).is_none(), "{name} is there twice");
    }
    Ok(samples)
}

/// Samples that move by at least so much while [`exercise`] runs.
const MOVING: &[(&str, f64)] = &[
    ("etcd_debugging_lease_granted_total", 2.0),
    ("etcd_debugging_lease_renewed_total", 1.0),
    ("etcd_debugging_lease_revoked_total", 1.0),
    ("etcd_debugging_lease_ttl_total_count", 2.0),
    ("etcd_debugging_mvcc_compact_revision", 1.0),
    ("etcd_debugging_mvcc_current_revision", 5.0),
    ("etcd_debugging_mvcc_db_compaction_keys_total", 1.0),
    ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count", 1.0),
    ("etcd_debugging_mvcc_events_total", 3.0),
    ("etcd_debugging_mvcc_keys_total", 2.0),
    ("etcd_debugging_mvcc_watch_stream_total", 1.0),
    ("etcd_debugging_mvcc_watcher_total", 1.0),
    ("etcd_disk_wal_fsync_duration_seconds_count", 5.0),
    ("etcd_disk_wal_write_duration_seconds_count", 5.0),
    ("etcd_debugging_mvcc_db_compaction_last", 1.0),
    ("etcd_debugging_mvcc_range_total", 3.0),
    ("etcd_network_client_grpc_received_bytes_total", 1.0),
    ("etcd_network_client_grpc_sent_bytes_total", 1.0),
    ("etcd_mvcc_delete_total", 2.0),
    ("etcd_mvcc_hash_duration_seconds_count", 1.0),
    ("etcd_mvcc_hash_rev_duration_seconds_count", 1.0),
    ("etcd_mvcc_put_total", 5.0),
    ("etcd_mvcc_range_total", 3.0),
    ("etcd_mvcc_txn_total", 1.0),
    ("etcd_disk_backend_defrag_duration_seconds_count", 1.0),
    ("etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"}", 4.0),
    ("etcd_server_health_success", 1.0),
    ("etcd_server_proposals_applied_total", 8.0),
    ("etcd_server_proposals_committed_total", 8.0),
    (
        "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
        4.0,
    ),
    (
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
        4.0,
    ),
    (
        "grpc_server_handled_total{grpc_code=\"InvalidArgument\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
        1.0,
    ),
    (
        "grpc_server_msg_sent_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}",
        2.0,
    ),
    (
        "grpc_server_msg_received_total{grpc_method=\"LeaseKeepAlive\",grpc_service=\"etcdserverpb.Lease\",grpc_type=\"bidi_stream\"}",
        1.0,
    ),
];

/// Samples that are there, whether or not they move.
const PRESENT: &[&str] = &[
    "etcd_cluster_version{cluster_version=\"3.7\"}",
    "etcd_debugging_server_lease_expired_total",
    "etcd_disk_backend_commit_duration_seconds_count",
    "etcd_disk_defrag_inflight",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_server_has_leader",
    "etcd_server_health_failures",
    "etcd_server_is_leader",
    "etcd_server_is_learner",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_quota_backend_bytes",
    "etcd_server_read_indexes_failed_total",
    "etcd_server_slow_apply_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_version{server_version=\"3.7.1\"}",
    "os_fd_limit",
    "os_fd_used",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
    "etcd_debugging_snap_save_marshalling_duration_seconds_count",
    "etcd_debugging_snap_save_total_duration_seconds_count",
    "etcd_snap_db_fsync_duration_seconds_count",
    "etcd_snap_db_save_total_duration_seconds_count",
    "etcd_snap_fsync_duration_seconds_count",
];

#[tokio::test]
async fn metrics_are_there_under_etcds_names_and_move() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let port = server.client_port();
    let before = samples(port)?;
    let mut client = server.client().await?;
    let mut watch = client.watch("k", Some(WatchOptions::new().with_prefix())).await?;
    for key in ["k1", "k2", "k3", "k1"] {
        client.put(key, "v", None).await?;
    }
    client.put("", "v", None).await.unwrap_err();
    client.txn(Txn::new().and_then([TxnOp::put("k4", "v", None), TxnOp::delete("k3", None)])).await?;
    client.delete("k1", None).await?;
    for _ in 0..3 {
        client.get("k", None).await?;
    }
    let lease = client.lease_grant(100, None).await?.id();
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    kept.message().await?;
    let other = client.lease_grant(100, None).await?.id();
    client.lease_revoke(other).await?;
    client.compact(6, Some(etcd_client::CompactionOptions::new().with_physical())).await?;
    client.hash().await?;
    client.hash_kv(0).await?;
    client.defragment().await?;
    get(port, "/health")?;
    let mut seen = 0;
    while seen < 6 {
        seen += watch.message().await?.context("the watch goes on")?.events().len();
    }

    let after = samples(port)?;
    let mut missing = Vec::new();
    for (name, least) in MOVING {
        let value = |samples: &BTreeMap<String, f64>| samples.get(*name).copied();
        match (value(&before).unwrap_or_default(), value(&after)) {
            (_, None) => missing.push(format!("{name} is not there")),
            (from, Some(to)) if to < from + least => missing.push(format!("{name} went from {from} to {to}")),
            _ => {}
        }
    }
    missing.extend(
        PRESENT.iter().filter(|name| !after.contains_key(**name)).map(|name| format!("{name} is not there")),
    );
    assert!(
        missing.is_empty(),
        "{}\n{:#?}",
        missing.join("\n"),
        after.keys().filter(|name| !name.contains("_bucket")).collect::<Vec<_>>()
    );
    assert_eq!(after["etcd_debugging_mvcc_keys_total"], 2.0);
    assert_eq!(after["etcd_server_is_leader"], 1.0);
    assert_eq!(after["etcd_server_proposals_pending"], 0.0);
    Ok(())
}
