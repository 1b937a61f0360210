//! The rows of the table: what each does to a server, and what is asked of it.

mod bulk;
mod kv;
mod lease;
mod members;
mod pause;
mod upkeep;
mod watch;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::etcdserverpb::RangeRequest;

use crate::client::{Connection, converse};
use crate::engine::{Plan, Run};
use crate::keys;
use crate::load::Load;
use crate::metric::{Bound, Metric, Sample, Target};
use crate::process::Server;
use crate::procfs::Probe;

/// Bytes of a value unless a row says otherwise.
const VALUE: usize = 256;
/// Connections under the big crowds.
const CONNECTIONS: usize = 50;

/// One line of the table.
pub(crate) struct Row {
    /// Name for `--rows`.
    pub(crate) name: &'static str,
    /// What it does, for people.
    pub(crate) title: &'static str,
    /// It kills, wipes or measures from the start: not for a server that runs already.
    pub(crate) starts_server: bool,
    /// Its targets are meant for the full size, so that a quick run cannot judge it.
    pub(crate) sized: bool,
    /// The bare service can answer it.
    pub(crate) bare: bool,
    /// For how many members it is.
    pub(crate) members: Members,
    /// What is asked of it.
    pub(crate) targets: &'static [Target],
    /// Does it once.
    pub(crate) run: fn(&mut Subject<'_>, &Settings) -> Result<Sample>,
}

/// For how many members a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Members {
    /// One or more.
    Any,
    /// One: it is about a restart, or about the memory of one process.
    One,
    /// Several.
    Several,
}

impl Members {
    /// Whether so many will do.
    pub(crate) fn include(self, members: usize) -> bool {
        match self {
            Members::Any => true,
            Members::One => members == 1,
            Members::Several => members > 1,
        }
    }
}

/// How long and how big.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Driver threads.
    pub(crate) threads: usize,
    /// Load before each window.
    pub(crate) warmup: Duration,
    /// Length of each window.
    pub(crate) window: Duration,
    /// Tenth of the keys in the big rows.
    pub(crate) reduced: bool,
    /// Members of each system that is started here.
    pub(crate) members: usize,
}

impl Settings {
    /// A number of keys, a tenth of it when reduced.
    fn sized(&self, full: u64) -> u64 {
        if self.reduced { full / 10 } else { full }
    }
}

/// The server under test.
pub(crate) struct Subject<'a> {
    /// Where it serves; of several members, the leader first.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What can be seen from outside.
    pub(crate) probe: Probe,
    /// It, if the driver started it.
    pub(crate) server: Option<&'a mut Server>,
}

impl Subject<'_> {
    fn plan(&self, settings: &Settings) -> Plan {
        let (threads, warmup) = (settings.threads, settings.warmup);
        Plan { addresses: self.addresses.clone(), threads, warmup, run: Run::For(settings.window) }
    }

    /// The only member's address, or the leader's.
    fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Writes numbered keys as [`keys::fill`] does, and waits until every member has them.
    fn fill(&self, prefix: &str, numbers: Range<u64>, length: usize) -> Result<i64> {
        let revision = keys::fill(self.address(), prefix, numbers, length)?;
        for address in &self.addresses {
            converse(async {
                let mut kv = Connection::open(*address).await?.kv();
                let key = keys::key(prefix, 0);
                Ok(kv.range(RangeRequest { key, ..Default::default() }).await?)
            })?;
        }
        Ok(revision)
    }

    fn own_server(&mut self) -> Result<&mut Server> {
        self.server.as_deref_mut().context("this row needs a server that the driver starts itself")
    }

    /// The common figures of a load that has just ended.
    fn sample(&self, load: &Load) -> Result<Sample> {
        ensure!(load.operations > 0, "nothing was answered within the window");
        let mut sample = Sample::default();
        let operations = load.operations as f64;
        sample.set(Metric::Throughput, operations / load.usage.seconds);
        sample.set_latencies(&load.latencies);
        sample.set(Metric::Cpu, load.usage.cpu);
        let per_cpu = load.usage.cpu.filter(|cpu| *cpu > 0.0).map(|cpu| operations / cpu);
        sample.set(Metric::PerCpu, per_cpu);
        sample.set(Metric::PeakRss, self.probe.peak_rss().map(|bytes| bytes as f64));
        sample.set(Metric::Disk, self.probe.disk_bytes().map(|bytes| bytes as f64));
        Ok(sample)
    }
}

const fn per_cpu(times: f64) -> Target {
    Target { metric: Metric::PerCpu, bound: Bound::TimesAtLeast(times) }
}

const P99: Target = Target { metric: Metric::P99, bound: Bound::TimesAtMost(1.0) };

const PLAIN: Row = Row {
    name: "",
    title: "",
    starts_server: false,
    sized: false,
    bare: false,
    members: Members::Any,
    targets: &[P99],
    run: |_, _| Ok(Sample(std::collections::BTreeMap::new())),
};

/// What is asked of every row with several members, unless it is about something else.
pub(crate) const OF_SEVERAL: &[Target] = &[per_cpu(2.0), P99];

/// What a load may lose when one follower does nothing.
const UNDISTURBED: Target = Target { metric: Metric::Slowdown, bound: Bound::AtMost(1.2) };

/// What puts may lose while an operator works on the database.
const HARDLY_SLOWER: Target = Target { metric: Metric::Slowdown, bound: Bound::AtMost(1.5) };

/// All rows, in the order of the table.
pub(crate) static ROWS: [Row; 27] = [
    Row { name: "put-1", title: "put, 1 client", run: kv::put_one, ..PLAIN },
    Row {
        name: "put-1000",
        title: "put, 1,000 clients on 50 connections",
        bare: true,
        targets: &[per_cpu(2.0), P99],
        run: kv::put_many,
        ..PLAIN
    },
    Row {
        name: "put-rate",
        title: "put, 5,000/s offered (of several members 1,000/s)",
        run: kv::put_rate,
        ..PLAIN
    },
    Row {
        name: "get-1",
        title: "linearizable get, 1 client",
        targets: &[per_cpu(1.6), P99],
        run: kv::get_one,
        ..PLAIN
    },
    Row {
        name: "get-1000",
        title: "linearizable get, 1,000 clients",
        targets: &[per_cpu(1.6), P99],
        run: kv::get_many,
        ..PLAIN
    },
    Row {
        name: "get-serializable-1000",
        title: "serializable get, 1,000 clients",
        bare: true,
        targets: &[per_cpu(1.6), P99],
        run: kv::get_serializable,
        ..PLAIN
    },
    Row {
        name: "pages",
        title: "500-key pages of 100,000 keys, 50 clients",
        targets: &[per_cpu(1.6), P99],
        run: kv::pages,
        ..PLAIN
    },
    Row {
        name: "txn-1000",
        title: "compare-and-put, 1,000 clients",
        targets: &[per_cpu(2.0), P99],
        run: kv::compare_and_put,
        ..PLAIN
    },
    Row {
        name: "mix-1000",
        title: "90 gets to 10 puts, 1,000 clients",
        targets: &[per_cpu(1.6), P99],
        run: kv::mix,
        ..PLAIN
    },
    Row {
        name: "grant-1000",
        title: "lease grant, 1,000 clients",
        targets: &[per_cpu(2.0), P99],
        run: lease::grant,
        ..PLAIN
    },
    Row {
        name: "keepalive-1000",
        title: "lease keep-alive, 1,000 leases and streams",
        run: lease::keep_alive,
        ..PLAIN
    },
    Row {
        name: "watch-one-key",
        title: "events to 1,000 watchers of one key, 50 streams",
        targets: &[per_cpu(3.0), P99],
        run: watch::one_key,
        ..PLAIN
    },
    Row {
        name: "watch-many-keys",
        title: "events to 100 watchers of 10,000 keys, 50 streams",
        targets: &[per_cpu(3.0), P99],
        run: watch::many_keys,
        ..PLAIN
    },
    Row {
        name: "watch-rate",
        title: "events to 1,000 watchers of one key, 50 puts/s offered",
        targets: &[per_cpu(3.0), P99],
        run: watch::rate,
        ..PLAIN
    },
    Row {
        name: "load",
        members: Members::One,
        title: "1,000,000 keys put by 1,000 clients, then kill -9 and restart",
        sized: true,
        targets: &[
            P99,
            Target { metric: Metric::PeakRss, bound: Bound::TimesAtMost(0.5) },
            Target { metric: Metric::Restart, bound: Bound::AtMost(1.0) },
        ],
        run: bulk::load,
        ..PLAIN
    },
    Row {
        name: "compaction",
        title: "put, 5,000/s offered, while 500,000 versions are compacted",
        sized: true,
        targets: &[Target { metric: Metric::Slowdown, bound: Bound::AtMost(1.2) }],
        run: pause::compaction,
        ..PLAIN
    },
    Row {
        name: "list",
        members: Members::One,
        title: "one list of 50,000 keys of 1 KiB",
        sized: true,
        targets: &[Target { metric: Metric::ListGrowth, bound: Bound::AtMost(128e6) }],
        run: bulk::list,
        ..PLAIN
    },
    Row {
        name: "list-put",
        title: "put, 5,000/s offered, beside lists of 50,000 keys",
        sized: true,
        run: pause::lists,
        ..PLAIN
    },
    Row {
        name: "put-snapshot",
        title: "put, 1,000/s offered, while a snapshot of 1 GiB is saved",
        sized: true,
        targets: &[HARDLY_SLOWER],
        run: upkeep::snapshot,
        ..PLAIN
    },
    Row {
        name: "put-defragment",
        title: "put, 1,000/s offered, while 1 GiB is defragmented",
        sized: true,
        targets: &[HARDLY_SLOWER],
        run: upkeep::defragment,
        ..PLAIN
    },
    Row {
        name: "put-compact",
        title: "put, 1,000/s offered, while half of 1 GiB is compacted",
        sized: true,
        targets: &[HARDLY_SLOWER],
        run: upkeep::compaction,
        ..PLAIN
    },
    Row {
        name: "put-hashkv",
        title: "put, 1,000/s offered, while 1 GiB is hashed",
        sized: true,
        targets: &[HARDLY_SLOWER],
        run: upkeep::hash_kv,
        ..PLAIN
    },
    Row {
        name: "first-put",
        members: Members::One,
        title: "empty directory to first put",
        starts_server: true,
        targets: &[Target { metric: Metric::FirstPut, bound: Bound::AtMost(0.1) }],
        run: bulk::first_put,
        ..PLAIN
    },
    Row {
        name: "put-1-follower",
        title: "put, 1 client of a follower",
        members: Members::Several,
        run: members::put_one,
        ..PLAIN
    },
    Row {
        name: "get-1-follower",
        title: "linearizable get, 1 client of a follower",
        members: Members::Several,
        run: members::get_one,
        ..PLAIN
    },
    Row {
        name: "slow-follower-1000",
        title: "put, 1,000 clients, and then the same with one follower paused",
        members: Members::Several,
        targets: &[Target { metric: Metric::SpeedRatio, bound: Bound::AtLeast(0.9) }],
        run: members::put_many,
        ..PLAIN
    },
    Row {
        name: "slow-follower-rate",
        title: "put, 1,000/s offered, and then the same with one follower paused",
        members: Members::Several,
        targets: &[UNDISTURBED],
        run: members::put_rate,
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Runs a row against the bare service in this process.
    fn run(name: &str) -> Result<Sample> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || crate::bare::serve_on(&listener, 2));
        let (warmup, window) = (Duration::from_millis(20), Duration::from_millis(300));
        let settings = Settings { threads: 2, warmup, window, reduced: true, members: 1 };
        let row = ROWS.iter().find(|row| row.name == name).unwrap();
        (row.run)(&mut Subject { addresses: vec![address], probe: Probe::default(), server: None }, &settings)
    }

    #[test]
    fn closed_and_open_loops_measure_the_bare_service() {
        for name in ["put-1", "get-1", "put-rate"] {
            let sample = run(name).unwrap();
            assert!(sample.get(Metric::Throughput).unwrap() > 0.0, "{name}");
            assert!(sample.get(Metric::P50).unwrap() <= sample.get(Metric::P99).unwrap(), "{name}");
            assert_eq!(sample.get(Metric::PerCpu), None, "{name}: nobody told the process");
        }
    }

    #[test]
    fn an_open_loop_offers_its_rate_and_no_more() {
        let offered = run("put-rate").unwrap().get(Metric::Throughput).unwrap();
        assert!((4980.0..5020.0).contains(&offered), "{offered}");
    }

    #[test]
    fn a_row_with_failing_or_wrong_answers_is_an_error() {
        let error = |name| run(name).unwrap_err().to_string();
        assert!(error("grant-1000").contains("not implemented"), "{}", error("grant-1000"));
        assert!(error("pages").contains("1 keys in an answer that should have 500"), "{}", error("pages"));
    }

    #[test]
    fn names_are_unique_and_every_row_has_a_target() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..at].iter().all(|other| other.name != row.name), "{}", row.name);
            assert!(!row.targets.is_empty() && !row.title.is_empty(), "{}", row.name);
            assert!(!row.name.contains(','), "{}", row.name);
        }
    }
}
