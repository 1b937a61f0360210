//! Very many leases that run out in the same second drain in batches, while puts go on.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etcd_client::{EventType, GetOptions, LeaseGrantOptions, PutOptions, WatchOptions};
use tests::Server;

use crate::support::count;

/// Tasks that grant at the same time.
const GRANTERS: usize = 64;

/// The longest that a put may wait while leases drain. A put waits for what is before it in the log;
/// without batches that would be all the leases.
const LONGEST: Duration = Duration::from_secs(3);

/// Grants leases with these numbers and attaches a key to each; the time that each has left, in
/// seconds, is made of the time at which it is granted.
async fn grant(server: &Server, numbers: Range<usize>, ttl: impl Fn(Instant) -> u64) -> Result<()> {
    let mut granting = Vec::new();
    for granter in 0..GRANTERS {
        let mut client = server.client().await?;
        let (numbers, ttl) = (numbers.clone().skip(granter).step_by(GRANTERS), &ttl);
        granting.push(async move {
            for number in numbers {
                let (ttl, id) = (i64::try_from(ttl(Instant::now()))?, i64::try_from(number + 1)?);
                client.lease_grant(ttl, Some(LeaseGrantOptions::new().with_id(id))).await?;
                let key = format!("leased/{number:07}");
                client.put(key, "v", Some(PutOptions::new().with_lease(id))).await?;
            }
            anyhow::Ok(())
        });
    }
    futures_util::future::try_join_all(granting).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_one_second_drain_while_puts_go_on() -> Result<()> {
    let leases = count("CAIRN_TEST_LEASES", 12_000);
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync", "--quota-backend-bytes", "-1"])?;

    // A trial tells how long granting will take here; then each lease gets what is left until the
    // same second.
    let began = Instant::now();
    let trial = leases / 10 + GRANTERS;
    grant(&server, leases..leases + trial, |_| 1_000).await?;
    let whole = began.elapsed().mul_f64(1.25 * leases as f64 / trial as f64);
    let until = Instant::now() + whole + Duration::from_secs(3);
    grant(&server, 0..leases, |now| (until - now).as_secs()).await?;
    anyhow::ensure!(Instant::now() < until, "granting took so long that leases have run out meanwhile");
    let granted = until - Instant::now();
    let mut client = server.client().await?;
    let end = format!("leased/{leases:07}");
    let counted = || GetOptions::new().with_range(end.clone()).with_count_only();
    assert_eq!(client.get("leased/", Some(counted())).await?.count(), i64::try_from(leases)?);

    let stop = Arc::new(AtomicBool::new(false));
    let putter = tokio::spawn({
        let (mut client, stop) = (server.client().await?, Arc::clone(&stop));
        async move {
            let (mut puts, mut longest) = (0_u64, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                client.put("other", puts.to_string(), None).await?;
                longest = longest.max(began.elapsed());
                puts += 1;
            }
            anyhow::Ok((puts, longest))
        }
    });
    let mut watch = server.client().await?.watch("leased/", Some(WatchOptions::new().with_prefix())).await?;
    let (mut deleted, mut last, mut first) = (0, 0, None);
    while deleted < leases {
        let message = watch.message().await?.context("the watch goes on")?;
        for event in message.events() {
            let revision = event.kv().context("a key")?.mod_revision();
            assert_eq!(event.event_type(), EventType::Delete);
            assert!(revision > last, "revision {revision} after {last}: one revision for each lease");
            (deleted, last) = (deleted + 1, revision);
            first.get_or_insert_with(Instant::now);
        }
    }
    let took = first.map(|first| first.elapsed()).unwrap_or_default();
    stop.store(true, Ordering::Relaxed);
    let (puts, longest) = putter.await??;
    println!(
        "{leases} leases, granted {granted:?} before their end, were gone {took:?} after the first; \
         {puts} puts meanwhile, the slowest {longest:?}"
    );
    assert!(longest < LONGEST, "a put took {longest:?}");
    assert_eq!(client.get("leased/", Some(counted())).await?.count(), 0);
    assert_eq!(client.leases().await?.leases().len(), trial, "the others are still there");
    assert_eq!(client.get("other", None).await?.kvs()[0].version(), i64::try_from(puts)?);
    Ok(())
}
