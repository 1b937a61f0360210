//! Whether the store may still be trusted.
//!
//! After one failed call to the disk nobody knows what it holds: a second fsync may succeed over
//! pages that the first one lost. So the first failure is kept, every later call answers with it,
//! and only a new process, which reads back what is really there, gets further.

use crate::error::Error;
use std::sync::OnceLock;

#[derive(Default)]
pub(crate) struct Health {
    failure: OnceLock<Error>,
}

impl Health {
    /// Fails if any call failed before.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.failure.get() {
            None => Ok(()),
            Some(failure) => Err(Error::Poisoned(failure.to_string())),
        }
    }

    /// Records a failure; the first one stays.
    pub(crate) fn fail(&self, error: Error) -> Error {
        let _ = self.failure.set(error.clone());
        error
    }

    /// Makes one call to the disk, unless one failed before, and remembers if it fails.
    pub(crate) fn guard<T>(&self, call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.check()?;
        call().map_err(|error| self.fail(error))
    }
}
