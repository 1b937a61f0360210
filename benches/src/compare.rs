//! Runs rows against systems, alternately, several rounds, and collects medians.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::metric::{Metric, Sample, Target, Verdict, median};
use crate::process::{Program, Server};
use crate::procfs::Probe;
use crate::rows::{Members, OF_SEVERAL, Row, Settings, Subject};

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
        (self.name != BARE || row.bare)
            && (started || !row.starts_server)
            && row.members.include(self.members())
    }

    /// How many members it has; of an endpoint that runs already, only one is known.
    fn members(&self) -> usize {
        match &self.source {
            Source::Start(program) => program.members,
            Source::Running(..) => 1,
        }
    }

    fn run(&self, row: &Row, settings: &Settings) -> Result<Sample> {
        match &self.source {
            Source::Running(address, probe) => {
                let addresses = vec![*address];
                let subject = &mut Subject { addresses, probe: probe.clone(), server: None };
                (row.run)(subject, settings)
            }
            Source::Start(program) => {
                let mut server = Server::start(program)?;
                let (addresses, probe) = (server.addresses()?, server.probe());
                (row.run)(&mut Subject { addresses, probe, server: Some(&mut server) }, settings)
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
    /// Whether the systems had several members, of which more is asked.
    pub(crate) several: bool,
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
    /// Cairn's over etcd's.
    pub(crate) ratio: Option<f64>,
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
        let targets =
            if self.several && self.row.members == Members::Any { OF_SEVERAL } else { self.row.targets };
        targets
            .iter()
            .map(|target| {
                let ours = cairn.median.get(target.metric).filter(|_| whole(cairn));
                let theirs = etcd.and_then(|etcd| etcd.median.get(target.metric));
                let mut verdict = target.judge(ours, theirs);
                if self.reduced && self.row.sized && verdict != Verdict::Unknown {
                    verdict = Verdict::Reduced;
                }
                let ratio =
                    ours.zip(theirs).filter(|(_, etcd)| *etcd > 0.0).map(|(cairn, etcd)| cairn / etcd);
                Judged { target: *target, etcd: theirs, cairn: ours, ratio, verdict }
            })
            .collect()
    }

    /// The lowest and the highest ratio to etcd that any one round gave: how far to trust the median.
    pub(crate) fn round_ratios(&self, metric: Metric) -> Option<(f64, f64)> {
        let pairs = self.of(CAIRN)?.rounds.iter().zip(&self.of(ETCD)?.rounds);
        let ratios = pairs.filter_map(|(cairn, etcd)| Some(cairn.get(metric)? / etcd.get(metric)?));
        let ratios: Vec<f64> = ratios.filter(|ratio| ratio.is_finite()).collect();
        let (low, high) =
            (ratios.iter().copied().reduce(f64::min)?, ratios.iter().copied().reduce(f64::max)?);
        Some((low, high))
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
    let several = taking.iter().any(|system| system.members() > 1);
    Some(Outcome { row, results: results.collect(), reduced: settings.reduced, several })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rows::ROWS;

    #[test]
    fn the_spread_is_over_rounds_of_one_run() {
        let result = |system, cpus: &[f64]| SystemResult {
            system,
            rounds: cpus.iter().map(|cpu| Sample([(Metric::Cpu, *cpu)].into())).collect(),
            median: Sample::default(),
            failure: None,
        };
        let results = vec![result(ETCD, &[2.0, 4.0, 1.0]), result(CAIRN, &[1.0, 1.0, 2.0])];
        let outcome = Outcome { row: &ROWS[0], results, reduced: false, several: false };
        assert_eq!(outcome.round_ratios(Metric::Cpu), Some((0.25, 2.0)));
        assert_eq!(outcome.round_ratios(Metric::P99), None);
    }

    #[test]
    fn the_bare_service_and_running_endpoints_take_only_what_they_can() {
        let program =
            Program { binary: "x".into(), flavor: crate::process::Flavor::Bare, scratch: None, members: 1 };
        let bare = System { name: BARE, version: None, source: Source::Start(program) };
        let source = Source::Running("127.0.0.1:1".parse().unwrap(), Probe::default());
        let running = System { name: "endpoint", version: None, source };
        let takers = |system: &System| {
            let names = ROWS.iter().filter(|row| system.takes(row)).map(|row| row.name);
            names.collect::<Vec<_>>()
        };
        assert_eq!(takers(&bare), ["put-1000", "get-serializable-1000"]);
        let single = ROWS.iter().filter(|row| row.members.include(1)).count();
        assert_eq!(takers(&running).len(), single - 1);
        assert!(!takers(&running).contains(&"first-put"));
    }
}
