//! What the kernel knows about the server: CPU time, memory, blocks on disk.
//!
//! A [`Probe`] may know processes, data directories, both or neither (a remote endpoint); what it
//! cannot know it answers with `None`, and the report leaves that cell empty. Of several members it
//! tells the sum.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Looks at one server from outside, or at all members of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probe {
    /// Processes to read under `/proc`.
    pub(crate) pids: Vec<u32>,
    /// Directories whose allocated blocks count as the server's disk use.
    pub(crate) data_dirs: Vec<PathBuf>,
}

impl Probe {
    /// User and system CPU seconds since the process started, all threads, to one clock tick.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        let ticks = self.sum("stat", cpu_ticks)?;
        Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Makes [`Probe::peak_rss`] start again from the present value.
    ///
    /// Where the kernel refuses, the peak simply stays the one since the start.
    pub(crate) fn reset_peak(&self) {
        for pid in &self.pids {
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// Highest resident set in bytes since the start or the last reset.
    pub(crate) fn peak_rss(&self) -> Option<u64> {
        self.sum("status", |status| status_bytes(status, "VmHWM"))
    }

    /// Resident set in bytes now.
    pub(crate) fn rss(&self) -> Option<u64> {
        self.sum("status", |status| status_bytes(status, "VmRSS"))
    }

    /// Allocated bytes of all files under the data directory.
    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        (!self.data_dirs.is_empty()).then(|| self.data_dirs.iter().map(|dir| allocated(dir)).sum())
    }

    /// The sum over all processes; nothing if one of them cannot tell.
    fn sum(&self, file: &str, figure: impl Fn(&str) -> Option<u64>) -> Option<u64> {
        let read = |pid: &u32| figure(&fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?);
        let figures: Option<Vec<u64>> = self.pids.iter().map(read).collect();
        figures.filter(|figures| !figures.is_empty()).map(|figures| figures.into_iter().sum())
    }
}

/// utime + stime of a `/proc/<pid>/stat` line, in clock ticks.
///
/// The command name may itself hold spaces and parentheses, so fields are counted from the last
/// closing one: utime and stime are then the 12th and 13th.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A `Name:   123 kB` line of `/proc/<pid>/status`, in bytes.
fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Blocks, not lengths: a preallocated segment counts, a hole does not. A file that goes while we
/// look (a rotated segment) counts nothing.
fn allocated(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let own = meta.blocks() * 512;
    if !meta.is_dir() {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else { return own };
    own + entries.flatten().map(|entry| allocated(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "4711 (odd) (name) S 1 4711 4711 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 9 0 1";
        assert_eq!(cpu_ticks(stat), Some(325));
        assert_eq!(cpu_ticks("4711 (short) S 1 2"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn status_lines_are_matched_whole() {
        let status = "Name:\tetcd\nVmHWMx:\t 9 kB\nVmHWM:\t   1024 kB\nVmRSS:\t     10 kB\n";
        assert_eq!(status_bytes(status, "VmHWM"), Some(1 << 20));
        assert_eq!(status_bytes(status, "VmRSS"), Some(10240));
        assert_eq!(status_bytes(status, "VmSwap"), None);
    }

    #[test]
    fn this_process_has_a_resident_set_and_a_peak_not_below_it() {
        let probe = Probe { pids: vec![std::process::id()], data_dirs: Vec::new() };
        assert!(probe.cpu_seconds().is_some());
        let rss = probe.rss().unwrap();
        assert!(rss > 0);
        assert!(probe.peak_rss().unwrap() > 0);
        assert_eq!(probe.disk_bytes(), None);
        let twice = Probe { pids: [probe.pids.clone(), probe.pids].concat(), data_dirs: Vec::new() };
        assert!(twice.rss().unwrap() > rss + rss / 2);
    }

    #[test]
    fn what_one_member_cannot_tell_nobody_adds_up() {
        let probe = Probe { pids: vec![std::process::id(), u32::MAX], data_dirs: Vec::new() };
        assert_eq!(probe.cpu_seconds(), None);
        assert_eq!(Probe::default().rss(), None);
    }

    #[test]
    fn disk_use_counts_blocks_of_nested_files_and_not_holes() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("member/wal");
        fs::create_dir_all(&nested).unwrap();
        let probe = Probe { pids: Vec::new(), data_dirs: vec![dir.path().to_path_buf()] };
        let empty = probe.disk_bytes().unwrap();
        fs::write(nested.join("segment"), vec![1_u8; 1 << 20]).unwrap();
        let hole = fs::File::create(nested.join("hole")).unwrap();
        hole.set_len(1 << 30).unwrap();
        fs::File::open(nested.join("segment")).unwrap().sync_all().unwrap();
        let used = probe.disk_bytes().unwrap() - empty;
        assert!((1 << 20..1 << 21).contains(&used), "{used}");
    }
}
