//! A watcher that begins very many revisions ago gets all of them in order, while puts go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etcd_client::WatchOptions;
use tests::Server;

use crate::support::count;

/// Tasks that put at the same time to make the past.
const PUTTERS: usize = 128;

/// The longest that a put may wait while the watcher catches up.
const LONGEST: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_far_behind_gets_every_revision_while_puts_go_on() -> Result<()> {
    let behind = count("CAIRN_TEST_BEHIND", 30_000);
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync", "--quota-backend-bytes", "-1"])?;
    let mut putting = Vec::new();
    for putter in 0..PUTTERS {
        let mut client = server.client().await?;
        putting.push(tokio::spawn(async move {
            for number in (putter..behind).step_by(PUTTERS) {
                client.put(format!("k{}", number % 1_000), number.to_string(), None).await?;
            }
            anyhow::Ok(())
        }));
    }
    for putter in putting {
        putter.await??;
    }

    let stop = Arc::new(AtomicBool::new(false));
    let putter = tokio::spawn({
        let (mut client, stop) = (server.client().await?, Arc::clone(&stop));
        async move {
            let (mut last, mut puts, mut longest) = (0, 0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                last = client.put("k", "now", None).await?.header().context("a header")?.revision();
                longest = longest.max(began.elapsed());
                puts += 1;
            }
            anyhow::Ok((last, puts, longest))
        }
    });
    let began = Instant::now();
    let options = WatchOptions::new().with_prefix().with_start_revision(2);
    let mut watch = server.client().await?.watch("k", Some(options)).await?;
    let mut next = 2;
    let past = i64::try_from(behind)? + 2;
    let mut took = None;
    let mut newest = i64::MAX;
    let mut putter = Some(putter);
    let (mut puts, mut longest) = (0, Duration::ZERO);
    while next <= newest {
        let message = watch.message().await?.context("the watch goes on")?;
        for event in message.events() {
            let revision = event.kv().context("a key")?.mod_revision();
            assert_eq!(revision, next, "every revision once, in order");
            next += 1;
        }
        if next >= past && putter.is_some() {
            took = Some(began.elapsed());
            stop.store(true, Ordering::Relaxed);
            (newest, puts, longest) = putter.take().context("once")?.await??;
        }
    }
    println!("{behind} revisions in {took:?}; {puts} puts meanwhile, the slowest {longest:?}");
    assert!(puts > 0, "puts went on");
    assert!(longest < LONGEST, "a put took {longest:?}");
    Ok(())
}
