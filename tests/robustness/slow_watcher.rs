//! Clients that never read cost bounded memory and delay nobody.

use std::time::Duration;

use anyhow::{Context as _, Result};
use api::etcdserverpb::watch_client::WatchClient;
use api::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion};
use etcd_client::{CompactionOptions, PutOptions, WatchOptions};
use tests::{Server, resident_bytes};
use tonic::transport::Endpoint;

use crate::support::count;

/// What the server may grow by meanwhile: its buffers and caches, far less than the events.
const ALLOWED: u64 = 512 << 20;

/// Puts `puts` values of `length` bytes while another watcher reads: it must have each event before
/// the next put is made. Returns the most that the server grew by, in bytes.
async fn pass(server: &Server, puts: usize, length: usize) -> Result<u64> {
    let mut reads = server.client().await?.watch("k", Some(WatchOptions::new())).await?;
    assert!(reads.message().await?.is_some_and(|message| message.created()));
    let mut writer = server.client().await?;
    let before = resident_bytes(server.pid())?;
    let mut worst = 0;
    for put in 0..puts {
        let value = vec![b'x'; length];
        let acknowledged = writer.put("k", value, Some(PutOptions::new())).await?;
        let revision = acknowledged.header().context("a header")?.revision();
        let message = tokio::time::timeout(Duration::from_secs(10), reads.message());
        let message = message.await.context("a watcher that reads is kept waiting")??;
        let events = message.as_ref().context("the watch goes on")?.events();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].kv().map(|kv| kv.mod_revision()), Some(revision));
        if put % 16 == 0 {
            worst = worst.max(resident_bytes(server.pid())?);
        }
    }
    Ok(worst.saturating_sub(before))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_never_reads_while_a_gibibyte_passes() -> Result<()> {
    let mebibytes = count("CAIRN_TEST_MEBIBYTES", 1_024);
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--quota-backend-bytes", "-1", "--unsafe-no-fsync"])?;
    let never_read = server.client().await?.watch("k", Some(WatchOptions::new())).await?;
    let grown = pass(&server, mebibytes, 1 << 20).await?;
    println!(
        "{mebibytes} MiB of events past a deaf watcher: the server grew by {} MiB at the most",
        grown >> 20
    );
    assert!(grown < ALLOWED, "the server grew by {} MiB", grown >> 20);
    drop(never_read);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_on_one_stream_that_is_never_read() -> Result<()> {
    const WATCHERS: usize = 300;
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--quota-backend-bytes", "-1", "--unsafe-no-fsync"])?;
    let channel = Endpoint::from_shared(server.endpoint())?.connect().await?;
    let requests: Vec<WatchRequest> = (0..WATCHERS)
        .map(|number| {
            // Some from the past, some with the value before, some of a range.
            let create = WatchCreateRequest {
                key: "k".into(),
                range_end: if number % 2 == 0 { Default::default() } else { "l".into() },
                start_revision: if number % 3 == 0 { 1 } else { 0 },
                prev_kv: number % 5 == 0,
                fragment: number % 7 == 0,
                ..Default::default()
            };
            WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
        })
        .collect();
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter(requests), tokio_stream::pending());
    let mut client = WatchClient::new(channel);
    let never_read = client.watch(requests).await?.into_inner();
    // 64 MiB for one watcher that reads; for all of these it would be 19 GiB.
    let grown = pass(&server, 512, 128 << 10).await?;
    println!(
        "64 MiB of events past {WATCHERS} deaf watchers: the server grew by {} MiB at the most",
        grown >> 20
    );
    assert!(grown < ALLOWED, "the server grew by {} MiB", grown >> 20);
    drop(never_read);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_compaction_overtakes_is_told_and_never_skips() -> Result<()> {
    const PUTS: i64 = 1_000;
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--quota-backend-bytes", "-1", "--unsafe-no-fsync"])?;
    let mut slow = server.client().await?.watch("k", Some(WatchOptions::new().with_prefix())).await?;
    let mut client = server.client().await?;
    for number in 0..PUTS {
        client.put(format!("k{number}"), vec![b'x'; 64 << 10], None).await?;
        if number % 100 == 99 {
            client.compact(number, Some(CompactionOptions::new().with_physical())).await?;
        }
    }
    // It gets what was on its way in order, and then the word that the rest is gone.
    let mut next = 2;
    loop {
        let message = slow.message().await?.context("the watch goes on")?;
        for event in message.events() {
            assert_eq!(event.kv().map(|kv| kv.mod_revision()), Some(next));
            next += 1;
        }
        if message.canceled() {
            assert!(next < message.compact_revision(), "it had all up to {next}");
            assert_eq!(message.compact_revision(), PUTS - 1);
            break;
        }
        assert!(next < PUTS, "64 MiB were on their way to one that does not read");
    }
    Ok(())
}
