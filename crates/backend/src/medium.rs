//! What redb writes to: a file or the simulator's disk, with its length kept at hand.
//!
//! `size` is asked on every request that answers with it, so the length is an atomic that follows
//! `set_len` instead of a system call.

use crate::ease::{STEP, at_ease};
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Medium {
    inner: Box<dyn StorageBackend>,
    length: Arc<AtomicU64>,
    /// Whether it is written at ease: synced step by step.
    at_ease: Arc<AtomicBool>,
    unsynced: AtomicUsize,
}

impl Medium {
    pub(crate) fn new(inner: Box<dyn StorageBackend>) -> io::Result<Medium> {
        let length = Arc::new(AtomicU64::new(inner.len()?));
        let (at_ease, unsynced) = Default::default();
        Ok(Medium { inner, length, at_ease, unsynced })
    }

    /// Whether it is written at ease, for whoever knows when: not once others wait for it.
    pub(crate) fn at_ease(&self) -> Arc<AtomicBool> {
        self.at_ease.clone()
    }

    /// The length in bytes, shared with whoever wants to follow it.
    pub(crate) fn length(&self) -> Arc<AtomicU64> {
        self.length.clone()
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)?;
        self.length.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)?;
        if self.at_ease.load(Ordering::Relaxed)
            && self.unsynced.fetch_add(data.len(), Ordering::Relaxed) + data.len() >= STEP
        {
            self.unsynced.store(0, Ordering::Relaxed);
            at_ease(|| self.inner.sync_data())?;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    // The locks are what tells a second process that the store is open: passed on, all of them.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
