//! Reading at any place of a file, mostly forward.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// A file with a buffer that survives small jumps.
#[derive(Debug)]
pub(crate) struct Source<F> {
    file: BufReader<F>,
    /// Where the next read begins. `None` after a failure.
    at: Option<u64>,
    length: u64,
}

impl<F: Read + Seek> Source<F> {
    pub(crate) fn new(mut file: F) -> io::Result<Source<F>> {
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Source { file: BufReader::with_capacity(64 * 1024, file), at: None, length })
    }

    /// Bytes of the file when it was opened.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `bytes` with what lies at `at`.
    pub(crate) fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self.at.take() {
            Some(now) => self.file.seek_relative(at.wrapping_sub(now).cast_signed())?,
            None => drop(self.file.seek(SeekFrom::Start(at))?),
        }
        self.file.read_exact(bytes)?;
        self.at = Some(at + bytes.len() as u64);
        Ok(())
    }

    /// Replaces what `bytes` holds with the `length` bytes at `at`, which the caller knows to lie
    /// within the file.
    pub(crate) fn read_to(&mut self, at: u64, length: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        assert!(length as u64 <= self.length, "{length} bytes from a file of {}", self.length);
        bytes.resize(length, 0);
        self.read_at(at, bytes)
    }

    pub(crate) fn into_inner(self) -> F {
        self.file.into_inner()
    }
}
