//! What the tests share: a disk in memory, a generator, and the naive twin.
#![allow(clippy::unwrap_used, dead_code)]

pub(crate) mod twin;

use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use backend::{Backend, Options, Seal, Storage, StorageBackend, TableOp};

/// A file in memory that survives the store on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Vec<u8>>>);

impl Disk {
    /// A disk with the same bytes, which go their own way from here.
    pub(crate) fn image(&self) -> Disk {
        Disk(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }

    pub(crate) fn open(&self) -> Backend {
        self.open_with(Options::default())
    }

    pub(crate) fn open_with(&self, options: Options) -> Backend {
        Backend::open(Storage::Custom(Box::new(self.clone())), options).unwrap()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let from = offset as usize;
        let found = bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = offset as usize;
        self.0.lock().unwrap()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// Ends an apply batch.
pub(crate) fn seal(backend: &Backend, index: u64, ops: Vec<TableOp>) {
    backend.seal(Seal { index, term: 1, ops, ..Seal::default() });
}

/// Numbers that differ from seed to seed and not from run to run.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
