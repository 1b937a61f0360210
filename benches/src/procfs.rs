//! What the kernel knows about the server: CPU time, memory, blocks on disk.
//!
//! A [`Probe`] may know a process, a data directory, both or neither (a remote endpoint); what it
//! cannot know it answers with `None`, and the report leaves that cell empty.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Looks at one server from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probe {
    /// Process to read under `/proc`.
    pub(crate) pid: Option<u32>,
    /// Directory whose allocated blocks count as the server's disk use.
    pub(crate) data_dir: Option<PathBuf>,
}

impl Probe {
    /// User and system CPU seconds since the process started, all threads, to one clock tick.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        let ticks = cpu_ticks(&self.read("stat")?)?;
        Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Makes [`Probe::peak_rss`] start again from the present value.
    ///
    /// Where the kernel refuses, the peak simply stays the one since the start.
    pub(crate) fn reset_peak(&self) {
        if let Some(pid) = self.pid {
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// Highest resident set in bytes since the start or the last reset.
    pub(crate) fn peak_rss(&self) -> Option<u64> {
        status_bytes(&self.read("status")?, "VmHWM")
    }

    /// Resident set in bytes now.
    pub(crate) fn rss(&self) -> Option<u64> {
        status_bytes(&self.read("status")?, "VmRSS")
    }

    /// Allocated bytes of all files under the data directory.
    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        Some(allocated(self.data_dir.as_deref()?))
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid?)).ok()
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
        let probe = Probe { pid: Some(std::process::id()), data_dir: None };
        assert!(probe.cpu_seconds().is_some());
        let rss = probe.rss().unwrap();
        assert!(rss > 0);
        assert!(probe.peak_rss().unwrap() > 0);
        assert_eq!(probe.disk_bytes(), None);
    }

    #[test]
    fn disk_use_counts_blocks_of_nested_files_and_not_holes() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("member/wal");
        fs::create_dir_all(&nested).unwrap();
        let probe = Probe { pid: None, data_dir: Some(dir.path().to_path_buf()) };
        let empty = probe.disk_bytes().unwrap();
        fs::write(nested.join("segment"), vec![1_u8; 1 << 20]).unwrap();
        let hole = fs::File::create(nested.join("hole")).unwrap();
        hole.set_len(1 << 30).unwrap();
        fs::File::open(nested.join("segment")).unwrap().sync_all().unwrap();
        let used = probe.disk_bytes().unwrap() - empty;
        assert!((1 << 20..1 << 21).contains(&used), "{used}");
    }
}
