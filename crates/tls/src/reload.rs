//! What is read from files, for as long as they stay the same.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Error;

/// What changes when a file does: which one is there, how long it is, when it was written, and when it was
/// moved here or made readable.
type Stamp = (u64, u64, (i64, i64), (i64, i64));

type Read<T> = Box<dyn Fn() -> Result<T, Error> + Send + Sync>;

/// Something made of files. To ask for it costs a look at each of them, and no more unless one has changed.
pub(crate) struct Reloading<T> {
    files: Vec<PathBuf>,
    read: Read<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// The files when they were read last; none for one that could not be found.
    stamps: Option<Vec<Option<Stamp>>>,
    /// What was read last without a failure.
    good: Option<Arc<T>>,
    failure: Option<Arc<Error>>,
}

impl<T> Reloading<T> {
    /// Reads `files` with `read` when asked for what they hold.
    pub(crate) fn new(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, Error> + Send + Sync + 'static,
    ) -> Reloading<T> {
        let state = Mutex::new(State { stamps: None, good: None, failure: None });
        Reloading { files, read: Box::new(read), state }
    }

    /// What the files hold.
    ///
    /// # Errors
    /// They cannot be read now.
    pub(crate) fn now(&self) -> Result<Arc<T>, Arc<Error>> {
        let state = self.look();
        match (&state.failure, &state.good) {
            (None, Some(good)) => Ok(Arc::clone(good)),
            (Some(failure), _) => Err(Arc::clone(failure)),
            (None, None) => Err(Arc::new(Error::Settings("nothing was read".to_owned()))),
        }
    }

    /// What the files hold, or held the last time that they could be read: half of them may be renewed.
    ///
    /// # Errors
    /// They could never be read.
    pub(crate) fn now_or_before(&self) -> Result<Arc<T>, Arc<Error>> {
        let good = self.look().good.clone();
        good.map_or_else(|| self.now(), Ok)
    }

    fn look(&self) -> parking_lot::MutexGuard<'_, State<T>> {
        let mut state = self.state.lock();
        // Before the reading: what is written meanwhile is seen by the next one who asks.
        let stamps: Vec<Option<Stamp>> =
            self.files.iter().map(|file| file.metadata().ok().map(stamp)).collect();
        if state.stamps.as_ref() == Some(&stamps) {
            return state;
        }
        state.stamps = Some(stamps);
        match (self.read)() {
            Ok(value) => (state.good, state.failure) = (Some(Arc::new(value)), None),
            Err(error) => {
                let what = if state.good.is_some() {
                    "failed to re-read TLS files"
                } else {
                    "failed to read TLS files"
                };
                tracing::warn!(%error, "{what}");
                state.failure = Some(Arc::new(error));
            }
        }
        state
    }
}

fn stamp(file: Metadata) -> Stamp {
    (file.ino(), file.size(), (file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn files_are_read_again_when_they_change_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let reads = Arc::new(AtomicUsize::new(0));
        let (path, count) = (file.clone(), Arc::clone(&reads));
        let text = Reloading::new(vec![file.clone()], move || {
            count.fetch_add(1, Ordering::Relaxed);
            fs::read_to_string(&path).map_err(|error| Error::file(&path, error))
        });
        assert!(text.now().is_err() && text.now_or_before().is_err());
        fs::write(&file, "one").unwrap();
        assert_eq!(*text.now().unwrap(), "one");
        let before = reads.load(Ordering::Relaxed);
        for _ in 0..10 {
            assert_eq!(*text.now().unwrap(), "one");
        }
        assert_eq!(reads.load(Ordering::Relaxed), before);
        // As certificates are renewed: a file of the same length is moved to its place.
        let new = dir.path().join("new");
        fs::write(&new, "two").unwrap();
        fs::rename(&new, &file).unwrap();
        assert_eq!(*text.now().unwrap(), "two");
        fs::remove_file(&file).unwrap();
        assert!(text.now().is_err(), "strictly: it is not there");
        assert_eq!(*text.now_or_before().unwrap(), "two");
        fs::write(&file, "three").unwrap();
        assert_eq!(*text.now().unwrap(), "three");
    }
}
