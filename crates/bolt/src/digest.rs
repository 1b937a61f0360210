//! The SHA-256 at the end of a stored snapshot.
//!
//! `etcdctl snapshot save` stores the database and behind it the SHA-256 of all its bytes. Pages are
//! powers of two, so a file whose length is 32 past a multiple of 512 has such an end, and one whose
//! length is a multiple of 512 has none. What members send each other has none.

use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// Bytes of the digest.
pub const LENGTH: usize = 32;

/// The digest of bytes that come one after the other.
#[derive(Clone, Debug, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Takes in the next ones.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    #[must_use]
    pub fn finish(self) -> [u8; LENGTH] {
        self.0.finalize().into()
    }
}

/// Whether a file of `length` bytes ends in a digest.
#[must_use]
pub fn is_present(length: u64) -> bool {
    length % 512 == LENGTH as u64
}

/// Checks the digest at the end of `file`, and says how many bytes the database before it has.
///
/// # Errors
/// [`Error::Digest`] if there is none, [`Error::Mismatch`] if it is not that of the bytes before it,
/// [`Error::Io`].
pub fn verify<F: Read + Seek>(file: &mut F) -> Result<u64, Error> {
    let length = file.seek(SeekFrom::End(0))?;
    if !is_present(length) {
        return Err(Error::Digest("no SHA-256 at its end: cut off, or not from `snapshot save`"));
    }
    let size = length - LENGTH as u64;
    let digest = of(file, size)?;
    let mut stored = [0; LENGTH];
    file.read_exact(&mut stored)?;
    if digest != stored {
        return Err(Error::Mismatch { stored, found: digest });
    }
    Ok(size)
}

/// Adds the digest of everything in `file` at its end.
///
/// # Errors
/// [`Error::Io`].
pub fn append<F: Read + Write + Seek>(file: &mut F) -> Result<[u8; LENGTH], Error> {
    let size = file.seek(SeekFrom::End(0))?;
    let digest = of(file, size)?;
    file.seek(SeekFrom::Start(size))?;
    file.write_all(&digest)?;
    Ok(digest)
}

/// The SHA-256 of the first `size` bytes, which are read in pieces. The file is left right behind them.
///
/// # Errors
/// [`Error::Io`], also if there are fewer.
pub fn of<F: Read + Seek>(file: &mut F, size: u64) -> Result<[u8; LENGTH], Error> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut rest = size;
    while rest > 0 {
        let piece = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..piece]).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "shorter than it was"),
            _ => error,
        })?;
        hash.update(&buffer[..piece]);
        rest -= piece as u64;
    }
    Ok(hash.finalize().into())
}
