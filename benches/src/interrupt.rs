//! Leaves nothing behind when the driver is told to end.
//!
//! A [`Server`](crate::process::Server) ends its process and removes its data when it is dropped, but
//! a signal drops nothing. So the servers that run are also remembered here, for the one thread that
//! waits for SIGINT or SIGTERM.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::signal::unix::{SignalKind, signal};

static RUNNING: Mutex<Vec<(u32, PathBuf)>> = Mutex::new(Vec::new());

/// A child that runs, and the directory to remove with it.
pub(crate) fn remember(pid: u32, home: &Path) {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push((pid, home.to_owned()));
}

/// A child that is about to be ended and waited for by its owner.
pub(crate) fn forget(pid: u32) {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != pid);
}

/// Starts the thread that ends everything, and then the driver, at the first signal.
///
/// # Errors
/// When the signals cannot be waited for.
pub(crate) fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        // Held to the end, so that no child is started or waited for meanwhile.
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        for (pid, home) in running.iter() {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
            let _ = std::fs::remove_dir_all(home);
        }
        std::process::exit(130);
    });
    Ok(())
}
