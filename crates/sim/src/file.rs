//! An open file of a false disk, as the log and the store see it.

use std::fmt::Debug;
use std::io;

/// What a false disk does when one of its files is called.
pub trait Handle: Debug + Send + Sync + 'static {
    /// Bytes in it.
    ///
    /// # Errors
    /// If the process is dead, or it is this call's turn to fail; so with all of these.
    fn size(&self) -> io::Result<u64>;

    /// Fills `out` with what lies at `offset`, all of which must be there.
    ///
    /// # Errors
    /// As above.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes at `offset`; the file grows if need be.
    ///
    /// # Errors
    /// As above, and if the disk is full.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts it off, or lets it grow with zeros.
    ///
    /// # Errors
    /// As above, and if the disk is full.
    fn set_size(&self, len: u64) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// As above.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
#[derive(Debug)]
pub struct File<H>(pub(crate) H);

impl<H: Handle> wal::DiskFile for File<H> {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read(offset, buf)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write(offset, buf)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        if size > self.0.size()? { self.0.set_size(size) } else { Ok(()) }
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.0.set_size(size)
    }

    fn claim(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<H: Handle> redb::StorageBackend for File<H> {
    fn len(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_size(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
