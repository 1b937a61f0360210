//! What the other threads hand to a shard: answers, confirmed reads and events.
//!
//! The apply thread and the raft thread post whole batches, and only the post that finds the
//! mailbox empty wakes the shard: under load a wake-up carries hundreds of answers.

use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;
use watch::Batch;

use crate::error::Error;
use crate::proposal::{Answer, RequestId};

/// The bytes of events that may wait for a shard that is busy; past it the shard is told to read
/// them from history instead (design §5: a bounded buffer, never a lost event).
const MAX_WAITING_BYTES: usize = 32 << 20;

/// What an event is counted as beside its record.
pub(crate) const EVENT_OVERHEAD: usize = 128;

/// The queue between the member's threads and one shard.
#[derive(Default)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    mail: Mail,
    waker: Option<Waker>,
    /// Whether there are watch streams on the shard. Without them events are not worth waking it.
    watched: bool,
    /// The last revision that it was not told of for that reason.
    untold: Option<i64>,
}

/// Everything that has arrived since the shard looked last.
#[derive(Default)]
pub(crate) struct Mail {
    /// Outcomes of proposals.
    pub(crate) answers: Vec<(RequestId, Answer)>,
    /// Read rounds that may go on, or have to be asked for again.
    pub(crate) reads: Vec<(u64, Result<(), Error>)>,
    /// Batches of events in revision order.
    pub(crate) events: Vec<Arc<Batch>>,
    /// How many bytes these batches hold.
    pub(crate) waiting_bytes: usize,
    /// Set where batches were thrown away: the last revision that the shard has to read itself.
    pub(crate) skipped_to: Option<i64>,
    /// There is another leader: what waited for one may go on, and what the one before was asked is
    /// to be asked again.
    pub(crate) leader: bool,
    /// The member is stopping: streams end and waiters are told.
    pub(crate) stopping: bool,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.answers.is_empty()
            && self.reads.is_empty()
            && self.events.is_empty()
            && self.skipped_to.is_none()
            && !self.leader
            && !self.stopping
    }
}

impl Mailbox {
    fn post(&self, put: impl FnOnce(&mut Mail)) {
        let waker = {
            let mut inner = self.inner.lock();
            let was_empty = inner.mail.is_empty();
            put(&mut inner.mail);
            if was_empty { inner.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Posts what only streams want to know, which goes up to `revision`.
    fn post_watched(&self, revision: i64, put: impl FnOnce(&mut Mail)) {
        let waker = {
            let mut inner = self.inner.lock();
            if !inner.watched {
                inner.untold = Some(revision);
                return;
            }
            let was_empty = inner.mail.is_empty();
            put(&mut inner.mail);
            if was_empty { inner.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// From now on the shard has streams, or has none. What happened while it had none is read from
    /// history: the next look at the mail says up to where.
    pub(crate) fn set_watched(&self, watched: bool) {
        let inner = &mut *self.inner.lock();
        inner.watched = watched;
        if let Some(revision) = inner.untold.take_if(|_| watched) {
            inner.mail.events.clear();
            inner.mail.skipped_to = Some(revision);
        }
    }

    /// Posts the outcomes of a run of entries.
    pub(crate) fn post_answers(&self, answers: &mut Vec<(RequestId, Answer)>) {
        if !answers.is_empty() {
            self.post(|mail| mail.answers.append(answers));
        }
    }

    /// Posts the end of a read round.
    pub(crate) fn post_read(&self, id: u64, result: Result<(), Error>) {
        self.post(|mail| mail.reads.push((id, result)));
    }

    /// Posts a batch of events that takes `bytes` of memory, or notes that the shard is too far behind to be given it.
    pub(crate) fn post_events(&self, batch: &Arc<Batch>, bytes: usize) {
        self.post_watched(batch.last, |mail| {
            mail.waiting_bytes += bytes;
            if mail.skipped_to.is_some() || mail.waiting_bytes > MAX_WAITING_BYTES {
                mail.events.clear();
                mail.skipped_to = Some(batch.last);
            } else {
                mail.events.push(Arc::clone(batch));
            }
        });
    }

    /// Tells the shard to read all events up to `revision` itself: a snapshot has taken the place of
    /// the entries that they would have come from.
    pub(crate) fn post_skip(&self, revision: i64) {
        self.post_watched(revision, |mail| {
            mail.events.clear();
            mail.skipped_to = Some(revision);
        });
    }

    /// Tells the shard that there is another leader.
    pub(crate) fn post_leader(&self) {
        self.post(|mail| mail.leader = true);
    }

    /// Tells the shard that the member is stopping.
    pub(crate) fn post_stop(&self) {
        self.post(|mail| mail.stopping = true);
    }

    /// Takes all mail; with none there, `waker` is woken by the next post.
    pub(crate) fn take(&self, mail: &mut Mail, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        if inner.mail.is_empty() {
            match &mut inner.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return false;
        }
        std::mem::swap(&mut inner.mail, mail);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::thread::{self, Thread};
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn batch(revision: i64) -> Arc<Batch> {
        let event = mvcc::Event {
            tombstone: false,
            revision: mvcc::Revision { main: revision, sub: 0 },
            key: "k".into(),
            version: 1,
            create_revision: revision,
            lease: 0,
            record: "r".into(),
        };
        Arc::new(Batch::new(vec![event]).unwrap())
    }

    #[test]
    fn only_the_post_into_an_empty_mailbox_wakes() {
        let (mailbox, woken, mut mail) = (Mailbox::default(), Arc::new(Count::default()), Mail::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(!mailbox.take(&mut mail, &waker));
        mailbox.post_read(1, Ok(()));
        mailbox.post_read(2, Ok(()));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(mailbox.take(&mut mail, &waker));
        assert_eq!(mail.reads, [(1, Ok(())), (2, Ok(()))]);
        mail.reads.clear();
        // Who has not looked again since is awake, and will.
        mailbox.post_read(3, Ok(()));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(mailbox.take(&mut mail, &waker));
        mail.reads.clear();
        assert!(!mailbox.take(&mut mail, &waker));
        mailbox.post_answers(&mut Vec::new());
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "no answers are no mail");
        mailbox.post_stop();
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn too_many_events_become_a_note_of_how_far_they_went() {
        let (mailbox, mut mail) = (Mailbox::default(), Mail::default());
        mailbox.set_watched(true);
        let waker = Waker::noop();
        mailbox.post_events(&batch(2), MAX_WAITING_BYTES);
        mailbox.post_events(&batch(3), 1);
        mailbox.post_events(&batch(4), 1);
        assert!(mailbox.take(&mut mail, waker));
        assert_eq!((mail.events.len(), mail.skipped_to), (0, Some(4)), "a gap must not be handed over");
        mail = Mail::default();
        mailbox.post_events(&batch(5), 1);
        assert!(mailbox.take(&mut mail, waker));
        assert_eq!((mail.events.len(), mail.skipped_to), (1, None), "there is room again");
    }

    #[test]
    fn a_shard_without_streams_is_not_woken_for_events() {
        let (mailbox, woken, mut mail) = (Mailbox::default(), Arc::new(Count::default()), Mail::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert!(!mailbox.take(&mut mail, &waker));
        mailbox.post_events(&batch(2), 1);
        mailbox.post_events(&batch(3), 1);
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        mailbox.post_read(1, Ok(()));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "what it is not told of does not hide what it is");
        assert!(mailbox.take(&mut mail, &waker));
        assert_eq!((mail.events.len(), mail.skipped_to), (0, None));
        mail = Mail::default();
        mailbox.set_watched(true);
        mailbox.post_events(&batch(4), 1);
        assert!(mailbox.take(&mut mail, &waker));
        assert_eq!((mail.events.len(), mail.skipped_to), (0, Some(4)), "a gap must not be handed over");
        mail = Mail::default();
        mailbox.post_events(&batch(5), 1);
        mailbox.set_watched(false);
        mailbox.post_events(&batch(6), 1);
        mailbox.set_watched(true);
        assert!(mailbox.take(&mut mail, &waker));
        assert_eq!((mail.events.len(), mail.skipped_to), (0, Some(6)));
        mail = Mail::default();
        mailbox.post_events(&batch(7), 1);
        assert!(mailbox.take(&mut mail, &waker));
        assert_eq!((mail.events.len(), mail.skipped_to), (1, None));
    }

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Whoever sleeps after it found nothing is woken by what comes next, whatever the timing.
    #[test]
    fn no_post_is_lost_between_a_look_and_sleep() {
        const POSTERS: u64 = 4;
        const POSTS: u64 = 20_000;
        const PATIENCE: Duration = Duration::from_secs(20);
        let mailbox = Mailbox::default();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut last = [0; POSTERS as usize];
        thread::scope(|scope| {
            for poster in 0..POSTERS {
                let mailbox = &mailbox;
                scope.spawn(move || {
                    for number in 1..=POSTS {
                        mailbox.post_read(number << 8 | poster, Ok(()));
                    }
                });
            }
            let mut mail = Mail::default();
            while last.iter().sum::<u64>() < POSTERS * POSTS {
                if !mailbox.take(&mut mail, &waker) {
                    let slept = Instant::now();
                    thread::park_timeout(PATIENCE);
                    assert!(slept.elapsed() < PATIENCE, "nobody woke the reader after {last:?}");
                    continue;
                }
                for (id, _) in mail.reads.drain(..) {
                    let last = &mut last[(id & 0xff) as usize];
                    assert_eq!(*last + 1, id >> 8, "posts of one thread stay in order");
                    *last = id >> 8;
                }
            }
        });
    }
}
