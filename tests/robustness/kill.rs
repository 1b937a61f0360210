//! `kill -9` in the middle of load, many times: what was acknowledged is there, nothing is applied
//! twice, and revisions never go back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Result;
use etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp};
use tests::Server;

const ROUNDS: u64 = 12;
const WRITERS: usize = 8;

/// What one writer knows of its own key: it alone writes it, one number after the other.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The last number whose put was acknowledged, and the revision that it was acknowledged at.
    acknowledged: u64,
    revision: i64,
    /// The number on its way when the server died, if its outcome is unknown.
    attempted: u64,
}

/// Counts up in its own key by compare-and-put until the server is gone: the compare fails if any
/// put was lost or done twice, since then the value is not the one before.
async fn write(
    mut client: Client,
    key: String,
    mut known: Known,
    progress: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Known {
    while !stop.load(Ordering::Relaxed) {
        let next = known.acknowledged + 1;
        known.attempted = next;
        let before = if known.acknowledged == 0 {
            Compare::version(key.clone(), CompareOp::Equal, 0)
        } else {
            Compare::value(key.clone(), CompareOp::Equal, known.acknowledged.to_string())
        };
        let txn = Txn::new().when([before]).and_then([TxnOp::put(key.clone(), next.to_string(), None)]);
        let Ok(response) = client.txn(txn).await else { break };
        assert!(
            response.succeeded(),
            "{key} is not {} any more: a put was lost or done twice",
            known.acknowledged
        );
        let revision = response.header().unwrap().revision();
        assert!(revision > known.revision, "{key}: revision {revision} after {}", known.revision);
        known = Known { acknowledged: next, revision, attempted: next };
        progress.fetch_add(1, Ordering::Relaxed);
    }
    known
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_done_twice() -> Result<()> {
    let directory = tempfile::tempdir()?;
    // Small numbers, so that flushes, snapshot records and segment releases happen often.
    let mut server = Server::start(directory.path(), &["--snapshot-count", "200"])?;
    let mut known = vec![Known::default(); WRITERS];
    let mut last_revision = 0;
    for round in 0..ROUNDS {
        let progress = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for (number, known) in known.iter().enumerate() {
            let client = server.client().await?;
            let key = format!("counter/{number}");
            writers.push(tokio::spawn(write(client, key, *known, Arc::clone(&progress), Arc::clone(&stop))));
        }
        // Later rounds die later, so that the crash meets different moments of the flusher.
        let enough = 50 + round * 70;
        while progress.load(Ordering::Relaxed) < enough {
            tokio::task::yield_now().await;
        }
        let stopped = server.kill()?;
        stop.store(true, Ordering::Relaxed);
        for (number, writer) in writers.into_iter().enumerate() {
            known[number] = writer.await?;
        }

        server = stopped.start()?;
        let mut client = server.client().await?;
        let found = client.get("counter/", Some(GetOptions::new().with_prefix())).await?;
        let revision = found.header().unwrap().revision();
        let newest = known.iter().map(|known| known.revision).max().unwrap_or_default();
        assert!(
            revision >= newest.max(last_revision),
            "revision {revision} is below {newest} or {last_revision}"
        );
        last_revision = revision;
        let values: BTreeMap<String, (u64, i64)> = found
            .kvs()
            .iter()
            .map(|kv| {
                (kv.key_str().unwrap().to_owned(), (kv.value_str().unwrap().parse().unwrap(), kv.version()))
            })
            .collect();
        for (number, known) in known.iter_mut().enumerate() {
            let (value, version) = values.get(&format!("counter/{number}")).copied().unwrap_or_default();
            assert!(
                value == known.acknowledged || value == known.attempted,
                "round {round}: counter/{number} is {value}; {} was acknowledged, {} attempted",
                known.acknowledged,
                known.attempted
            );
            assert_eq!(version, i64::try_from(value)?, "every put of counter/{number} counts once");
            known.acknowledged = value;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_clean_stop_is_quick_and_loses_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = server.client().await?;
    // A watch stream is open while the server stops: it must not hold it up.
    let watcher = client.watch("k", None).await?;
    let put = client.put("k", "v", None).await?.header().unwrap().revision();
    let (stopped, status) = server.terminate()?;
    assert!(status.success(), "{status}");
    drop(watcher);
    let server = stopped.start()?;
    let found = server.client().await?.get("k", None).await?;
    assert_eq!(found.kvs()[0].mod_revision(), put);
    Ok(())
}
