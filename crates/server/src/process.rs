//! Prometheus' standard numbers about the process, from `/proc`; absent where there is none.

use std::fs;

/// Reports each number that the system gives: those that go up and down, and the one that only goes up.
pub(crate) fn report(report: &impl Fn(&str, &str, f64), counter: &impl Fn(&str, &str, f64)) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        counter("process_cpu_seconds_total", "User and system time.", stat.cpu_ticks as f64 / ticks);
        report("process_virtual_memory_bytes", "Virtual memory.", stat.virtual_bytes as f64);
        let resident = stat.resident_pages as f64 * rustix::param::page_size() as f64;
        report("process_resident_memory_bytes", "Resident memory.", resident);
        if let Some(boot) = boot_time() {
            report(
                "process_start_time_seconds",
                "When the process started.",
                boot + stat.start_ticks as f64 / ticks,
            );
        }
    }
    // Without a limit it is the highest number there is, as Go's client has it.
    let most = rustix::process::getrlimit(rustix::process::Resource::As).current.unwrap_or(u64::MAX);
    report("process_virtual_memory_max_bytes", "The most virtual memory that may be used.", most as f64);
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = open.count() as f64;
        report("process_open_fds", "Open file descriptors.", open);
        report("os_fd_used", "Open file descriptors.", open);
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        report("process_max_fds", "The most file descriptors that may be open.", limit as f64);
        report("os_fd_limit", "The most file descriptors that may be open.", limit as f64);
    }
}

struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// The fields after the command's name, which may itself hold blanks and parentheses.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(11)? + number(12)?,
            start_ticks: number(19)?,
            virtual_bytes: number(20)?,
            resident_pages: number(21)?,
        })
    }
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn a_command_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b) S 1 7 7 0 -1 4 100 0 0 0 30 12 0 0 20 0 9 0 555 8192 3 18446744073709551615";
        let stat = Stat::parse(line).expect("a well-formed line");
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (42, 555));
        assert_eq!((stat.virtual_bytes, stat.resident_pages), (8192, 3));
    }
}
