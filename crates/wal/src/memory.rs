//! A disk in memory that forgets nothing: files are vectors, and tests may reach into them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::disk::{Disk, DiskFile, Guard};

type Contents = Arc<Mutex<Vec<u8>>>;

#[derive(Default)]
pub(crate) struct MemoryDisk {
    files: Mutex<BTreeMap<PathBuf, Contents>>,
    locked: Arc<AtomicBool>,
    scarce: Arc<AtomicBool>,
}

impl MemoryDisk {
    /// From now on there is room for what is written, and none to be reserved.
    #[cfg(test)]
    pub(crate) fn make_scarce(&self) {
        self.scarce.store(true, Ordering::SeqCst);
    }

    /// Names and contents, as they are.
    #[cfg(test)]
    pub(crate) fn image(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = self.files.lock().expect("no user of the disk panics while it holds it");
        files
            .iter()
            .map(|(path, data)| {
                (path.clone(), data.lock().expect("no user of the disk panics while it holds it").clone())
            })
            .collect()
    }

    /// A disk that holds `image`.
    pub(crate) fn from_image(image: &BTreeMap<PathBuf, Vec<u8>>) -> Arc<MemoryDisk> {
        let disk = MemoryDisk::default();
        let files = image.iter().map(|(path, data)| (path.clone(), Arc::new(Mutex::new(data.clone()))));
        *disk.files.lock().expect("no user of the disk panics while it holds it") = files.collect();
        Arc::new(disk)
    }
}

struct MemoryFile(Contents, Arc<AtomicBool>);

struct Claim(Arc<AtomicBool>);

impl Guard for Claim {}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Disk for MemoryDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.files.lock().expect("no user of the disk panics while it holds it");
        let inside = files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut files = self.files.lock().expect("no user of the disk panics while it holds it");
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let contents = Contents::default();
        files.insert(path.into(), contents.clone());
        Ok(Box::new(MemoryFile(contents, self.scarce.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let files = self.files.lock().expect("no user of the disk panics while it holds it");
        let contents = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile(contents.clone(), self.scarce.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock().expect("no user of the disk panics while it holds it");
        let contents = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.into(), contents);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files
            .lock()
            .expect("no user of the disk panics while it holds it")
            .remove(path)
            .map(|_| ())
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Guard>> {
        match self.locked.swap(true, Ordering::SeqCst) {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(Box::new(Claim(self.locked.clone()))),
        }
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("no user of the disk panics while it holds it").len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let data = self.0.lock().expect("no user of the disk panics while it holds it");
        let from = offset as usize;
        let bytes = data.get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut data = self.0.lock().expect("no user of the disk panics while it holds it");
        let to = offset as usize + buf.len();
        if data.len() < to {
            data.resize(to, 0);
        }
        data[offset as usize..to].copy_from_slice(buf);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut data = self.0.lock().expect("no user of the disk panics while it holds it");
        let size = data.len().max(size as usize);
        data.resize(size, 0);
        Ok(())
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.0.lock().expect("no user of the disk panics while it holds it").resize(size as usize, 0);
        Ok(())
    }

    fn claim(&self) -> io::Result<()> {
        Ok(())
    }
}
