//! How far a long piece of work has come, for whoever looks on.

use std::io::{self, Read, Seek, SeekFrom};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The file's SHA-256 is being computed.
    Checking,
    /// The file is being read, page by page.
    Reading,
    /// What has been written is being opened as a member would.
    Opening,
}

/// Is told how far a phase has come: bytes done, and bytes in all.
pub type Tell<'a> = &'a mut dyn FnMut(Phase, u64, u64);

/// A file that tells how far it has been read.
pub(crate) struct Told<'a, 't, F> {
    file: F,
    phase: Phase,
    total: u64,
    at: u64,
    furthest: u64,
    tell: &'a mut Tell<'t>,
}

impl<'a, 't, F: Read + Seek> Told<'a, 't, F> {
    /// Of `file`, from its beginning.
    pub(crate) fn new(mut file: F, phase: Phase, tell: &'a mut Tell<'t>) -> io::Result<Self> {
        let total = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        tell(phase, 0, total);
        Ok(Told { file, phase, total, at: 0, furthest: 0, tell })
    }
}

impl<F: Read> Read for Told<'_, '_, F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(bytes)?;
        self.at += count as u64;
        if self.at > self.furthest {
            self.furthest = self.at;
            (self.tell)(self.phase, self.at, self.total);
        }
        Ok(count)
    }
}

impl<F: Seek> Seek for Told<'_, '_, F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}
