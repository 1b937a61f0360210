//! Waiting for a condition of the outside world.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take before a test fails: far more than it ever needs, also on a machine
/// that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks again and again until there is something, and fails with `what` if there is not in time.
///
/// # Errors
/// When nothing is found within `limit`.
pub async fn until_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            bail!("waited {:.0?} in vain: {what}", begun.elapsed());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// [`until_within`] the usual time.
///
/// # Errors
/// When nothing is found within [`PATIENCE`].
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    until_within(PATIENCE, what, look).await
}
