//! An orderly end by a signal: soon, with exit code 0, and without losing anything.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use etcd_client::GetOptions;
use rustix::process::Signal;
use tests::Server;

/// What an end may take, however much is open.
const SOON: Duration = Duration::from_secs(2);

/// Puts to its own key until the server goes; how many were acknowledged.
async fn put(mut client: etcd_client::Client, key: String, total: Arc<AtomicUsize>) -> usize {
    let mut acknowledged = 0;
    while client.put(key.clone(), (acknowledged + 1).to_string(), None).await.is_ok() {
        acknowledged += 1;
        total.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

async fn ends_well(signal: Signal) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = server.client().await?;
    let lease = client.lease_grant(100, None).await?.id();
    let (mut watches, mut keepers) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let mut client = server.client().await?;
        watches.push(client.watch("nothing", None).await?);
        let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
        keeper.keep_alive().await?;
        answers.message().await?;
        keepers.push((keeper, answers));
    }
    // Connections that never say anything, in both of their ways.
    let silent: Vec<_> = (0..20)
        .map(|_| std::net::TcpStream::connect(("127.0.0.1", server.client_port())))
        .collect::<Result<_, _>>()?;
    let peers = std::net::TcpStream::connect(("127.0.0.1", server.peer_port()))?;
    // A watcher that does not read what waits for it, and a request of which half has come.
    let deaf = server.client().await?.watch("big", None).await?;
    for _ in 0..20 {
        client.put("big", vec![b'x'; 1 << 20], None).await?;
    }
    let mut half = std::net::TcpStream::connect(("127.0.0.1", server.client_port()))?;
    half.write_all(b"POST /version HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")?;
    let total = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for number in 0..16 {
        let client = server.client().await?;
        writers.push(tokio::spawn(put(client, format!("k{number:02}"), Arc::clone(&total))));
    }
    while total.load(Ordering::Relaxed) < 200 {
        tokio::task::yield_now().await;
    }

    let began = Instant::now();
    let (stopped, status) = tokio::task::spawn_blocking(move || server.end(signal)).await??;
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took < SOON, "it took {took:?} to end");
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.push(writer.await?);
    }
    drop((watches, keepers, silent, peers, deaf, half));

    let server = stopped.start()?;
    let mut client = server.client().await?;
    let found = client.get("k", Some(GetOptions::new().with_prefix())).await?;
    assert_eq!(found.count(), 16);
    for (kv, acknowledged) in found.kvs().iter().zip(acknowledged) {
        let value: usize = kv.value_str()?.parse()?;
        // One more may have been done whose answer did not arrive.
        assert!((acknowledged..=acknowledged + 1).contains(&value), "{value}, {acknowledged} acknowledged");
        assert_eq!(kv.version(), i64::try_from(value)?);
    }
    assert_eq!(client.leases().await?.leases().len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_it_within_two_seconds() -> Result<()> {
    ends_well(Signal::TERM).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_ends_it_within_two_seconds() -> Result<()> {
    ends_well(Signal::INT).await
}

#[tokio::test]
async fn an_idle_server_ends_at_once_and_can_be_started_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut server = Server::start(directory.path(), &[])?;
    for round in 1..=3 {
        let (stopped, status) = server.terminate()?;
        assert_eq!(status.code(), Some(0), "round {round}");
        server = stopped.start()?;
    }
    Ok(())
}
