//! Directories that are built under another name, and have their own when they are whole.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use wal::{Disk as _, Guard, RealDisk};

use crate::error::Error;

/// What names of directories under construction end with.
const BUILDING: &str = ".restoring";

/// A directory under construction. Dropped before it has its name, it is removed.
pub(crate) struct Staging {
    path: PathBuf,
    keep: bool,
    _lock: Box<dyn Guard>,
}

impl Staging {
    /// Begins a directory that is to be at `target`: beside it, on the same file system. What an earlier
    /// try has left there is removed.
    pub(crate) fn beside(target: &Path) -> Result<Staging, Error> {
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(BUILDING);
        Staging::at(target.with_file_name(name))
    }

    /// Begins one that is to be within `dir`.
    pub(crate) fn within(dir: &Path) -> Result<Staging, Error> {
        Staging::at(dir.join(BUILDING))
    }

    fn at(path: PathBuf) -> Result<Staging, Error> {
        make_dir(&path)?;
        let lock = RealDisk.lock(&path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::InUse(path.clone()),
            _ => Error::Io("lock", path.clone(), error),
        })?;
        for entry in fs::read_dir(&path).map_err(Error::io("open", &path))? {
            let entry = entry.map_err(Error::io("open", &path))?.path();
            let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
            removed.map_err(Error::io("unlink", &entry))?;
        }
        Ok(Staging { path, keep: false, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the directory, or the one in it that is called `part`, its name; durably.
    pub(crate) fn publish(mut self, part: Option<&str>, target: &Path) -> Result<(), Error> {
        match part {
            Some(part) => rename(&self.path.join(part), target),
            None => rename(&self.path, target).inspect(|()| self.keep = true),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            // What stays is removed by the next try.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A name that is taken away again unless what goes with it comes about.
pub(crate) struct Unless<'a>(Option<&'a Path>);

impl<'a> Unless<'a> {
    pub(crate) fn new(path: &'a Path) -> Self {
        Unless(Some(path))
    }

    /// What goes with it has come about.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unless<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Whether a restored member may be put at `dir`: there is nothing, or an empty directory.
pub(crate) fn is_free(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        // What an earlier try has left there is no obstacle.
        Ok(mut entries) => entries.all(|entry| entry.is_ok_and(|e| e.file_name() == BUILDING)),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Makes a directory that only the owner may look into, and those above it that are missing.
pub(crate) fn make_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("mkdir", dir))
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::io("rename", from))?;
    let above = to.parent().filter(|above| !above.as_os_str().is_empty());
    sync_dir(above.unwrap_or(Path::new(".")))
}
