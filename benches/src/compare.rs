//! Runs rows against systems, alternately, several rounds, and collects medians.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::metric::{Sample, Target, Verdict, median};
use crate::process::{Program, Server};
use crate::procfs::Probe;
use crate::rows::{Row, Settings, Subject};

/// Something that rows are run against.
#[derive(Clone, Debug)]
pub(crate) struct System {
    /// `etcd`, `cairn`, `bare` or `endpoint`: the line's name in the table.
    pub(crate) name: &'static str,
    /// Its `--version`, where it has one.
    pub(crate) version: Option<String>,
    /// Where it comes from.
    pub(crate) source: Source,
}

/// Started here, or running elsewhere.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Started afresh for every row and round.
    Start(Program),
    /// Left running, with whatever is in it.
    Running(SocketAddr, Probe),
}

/// The name under which Cairn is judged.
pub(crate) const CAIRN: &str = "cairn";
/// The name of what it is judged beside.
pub(crate) const ETCD: &str = "etcd";
/// The bare service's name.
pub(crate) const BARE: &str = "bare";

impl System {
    fn takes(&self, row: &Row) -> bool {
        let started = matches!(self.source, Source::Start(_));
        (self.name != BARE || row.bare) && (started || !row.starts_server)
    }

    fn run(&self, row: &Row, settings: &Settings) -> Result<Sample> {
        match &self.source {
            Source::Running(address, probe) => {
                let subject = &mut Subject { address: *address, probe: probe.clone(), server: None };
                (row.run)(subject, settings)
            }
            Source::Start(program) => {
                let mut server = Server::start(program)?;
                let (address, probe) = (server.address(), server.probe());
                (row.run)(&mut Subject { address, probe, server: Some(&mut server) }, settings)
            }
        }
    }
}

/// A row's outcome over all systems.
pub(crate) struct Outcome {
    /// The row.
    pub(crate) row: &'static Row,
    /// One for each system that took part, in the systems' order.
    pub(crate) results: Vec<SystemResult>,
    /// Whether the size was below the one that the targets mean.
    pub(crate) reduced: bool,
}

/// What one system did in one row.
pub(crate) struct SystemResult {
    /// The system's name.
    pub(crate) system: &'static str,
    /// Every round that succeeded.
    pub(crate) rounds: Vec<Sample>,
    /// Their medians.
    pub(crate) median: Sample,
    /// Why a round failed; such a row is not judged.
    pub(crate) failure: Option<String>,
}

/// One judged target.
pub(crate) struct Judged {
    /// The target.
    pub(crate) target: Target,
    /// etcd's median.
    pub(crate) etcd: Option<f64>,
    /// Cairn's median.
    pub(crate) cairn: Option<f64>,
    /// The verdict.
    pub(crate) verdict: Verdict,
}

impl Outcome {
    /// One system's result, if it took part.
    pub(crate) fn of(&self, system: &str) -> Option<&SystemResult> {
        self.results.iter().find(|result| result.system == system)
    }

    /// The row's targets, judged; none when Cairn took no part.
    pub(crate) fn judge(&self) -> Vec<Judged> {
        let Some(cairn) = self.of(CAIRN) else { return Vec::new() };
        let whole = |result: &SystemResult| result.failure.is_none();
        let etcd = self.of(ETCD).filter(|result| whole(result));
        self.row
            .targets
            .iter()
            .map(|target| {
                let ours = cairn.median.get(target.metric).filter(|_| whole(cairn));
                let theirs = etcd.and_then(|etcd| etcd.median.get(target.metric));
                let mut verdict = target.judge(ours, theirs);
                if self.reduced && self.row.sized && verdict != Verdict::Unknown {
                    verdict = Verdict::Reduced;
                }
                Judged { target: *target, etcd: theirs, cairn: ours, verdict }
            })
            .collect()
    }
}

/// Runs one row `rounds` times against each system that can take it.
///
/// Systems take turns within a round, in an order that turns around from round to round, so that
/// whatever else the machine does meets them alike.
pub(crate) fn run_row(
    row: &'static Row,
    systems: &[System],
    rounds: usize,
    settings: &Settings,
) -> Option<Outcome> {
    let taking: Vec<&System> = systems.iter().filter(|system| system.takes(row)).collect();
    if taking.is_empty() {
        return None;
    }
    let mut runs: Vec<(Vec<Sample>, Option<String>)> = taking.iter().map(|_| Default::default()).collect();
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..taking.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let result = taking[at].run(row, settings).with_context(|| format!("round {}", round + 1));
            match result {
                Ok(sample) => runs[at].0.push(sample),
                Err(error) => runs[at].1 = Some(format!("{error:#}")),
            }
        }
    }
    let results = taking.iter().zip(runs).map(|(system, (rounds, failure))| SystemResult {
        system: system.name,
        median: median(&rounds),
        rounds,
        failure,
    });
    Some(Outcome { row, results: results.collect(), reduced: settings.reduced })
}
