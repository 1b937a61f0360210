//! Work that others must not have to wait for.

use std::io;

use tokio::sync::{Semaphore, oneshot};

/// How much work on the whole store may be under way; what more there is waits.
static TURNS: Semaphore = Semaphore::const_new(8);

/// How much the work gives way: a tenth of the time of a core that others want too. Not the last rank, in
/// which it might never end on a machine that is always busy.
#[cfg(target_os = "linux")]
const RANK: i32 = 10;

/// Has the calling thread give way to others when they want its core. For good: it must be a thread of its
/// own, since a process without privileges cannot take this back.
pub fn give_way() {
    // To Linux it is the thread that has the priority, whatever the call is named after. Where it is refused,
    // the work merely competes.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, RANK);
}

/// Runs `work` on a thread of its own, which gives way to others: it reads or rewrites the whole store.
///
/// # Errors
/// The system has no thread for it, or the work has panicked.
pub async fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let interrupted = || io::Error::other("the work was interrupted");
    let turn = TURNS.acquire().await.map_err(|_| interrupted())?;
    let (done, result) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Until the work is over, also where nobody waits for it any more.
        let _turn = turn;
        give_way();
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| interrupted())
}
