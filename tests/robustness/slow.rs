//! Clients that take their time: with what they ask, with what they are told, and with leaving.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use api::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest, watch_request::RequestUnion};
use prost::Message as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tests::Server;

use crate::beside::{Beside, ROUNDS};
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, Http2, INITIAL_WINDOW, PREFACE, block, call, frame, lying,
    message,
};
use crate::no_panics;
use crate::support::count;

const MIB: u64 = 1 << 20;

/// Whether the other side has hung up, looked at without waiting.
fn is_cut(stream: &mut TcpStream) -> Result<bool> {
    stream.set_nonblocking(true)?;
    let mut answer = [0; 1024];
    Ok(loop {
        match stream.read(&mut answer) {
            Ok(0) => break true,
            // Settings, or a word of farewell.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
            Err(_) => break true,
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_finish_is_cut_off() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let beside = Beside::start(&server).await?;
    let post = "POST /raft HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    // What is sent at first, and what then comes byte by byte.
    let openings: [(&str, u16, &[u8], &[u8]); 8] = [
        ("nothing", server.client_port(), b"", b""),
        ("a part of the preface", server.client_port(), &PREFACE[..10], b""),
        ("a line", server.client_port(), b"GET /health HTTP/1.1\r\n", b""),
        ("endless headers", server.client_port(), b"GET /health HTTP/1.1\r\nx: ", b"y"),
        ("a preface in drops", server.client_port(), b"", PREFACE),
        ("nothing to a peer", server.peer_port(), b"", b""),
        ("endless headers to a peer", server.peer_port(), b"GET /version HTTP/1.1\r\nx: ", b"y"),
        ("a message that does not come", server.peer_port(), post.as_bytes(), b""),
    ];
    let mut open = Vec::new();
    for (what, port, first, drops) in openings {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(first)?;
        open.push((what, stream, drops.iter().copied().cycle().take(60 * drops.len())));
    }
    // Drops come every half a second, so that no silence is long.
    let began = Instant::now();
    while !open.is_empty() {
        if began.elapsed() > Duration::from_secs(25) {
            bail!("still open: {:?}", open.iter().map(|(what, ..)| what).collect::<Vec<_>>());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut left = Vec::new();
        for (what, mut stream, mut drops) in open {
            if is_cut(&mut stream)? {
                println!("{what}: cut off after {:?}", began.elapsed());
            } else {
                if let Some(drop) = drops.next() {
                    // It may be cut off in this moment.
                    let _ = stream.write(&[drop]);
                }
                left.push((what, stream, drops));
            }
        }
        open = left;
    }
    beside.end("slow clients", 64 * MIB).await?;
    no_panics(&server);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_to_clients_that_do_not_read() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let port = server.client_port();
    let mut client = server.client().await?;
    // 8 MiB to be asked for.
    for number in 0..8 {
        client.put(format!("big{number}"), vec![b'v'; 1 << 20], None).await?;
    }
    let range = RangeRequest { key: "big".into(), range_end: "bih".into(), ..Default::default() };
    let range = message(&range.encode_to_vec());
    let create = WatchCreateRequest {
        key: "big".into(),
        range_end: "bih".into(),
        start_revision: 1,
        ..Default::default()
    };
    let watch = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let watch = message(&watch.encode_to_vec());
    for (what, path, request, window, end) in [
        ("ranges, no window", "/etcdserverpb.KV/Range", &range, 0, END_STREAM),
        ("ranges, a window of one byte", "/etcdserverpb.KV/Range", &range, 1, END_STREAM),
        ("ranges, nobody reads", "/etcdserverpb.KV/Range", &range, 1 << 30, END_STREAM),
        ("streamed ranges, no window", "/etcdserverpb.KV/RangeStream", &range, 0, END_STREAM),
        ("watches, no window", "/etcdserverpb.Watch/Watch", &watch, 0, 0),
        ("snapshots, no window", "/etcdserverpb.Maintenance/Snapshot", &message(&[]), 0, END_STREAM),
    ] {
        let mut beside = Beside::start(&server).await?;
        let mut connection = Http2::connect(port, &[(INITIAL_WINDOW, window)])?;
        let headers = block(&call(path));
        for stream in (1..40).step_by(2) {
            let call =
                [frame(HEADERS, END_HEADERS, stream, &headers), frame(DATA, end, stream, request)].concat();
            connection.send(&call)?;
        }
        beside.served(ROUNDS).await?;
        beside.end(what, 256 * MIB).await?;
    }
    no_panics(&server);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let possible = limit.maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let wanted = count("CAIRN_TEST_CONNECTIONS", 10_000).min(possible.saturating_sub(500));
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    server.limit_open_files(possible as u64)?;
    let beside = Beside::start(&server).await?;
    let hello = [PREFACE, &frame(4, 0, 0, &[])].concat();
    let headers = block(&call("/etcdserverpb.Watch/Watch"));
    let begun = [&hello[..], &frame(HEADERS, END_HEADERS, 1, &headers)].concat();
    let half = [&hello[..], &lying(500, HEADERS, 0, 1, &headers)].concat();
    let openings: [&[u8]; 6] = [
        b"",
        &hello,
        &begun,
        &half,
        b"GET /health HTTP/1.1\r\nHost: x\r\n",
        b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ];
    let mut open = Vec::with_capacity(wanted);
    for number in 0..wanted {
        // An address has some thirty thousand ports for connections; others may be in use by other tests.
        let from = Ipv4Addr::new(127, 0, 1, (number / 2_500) as u8 + 1);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        let port = if number % 10 == 9 { server.peer_port() } else { server.client_port() };
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(openings[number % openings.len()])?;
        open.push(stream);
    }
    // New ones are served too.
    let mut client = server.client().await?;
    assert!(client.get("beside", None).await?.count() > 0);
    beside.end(&format!("{wanted} connections"), 1024 * MIB).await?;
    drop(open);
    no_panics(&server);
    Ok(())
}
