//! Somebody else, who is to be served whatever a test does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::{PATIENCE, Server, resident_bytes};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Rounds in which whoever attacks has the time to do harm.
pub(crate) const ROUNDS: usize = 100;

/// A client that puts and gets all the while, and looks at the server's memory.
pub(crate) struct Beside {
    before: u64,
    stop: Arc<AtomicBool>,
    /// How many rounds there were.
    rounds: watch::Receiver<usize>,
    work: JoinHandle<Result<Seen>>,
}

/// What it has seen.
struct Seen {
    served: usize,
    slowest: Duration,
    /// The most memory that the server had resident, in bytes.
    most: u64,
}

impl Beside {
    /// Begins; the server's memory is measured from here on.
    pub(crate) async fn start(server: &Server) -> Result<Self> {
        let mut client = server.client().await?;
        client.put("beside", "v", None).await?;
        let (pid, stop) = (server.pid(), Arc::new(AtomicBool::new(false)));
        let before = resident_bytes(pid)?;
        let stopped = Arc::clone(&stop);
        let (round_over, rounds) = watch::channel(0);
        let work = tokio::spawn(async move {
            let mut seen = Seen { served: 0, slowest: Duration::ZERO, most: before };
            loop {
                // Looked at first: there is always a last round after the stop.
                let last = stopped.load(Ordering::SeqCst);
                let began = Instant::now();
                let round = async {
                    client.put("beside", "v", None).await?;
                    client.get("beside", None).await
                };
                tokio::time::timeout(PATIENCE, round).await.context("the other client is not served")??;
                seen.slowest = seen.slowest.max(began.elapsed());
                seen.most = seen.most.max(resident_bytes(pid)?);
                seen.served += 1;
                round_over.send_replace(seen.served);
                if last {
                    return Ok(seen);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Ok(Self { before, stop, rounds, work })
    }

    /// Waits until `more` further rounds have been served beside what is going on.
    pub(crate) async fn served(&mut self, more: usize) -> Result<()> {
        let enough = *self.rounds.borrow() + more;
        // Where it has failed, its end says why.
        let _ = tokio::time::timeout(PATIENCE, self.rounds.wait_for(|rounds| *rounds >= enough)).await?;
        Ok(())
    }

    /// Ends, and fails unless every request was answered soon and the server has never had `bytes` more than at
    /// the start.
    pub(crate) async fn end(self, what: &str, bytes: u64) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let Seen { served, slowest, most } = self.work.await??;
        let grown = most.saturating_sub(self.before);
        println!(
            "{what}: {served} rounds beside it, the slowest {slowest:?}; {} KiB more memory",
            grown >> 10
        );
        assert!(slowest < PATIENCE / 2, "{what}: {slowest:?}");
        assert!(grown < bytes, "{what}: the server grew by {} MiB", grown >> 20);
        Ok(())
    }
}
