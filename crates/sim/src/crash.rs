//! From a record of calls to the disks that a crash can leave.
//!
//! A [`Shadow`] walks through a record and keeps apart what is durable and what is under way: single
//! sectors, sizes and names, each of which a crash may have let through or not, whatever became of
//! the others. A sector that was written twice may be in any of its states. That is more than most
//! file systems do to their users, and nothing that POSIX forbids.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, Inode, Op, PAGE, Page, Pages, SECTOR};
use crate::random::Random;

/// What is on a disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub(crate) names: BTreeMap<PathBuf, Inode>,
    pub(crate) files: BTreeMap<Inode, Pages>,
}

/// Something that a crash lets through or not.
#[derive(Clone, Debug)]
enum Unit {
    Sector { inode: Inode, sector: u64, page: Arc<Page> },
    Len { inode: Inode, len: u64 },
    Create { path: PathBuf, inode: Inode },
    Rename { from: PathBuf, to: PathBuf, inode: Inode },
    Remove { path: PathBuf },
}

impl Unit {
    fn is_of(&self, file: Inode) -> bool {
        matches!(self, Unit::Sector { inode, .. } | Unit::Len { inode, .. } if *inode == file)
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Unit::Create { path, .. } | Unit::Remove { path } | Unit::Rename { to: path, .. } => {
                path.parent() == Some(dir)
            }
            Unit::Sector { .. } | Unit::Len { .. } => false,
        }
    }

    /// Whether it says of the same place what an earlier one said.
    fn supersedes(&self, earlier: &Unit) -> bool {
        match (self, earlier) {
            (Unit::Sector { inode, sector, .. }, Unit::Sector { inode: other, sector: at, .. }) => {
                (inode, sector) == (other, at)
            }
            (Unit::Len { inode, .. }, Unit::Len { inode: other, .. }) => inode == other,
            _ => false,
        }
    }

    fn land(&self, image: &mut Image) {
        match self {
            Unit::Sector { inode, sector, page } => {
                if let Some(file) = image.files.get_mut(inode) {
                    file.set_sector(*sector, page);
                }
            }
            Unit::Len { inode, len } => {
                if let Some(file) = image.files.get_mut(inode) {
                    file.set_len(*len);
                }
            }
            Unit::Create { path, inode } => drop(image.names.insert(path.clone(), *inode)),
            Unit::Rename { from, to, inode } => {
                if image.names.get(from) == Some(inode) {
                    image.names.remove(from);
                }
                image.names.insert(to.clone(), *inode);
            }
            Unit::Remove { path } => drop(image.names.remove(path)),
        }
    }
}

/// The disk as it is behind the page cache, at some point of a record.
#[derive(Clone, Debug)]
pub struct Shadow {
    record: Arc<Vec<Op>>,
    at: usize,
    durable: Image,
    pending: Vec<Pending>,
    acknowledged: u64,
}

#[derive(Clone, Debug)]
struct Pending {
    unit: Unit,
    /// A sync of it failed: the page cache believes it clean, so no later sync writes it.
    forsaken: bool,
}

impl Shadow {
    /// Stands before the first call of the record that `disk` has made since it held `start`.
    pub fn new(start: &Image, disk: &Disk) -> Shadow {
        let record = Arc::new(disk.record());
        Shadow { record, at: 0, durable: start.clone(), pending: Vec::new(), acknowledged: 0 }
    }

    /// The last index that a client had been told of by now, 0 if none.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How many calls it has passed; [`Disk::position`] says how many there are.
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many things a crash could now let through or not.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Moves behind the next call. `false` at the end of the record.
    pub fn advance(&mut self) -> bool {
        let record = self.record.clone();
        let Some(op) = record.get(self.at) else { return false };
        self.at += 1;
        match op {
            Op::Write { inode, first, last, page, pages } => {
                // A size that a failed sync gave up comes again with the data that needs it.
                let size = |pending: &&Pending| match &pending.unit {
                    Unit::Len { inode: other, .. } => pending.forsaken && other == inode,
                    _ => false,
                };
                if let Some(unit) = self.pending.iter().filter(size).map(|p| p.unit.clone()).next_back() {
                    self.push(unit);
                }
                for sector in *first..*last {
                    let number = sector * SECTOR as u64 / PAGE as u64 - page;
                    let page = pages[number as usize].clone();
                    self.push(Unit::Sector { inode: *inode, sector, page });
                }
            }
            Op::Len { inode, len } => self.push(Unit::Len { inode: *inode, len: *len }),
            Op::Sync { inode } => self.land(|unit| unit.is_of(*inode)),
            Op::FailedSync { inode } => {
                let of_file = self.pending.iter_mut().filter(|pending| pending.unit.is_of(*inode));
                of_file.for_each(|pending| pending.forsaken = true);
            }
            Op::Create { path, inode } => {
                // The file is there; whether anything can be found under its name is another matter.
                self.durable.files.entry(*inode).or_default();
                self.push(Unit::Create { path: path.clone(), inode: *inode });
            }
            Op::Rename { from, to, inode } => {
                self.push(Unit::Rename { from: from.clone(), to: to.clone(), inode: *inode });
            }
            Op::Remove { path } => self.push(Unit::Remove { path: path.clone() }),
            Op::SyncDir { dir } => self.land(|unit| unit.is_in(dir)),
            Op::Acknowledged { index } => self.acknowledged = self.acknowledged.max(*index),
        }
        true
    }

    fn push(&mut self, unit: Unit) {
        self.pending.push(Pending { unit, forsaken: false });
    }

    fn land(&mut self, synced: impl Fn(&Unit) -> bool) {
        let mut left = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if pending.forsaken || !synced(&pending.unit) {
                left.push(pending);
                continue;
            }
            // What it supersedes can no more be on the disk, whatever became of its own sync.
            left.retain(|earlier| !pending.unit.supersedes(&earlier.unit));
            pending.unit.land(&mut self.durable);
        }
        self.pending = left;
    }

    /// The disk after a crash that lets those things through that `keep` says, by their number.
    pub fn image(&self, keep: impl Fn(usize) -> bool) -> Image {
        let mut image = self.durable.clone();
        for (number, pending) in self.pending.iter().enumerate() {
            if keep(number) {
                pending.unit.land(&mut image);
            }
        }
        image
    }

    /// Some disks that a crash here can leave, at most `limit` of them: nothing let through, everything, a
    /// prefix, a suffix, everything but one, one alone, and subsets by lot.
    pub fn images(&self, limit: usize, random: &mut Random) -> Vec<Image> {
        let n = self.pending.len();
        let mut images = vec![self.image(|_| false)];
        if n > 0 {
            images.push(self.image(|_| true));
        }
        let mut kinds = (0..5).cycle();
        // Below four, these are all subsets there are, and some twice.
        let enough = limit.min(if n < 4 { 1 << n } else { limit });
        while images.len() < enough && n > 1 {
            let one = random.below(n as u64) as usize;
            images.push(match kinds.next() {
                Some(0) => self.image(|i| i != one),
                Some(1) => self.image(|i| i == one),
                Some(2) => self.image(|i| i < one),
                Some(3) => self.image(|i| i >= one),
                _ => {
                    let salt = random.next_u64();
                    self.image(|i| Random::new(salt ^ i as u64).one_in(2))
                }
            });
        }
        images
    }

    /// Every disk with exactly one thing let through or exactly one lost.
    pub fn single_images(&self) -> impl Iterator<Item = Image> + '_ {
        (0..self.pending.len()).flat_map(|one| [self.image(move |i| i != one), self.image(move |i| i == one)])
    }
}
