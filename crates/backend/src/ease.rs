//! Large work on the disk that leaves others room.
//!
//! A disk that has a gibibyte to write, or to collect page by page, makes the log's small syncs wait for
//! their turn: a file system may even write all of it before a sync of something else returns. So such work
//! is done in steps, and after each step the disk is left to others for as long as that step took. Work
//! takes twice its time so, which nobody waits for but whoever asked for it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

/// Bytes of a step.
pub(crate) const STEP: usize = 1 << 20;

/// The longest rest after a step: a disk that is that slow is not for this work's sake.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Does a step of the work, and rests.
#[expect(clippy::disallowed_methods, reason = "a rest, and no waiting for anything")]
pub(crate) fn at_ease<T>(step: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let began = Instant::now();
    let done = step()?;
    std::thread::sleep(began.elapsed().min(LONGEST_REST));
    Ok(done)
}

/// Reads a file from its beginning to its end, so that the pages of it that are needed next, one by one
/// and in an order that the system cannot guess, need not each be fetched from the disk.
///
/// # Errors
/// Those of the file. They say nothing that whoever reads it for good would not find out.
pub(crate) fn read_ahead(mut file: File) -> io::Result<()> {
    let mut buffer = vec![0; STEP];
    while at_ease(|| file.read(&mut buffer))? > 0 {}
    Ok(())
}

/// A file that is written at ease: what has been written to it is synced step by step, all but the last
/// one.
#[derive(Debug)]
pub struct AtEase {
    file: File,
    unsynced: usize,
}

impl AtEase {
    /// For a file that nobody needs in a hurry.
    pub fn new(file: File) -> AtEase {
        AtEase { file, unsynced: 0 }
    }
}

impl Write for AtEase {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= STEP {
            self.unsynced = 0;
            at_ease(|| self.file.sync_data())?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for AtEase {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_written_at_ease_is_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let bytes: Vec<u8> = (0..2 * STEP + 100).map(|place| (place % 251) as u8).collect();
        let mut file = AtEase::new(File::create(&path).unwrap());
        for piece in bytes.chunks(100_000) {
            file.write_all(piece).unwrap();
        }
        file.seek(SeekFrom::Start(3)).unwrap();
        file.write_all(b"again").unwrap();
        drop(file);
        let mut expected = bytes;
        expected[3..8].copy_from_slice(b"again");
        assert!(std::fs::read(&path).unwrap() == expected);
        read_ahead(File::open(&path).unwrap()).unwrap();
    }

    #[test]
    fn a_step_that_fails_is_not_rested_after() {
        let failed = at_ease(|| Err::<(), _>(io::Error::other("no space")));
        assert_eq!(failed.unwrap_err().to_string(), "no space");
    }
}
