//! The disk as the log sees it: a handful of calls, so that a false disk can stand in for the real one.
//!
//! Paths given to one [`Disk`] are the paths that come back from it; nothing else is assumed about them.
//! Every method of [`RealDisk`] is one or two system calls; no policy lives here.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Names in directories, and the files behind them.
///
/// An error of any method means that nothing may be assumed about what the call did; the log stops.
pub trait Disk: Send + Sync {
    /// The names in `dir`, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes `dir`; one that exists already is not an error. Its parent must exist.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a new empty file, open for reading and writing; `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name in the same directory. Durable only after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name. Durable only after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable as they are now.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Claims `dir` until the returned guard is dropped; `WouldBlock` if someone else holds it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Guard>>;
}

/// Held while a directory is claimed; dropping it lets go.
pub trait Guard: Send + Sync {}

impl Guard for File {}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// The size in bytes; what was allocated ahead counts.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, growing the file if needed. Durable only after [`DiskFile::sync_data`].
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable, and the size if it changed.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves `size` bytes that read as zeros, and makes the file that long.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Keeps a server that locks files and not the directory, as etcd does, away from this one;
    /// `WouldBlock` if it holds the file already. Lasts until the file is closed.
    fn claim(&self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Clone, Copy, Default)]
pub struct RealDisk;

impl fmt::Debug for RealDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RealDisk")
    }
}

/// Only the owner may read what clients stored.
const FILE_MODE: u32 = 0o600;

impl Disk for RealDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // A name that is not UTF-8 is not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            other => other,
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Guard>> {
        // The directory itself is locked, so that no lock file is needed: a full disk must not keep
        // a member from starting, and etcd would wonder about a name that it does not know.
        let handle = File::open(dir)?;
        match handle.try_lock() {
            Ok(()) => Ok(Box::new(handle)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, size)?)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        File::set_len(self, size)
    }

    fn claim(&self) -> io::Result<()> {
        // etcd holds a byte-range lock on each of its segments; a lock of that family meets it.
        match rustix::fs::fcntl_lock(self, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(e) => Err(e.into()),
        }
    }
}
