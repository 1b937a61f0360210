//! What no honest client sends: the server answers or hangs up, and everybody else is served.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Result;
use api::etcdserverpb::lease_client::LeaseClient;
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::{self, kv_client::KvClient};
use api::etcdserverpb::{
    LeaseKeepAliveRequest, PutRequest, WatchCreateRequest, WatchRequest, watch_request::RequestUnion,
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tests::{Server, resident_bytes};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

use crate::support::{Dice, get, request};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn channel(server: &Server) -> Result<Channel> {
    Ok(Endpoint::from_shared(server.endpoint())?.connect().await?)
}

async fn serves(server: &Server) -> Result<()> {
    let mut client = server.client().await?;
    client.put("alive", "v", None).await?;
    assert_eq!(client.get("alive", None).await?.count(), 1);
    let panics: Vec<String> = server.log().into_iter().filter(|line| line.contains("panic")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
    Ok(())
}

/// Sends bytes, ends its side, and reads whatever comes back until the server hangs up.
fn send(port: u16, bytes: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // The server may hang up in the middle of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    let timed_out = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "the server neither answers nor hangs up");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_cut_off_frames() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let mut dice = Dice(7);
    for port in [server.client_port(), server.peer_port()] {
        for round in 0..60 {
            let length = dice.below(4_000) as usize;
            let mut bytes = dice.bytes(length);
            if round % 3 == 1 {
                bytes.splice(0..0, PREFACE.iter().copied());
            } else if round % 3 == 2 {
                // A frame that announces more than it has, of a random type, on a random stream.
                let mut frame = PREFACE.to_vec();
                frame.extend([
                    0,
                    0,
                    0,
                    4,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0x3f,
                    0xff,
                    dice.next() as u8,
                    dice.next() as u8,
                ]);
                frame.extend([0, 0, 0, dice.next() as u8]);
                frame.extend(&bytes);
                bytes = frame;
            }
            send(port, &bytes)?;
        }
        for cut in 0..PREFACE.len() {
            send(port, &PREFACE[..cut])?;
        }
        for line in [
            "GET\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
            "\r\n\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        ] {
            send(port, line.as_bytes())?;
        }
        send(port, format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).as_bytes())?;
    }
    serves(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_no_messages() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let channel = channel(&server).await?;
    let methods = [
        "KV/Range",
        "KV/RangeStream",
        "KV/Put",
        "KV/DeleteRange",
        "KV/Txn",
        "KV/Compact",
        "Watch/Watch",
        "Lease/LeaseGrant",
        "Lease/LeaseRevoke",
        "Lease/LeaseKeepAlive",
        "Lease/LeaseTimeToLive",
        "Lease/LeaseLeases",
        "Cluster/MemberList",
        "Cluster/MemberAdd",
        "Maintenance/Alarm",
        "Maintenance/Status",
        "Maintenance/HashKV",
        "Maintenance/Snapshot",
        "Auth/Authenticate",
        "KV/Nothing",
    ];
    let mut dice = Dice(11);
    for method in methods {
        for round in 0..40 {
            let mut payload = match round % 4 {
                // Nothing at all, and what looks like fields: tags of low numbers with odd values.
                0 if round < 4 => Vec::new(),
                1 => (0..dice.below(30))
                    .flat_map(|_| [(1 + dice.below(15) as u8) << 3, dice.next() as u8 & 0x7f])
                    .collect(),
                2 => (0..dice.below(9))
                    .flat_map(|_| {
                        let length = dice.below(9) as u8;
                        [vec![(1 + dice.below(8) as u8) << 3 | 2, length], dice.bytes(length.into())].concat()
                    })
                    .collect(),
                _ => {
                    let length = dice.below(200) as usize;
                    dice.bytes(length)
                }
            };
            let announced = if round % 10 == 9 { dice.next() as u32 } else { payload.len() as u32 };
            let compressed = u8::from(round % 13 == 12);
            payload.splice(0..0, [vec![compressed], announced.to_be_bytes().to_vec()].concat());
            let asked = http::Request::post(format!("{}/etcdserverpb.{method}", server.endpoint()))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(tonic::body::Body::new(http_body_util::Full::new(Bytes::from(payload))))?;
            let mut channel = channel.clone();
            let answer = tower::Service::call(channel.ready().await?, asked).await?;
            assert_eq!(answer.status().as_u16(), 200, "{method}");
            let in_headers = answer.headers().contains_key("grpc-status");
            // A watch that was created goes on until the client goes.
            let body = tokio::time::timeout(Duration::from_secs(10), answer.into_body().collect());
            if method != "Watch/Watch" {
                let body = body.await??;
                let in_trailers =
                    body.trailers().is_some_and(|trailers| trailers.contains_key("grpc-status"));
                assert!(in_headers || in_trailers, "{method}: no status");
            }
        }
    }
    serves(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_above_the_limits_are_refused_in_etcds_words() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let mut client = KvClient::new(channel(&server).await?);
    // The limit of a message is the limit of a request and 512 KiB.
    const MOST: usize = (1_536 + 512) << 10;
    // What a put is besides its value, of one that large: a key of one byte, two tags, two lengths.
    let put = |length: usize| PutRequest {
        key: "k".into(),
        value: vec![b'v'; length].into(),
        ..Default::default()
    };
    let surplus = 3 + 1 + 4;
    for (length, code, text) in [
        (1_600_000, Code::InvalidArgument, "etcdserver: request is too large".to_owned()),
        // Its length takes one byte less.
        (MOST - surplus + 1, Code::InvalidArgument, "etcdserver: request is too large".to_owned()),
        (
            MOST,
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({} vs. {MOST})", MOST + surplus),
        ),
        (
            5_000_000,
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({} vs. {MOST})", 5_000_000 + surplus),
        ),
    ] {
        let status = client.put(put(length)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, text.as_str()), "{length}");
    }
    let larger = "grpc: received message larger than max";
    let range = api::etcdserverpb::RangeRequest { key: vec![b'k'; 3 << 20].into(), ..Default::default() };
    let status = client.range(range).await.unwrap_err();
    assert!(status.code() == Code::ResourceExhausted && status.message().starts_with(larger), "{status:?}");

    // Streams end with the same words.
    let create = WatchCreateRequest { key: vec![b'k'; 3 << 20].into(), ..Default::default() };
    let requests = [WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }];
    let mut watch = WatchClient::new(channel(&server).await?);
    let status = match watch.watch(tokio_stream::iter(requests)).await {
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    assert!(status.code() == Code::ResourceExhausted && status.message().starts_with(larger), "{status:?}");
    let metrics = get(server.client_port(), "/metrics")?.body;
    let failed = "etcd_network_server_stream_failures_total{API=\"watch\",Type=\"receive\"} 1";
    assert!(metrics.lines().any(|line| line == failed), "{metrics}");

    // A list of any size comes through, since what the server sends is bounded by the client alone.
    for number in 0..4 {
        let key = format!("big{number}").into();
        client.put(PutRequest { key, value: vec![b'v'; 1_500_000].into(), ..Default::default() }).await?;
    }
    let all =
        api::etcdserverpb::RangeRequest { key: "big".into(), range_end: "bih".into(), ..Default::default() };
    let found = client.max_decoding_message_size(usize::MAX).range(all).await?.into_inner();
    assert_eq!(found.kvs.len(), 4);
    serves(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values_are_bytes_and_nothing_else() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let mut client = server.client().await?;
    for key in [&b"\xff\xfe\x00"[..], b"\x00", b"\xc3\x28", b"k\r\n\"\\", &[0xf0; 500]] {
        client.put(key, key, None).await?;
        let found = client.get(key, None).await?;
        assert_eq!((found.kvs()[0].key(), found.kvs()[0].value()), (key, key));
    }
    let all = client.get("", Some(etcd_client::GetOptions::new().with_all_keys())).await?;
    assert_eq!(all.count(), 5);
    let server = server.kill()?.start()?;
    assert_eq!(server.client().await?.get(b"\xff\xfe\x00".to_vec(), None).await?.count(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_idle_connections() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let port = server.client_port();
    let before = resident_bytes(server.pid())?;
    let mut idle = Vec::new();
    for number in 0..3_000 {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        match number % 3 {
            0 => {}
            1 => stream.write_all(&[PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0][..]].concat())?,
            _ => stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n")?,
        }
        idle.push(stream);
    }
    serves(&server).await?;
    assert_eq!(get(port, "/health")?.status, 200);
    let grown = resident_bytes(server.pid())?.saturating_sub(before);
    println!("3,000 idle connections: the server grew by {} MiB", grown >> 20);
    assert!(grown < 256 << 20, "the server grew by {} MiB", grown >> 20);
    drop(idle);
    serves(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_in_the_middle() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    for round in 0..100_u64 {
        let channel = channel(&server).await?;
        let (mut keys, mut leases, mut watch) =
            (KvClient::new(channel.clone()), LeaseClient::new(channel.clone()), WatchClient::new(channel));
        let create = WatchCreateRequest { key: "k".into(), ..Default::default() };
        let requests =
            tokio_stream::iter([WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }]);
        let put = PutRequest { key: "k".into(), value: vec![b'v'; 100_000].into(), ..Default::default() };
        // Polled for a while and dropped with its connection, wherever it is.
        let work = async {
            let _watch = watch.watch(requests).await;
            let _kept = leases.lease_keep_alive(tokio_stream::iter([LeaseKeepAliveRequest { id: 1 }])).await;
            let _put = keys.put(put).await;
        };
        let patience = Duration::from_micros(round * 50);
        let _ = tokio::time::timeout(patience, work).await;
    }
    // What they watched goes with them.
    let path = "/metrics";
    loop {
        let metrics = request(server.client_port(), "GET", path)?.body;
        let open =
            metrics.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watch_stream_total "));
        if open == Some("0") {
            break;
        }
        tokio::task::yield_now().await;
    }
    serves(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_at_the_ends_of_their_ranges() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let channel = channel(&server).await?;
    let mut dice = Dice(23);
    let ends =
        [0, 1, -1, 2, i64::MAX, i64::MIN, i64::MAX - 1, i64::from(i32::MAX), 9_000_000_000, 9_000_000_001];
    let keys: [&[u8]; 6] = [b"", b"\0", b"a", b"b", b"\xff", b"\xff\xff"];
    let mut refused = 0;
    for _ in 0..500 {
        let mut number = || ends[dice.below(ends.len() as u64) as usize];
        let (one, two, three, four) = (number(), number(), number(), number());
        let mut key = || Bytes::from_static(keys[dice.below(keys.len() as u64) as usize]);
        let range = etcdserverpb::RangeRequest {
            key: key(),
            range_end: key(),
            limit: one,
            revision: if two > 2 { two } else { 0 },
            sort_order: three as i32,
            sort_target: four as i32,
            min_mod_revision: two,
            max_mod_revision: three,
            min_create_revision: four,
            max_create_revision: one,
            ..Default::default()
        };
        let put = PutRequest {
            key: key(),
            value: key(),
            lease: one,
            prev_kv: two > 0,
            ignore_lease: one == 0,
            ..Default::default()
        };
        let compare = etcdserverpb::Compare {
            result: two as i32,
            target: three as i32,
            key: key(),
            range_end: key(),
            target_union: Some(etcdserverpb::compare::TargetUnion::ModRevision(four)),
        };
        let operation = |request| etcdserverpb::RequestOp { request: Some(request) };
        let txn = etcdserverpb::TxnRequest {
            compare: vec![compare],
            success: vec![
                operation(etcdserverpb::request_op::Request::RequestRange(range.clone())),
                etcdserverpb::RequestOp { request: None },
                operation(etcdserverpb::request_op::Request::RequestPut(put.clone())),
            ],
            failure: vec![operation(etcdserverpb::request_op::Request::RequestRange(range.clone()))],
        };
        let mut keys = KvClient::new(channel.clone());
        let mut leases = LeaseClient::new(channel.clone());
        let mut maintenance = etcdserverpb::maintenance_client::MaintenanceClient::new(channel.clone());
        let alarm = etcdserverpb::AlarmRequest { action: 0, member_id: one as u64, alarm: two as i32 };
        let answers = [
            keys.range(range.clone()).await.is_ok(),
            keys.range_stream(range).await.is_ok(),
            keys.put(put).await.is_ok(),
            keys.txn(txn).await.is_ok(),
            keys.compact(etcdserverpb::CompactionRequest { revision: one, physical: two > 0 }).await.is_ok(),
            leases.lease_grant(etcdserverpb::LeaseGrantRequest { id: one, ttl: two }).await.is_ok(),
            leases.lease_revoke(etcdserverpb::LeaseRevokeRequest { id: three }).await.is_ok(),
            leases
                .lease_time_to_live(etcdserverpb::LeaseTimeToLiveRequest { id: four, keys: true })
                .await
                .is_ok(),
            leases.lease_keep_alive(tokio_stream::iter([LeaseKeepAliveRequest { id: one }])).await.is_ok(),
            maintenance.hash_kv(etcdserverpb::HashKvRequest { revision: four }).await.is_ok(),
            maintenance.alarm(alarm).await.is_ok(),
        ];
        refused += answers.iter().filter(|passed| !**passed).count();
        let create = WatchCreateRequest {
            key: Bytes::from_static(b"a"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: one,
            watch_id: two,
            filters: vec![three as i32, four as i32],
            prev_kv: true,
            fragment: true,
            ..Default::default()
        };
        let cancel = etcdserverpb::WatchCancelRequest { watch_id: two };
        let requests = [RequestUnion::CreateRequest(create), RequestUnion::CancelRequest(cancel)]
            .map(|request| WatchRequest { request_union: Some(request) });
        let mut watch =
            WatchClient::new(channel.clone()).watch(tokio_stream::iter(requests)).await?.into_inner();
        assert!(watch.message().await?.is_some());
    }
    assert!(refused > 1_000, "only {refused} of all these were refused");
    serves(&server).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_the_system_allows() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let mut before = server.client().await?;
    before.put("k", "v", None).await?;
    server.limit_open_files(64)?;
    let refused: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(("127.0.0.1", server.client_port())))
        .collect::<Result<_, _>>()?;
    // Who is connected is served, and once others leave, new ones are.
    before.put("k", "v", None).await?;
    drop(refused);
    serves(&server).await
}
