//! Connections that are not yet proved, few enough.
//!
//! Whoever connects and says nothing costs a socket and some memory for as long as a handshake may take. There
//! may be some hundreds of those; past that, each new one ends the oldest. One who means it is through within
//! milliseconds, so it is those who say nothing that are the oldest.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

/// How many may be under way on one thread.
const MOST: usize = 512;

/// Those under way. A handle: clones are the same. They end with the last of them.
#[derive(Clone, Default)]
pub struct Handshakes(Arc<UnderWay>);

#[derive(Default)]
struct UnderWay(Mutex<Numbered>);

#[derive(Default)]
struct Numbered {
    next: u64,
    tasks: BTreeMap<u64, AbortHandle>,
}

impl Handshakes {
    /// Runs one on the current runtime, beside the others.
    pub fn spawn(&self, handshake: impl Future<Output = ()> + Send + 'static) {
        let under_way = Arc::downgrade(&self.0);
        // Held until it is entered, so that it cannot end before.
        let mut numbered = self.0.0.lock();
        let number = numbered.next;
        numbered.next += 1;
        let task = tokio::spawn(async move {
            handshake.await;
            if let Some(under_way) = under_way.upgrade() {
                under_way.0.lock().tasks.remove(&number);
            }
        });
        numbered.tasks.insert(number, task.abort_handle());
        if numbered.tasks.len() > MOST
            && let Some((_, oldest)) = numbered.tasks.pop_first()
        {
            oldest.abort();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        for task in self.0.get_mut().tasks.values() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_oldest_makes_room_and_the_last_ends_all() {
        let handshakes = Handshakes::default();
        let (alive, mut dead) = mpsc::unbounded_channel::<()>();
        let silent = |alive: mpsc::UnboundedSender<()>| async move {
            let _held = alive;
            std::future::pending::<()>().await;
        };
        let (first, mut first_dead) = mpsc::unbounded_channel::<()>();
        handshakes.spawn(silent(first));
        for _ in 1..MOST {
            handshakes.spawn(silent(alive.clone()));
        }
        let (done, mut is_done) = mpsc::unbounded_channel();
        handshakes.spawn(async move { done.send(()).unwrap() });
        is_done.recv().await.unwrap();
        assert_eq!(first_dead.recv().await, None, "the first was in the way");
        assert_eq!(handshakes.0.0.lock().tasks.len(), MOST - 1);
        drop(alive);
        drop(handshakes);
        assert_eq!(dead.recv().await, None);
    }
}
