//! A client that never reads costs bounded memory and delays nobody.

use anyhow::Result;
use etcd_client::{PutOptions, WatchOptions};
use tests::{Server, resident_bytes};

/// 1 GiB of events: values of 1 MiB, so that few puts make many bytes.
const VALUE: usize = 1 << 20;
const PUTS: usize = 1024;

/// What the server may grow by meanwhile: its buffers and caches, far less than the events.
const ALLOWED: u64 = 512 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_never_reads_while_a_gibibyte_passes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--quota-backend-bytes", "-1", "--unsafe-no-fsync"])?;
    let mut deaf = server.client().await?;
    let never_read = deaf.watch("k", Some(WatchOptions::new())).await?;
    let mut other = server.client().await?;
    let mut reads = other.watch("k", Some(WatchOptions::new())).await?;

    let mut writer = server.client().await?;
    let before = resident_bytes(server.pid())?;
    let reader = tokio::spawn(async move {
        let (mut seen, mut last) = (0, 0);
        while seen < PUTS {
            let Some(message) = reads.message().await? else { anyhow::bail!("the watch ended") };
            for event in message.events() {
                let revision = event.kv().map_or(0, |kv| kv.mod_revision());
                anyhow::ensure!(revision > last, "revision {revision} after {last}");
                last = revision;
                seen += 1;
            }
        }
        Ok(())
    });
    let mut worst = 0;
    for put in 0..PUTS {
        writer.put("k", vec![b'x'; VALUE], Some(PutOptions::new())).await?;
        if put % 16 == 0 {
            worst = worst.max(resident_bytes(server.pid())?);
        }
    }
    reader.await??;
    let grown = worst.saturating_sub(before);
    println!("1 GiB of events past a deaf watcher: the server grew by {} MiB at the most", grown >> 20);
    assert!(grown < ALLOWED, "the server grew by {} MiB", grown >> 20);
    drop(never_read);
    Ok(())
}
