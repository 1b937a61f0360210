//! The table for people and the JSON for everything else.

use serde_json::{Map, Value, json};

use crate::compare::{BARE, CAIRN, ETCD, Outcome, System};
use crate::metric::{COLUMNS, EXTRAS, Metric, Sample, Verdict};
use crate::rows::Settings;

/// What was run, for the head of the report.
pub(crate) struct Head<'a> {
    /// The systems.
    pub(crate) systems: &'a [System],
    /// Length and size.
    pub(crate) settings: &'a Settings,
    /// Rounds per row.
    pub(crate) rounds: usize,
}

/// The head, one line per fact.
pub(crate) fn head(head: &Head<'_>) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "{cores} cores, {} driver threads, {} rounds of {:.1} s after {:.1} s of warm-up, medians{}\n",
        head.settings.threads,
        head.rounds,
        head.settings.window.as_secs_f64(),
        head.settings.warmup.as_secs_f64(),
        if head.settings.reduced { ", big rows at a tenth of their size" } else { "" },
    );
    if let Some(average) = load_average() {
        text += &format!("load average before: {average:.2} (should be near 0)\n");
    }
    if head.settings.members > 1 {
        text += &format!(
            "{} members on this machine: clients of all of them alike, a lone client of the leader; \
             CPU, memory and disk are sums\n",
            head.settings.members
        );
    }
    for system in head.systems {
        text += &format!("{:<8} {}\n", system.name, system.version.as_deref().unwrap_or("-"));
    }
    text
}

/// Processes that ran or waited to run over the last minute: what else the machine does.
fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// One row: a line per system, then the ratios, then the figures without a column.
pub(crate) fn row(outcome: &Outcome) -> String {
    let mut table = vec![line("", COLUMNS.map(|metric| metric.heading().to_owned()))];
    for result in &outcome.results {
        let cells = COLUMNS.map(|metric| cell(&result.median, metric));
        table.push(line(result.system, cells));
    }
    for (name, above, below) in [("cairn/etcd", CAIRN, ETCD), ("cairn/bare", CAIRN, BARE)] {
        if let (Some(above), Some(below)) = (outcome.of(above), outcome.of(below)) {
            table.push(line(name, COLUMNS.map(|metric| ratio(&above.median, &below.median, metric))));
        }
    }
    let size = if outcome.reduced && outcome.row.sized { " (a tenth of that)" } else { "" };
    let mut text = format!("{}: {}{size}\n{}", outcome.row.name, outcome.row.title, align(&table));
    for metric in EXTRAS {
        let values: Vec<String> = outcome
            .results
            .iter()
            .filter_map(|result| Some((result.system, result.median.get(metric)?)))
            .map(|(system, value)| format!("{system} {}", metric.show(value)))
            .collect();
        if !values.is_empty() {
            text += &format!("  {}: {}\n", metric.heading(), values.join(", "));
        }
    }
    for result in &outcome.results {
        if let Some(failure) = &result.failure {
            text += &format!("  {} FAILED: {failure}\n", result.system);
        }
    }
    text
}

fn line(name: &str, cells: [String; COLUMNS.len()]) -> Vec<String> {
    let mut line = vec![format!("  {name}")];
    line.extend(cells);
    line
}

fn cell(sample: &Sample, metric: Metric) -> String {
    sample.get(metric).map_or("-".to_owned(), |value| metric.show(value))
}

fn ratio(above: &Sample, below: &Sample, metric: Metric) -> String {
    match (above.get(metric), below.get(metric)) {
        (Some(above), Some(below)) if below > 0.0 => format!("{:.2} x", above / below),
        _ => "-".to_owned(),
    }
}

/// All targets with their figures and verdicts; empty when nothing was judged.
pub(crate) fn verdicts(outcomes: &[Outcome]) -> String {
    let titles = ["row", "figure", "etcd", "cairn", "ratio", "by round", "target", ""];
    let mut table = vec![titles.map(str::to_owned).to_vec()];
    for outcome in outcomes {
        for judged in outcome.judge() {
            let metric = judged.target.metric;
            let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| metric.show(value));
            let ratio = judged.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2} x"));
            let rounds = outcome.round_ratios(metric);
            let spread = rounds.map_or("-".to_owned(), |(low, high)| format!("{low:.2} - {high:.2}"));
            table.push(vec![
                outcome.row.name.to_owned(),
                metric.heading().to_owned(),
                show(judged.etcd),
                show(judged.cairn),
                ratio,
                spread,
                judged.target.show(),
                judged.verdict.mark().to_owned(),
            ]);
        }
    }
    if table.len() == 1 { String::new() } else { align(&table) }
}

/// How many targets were met, and of how many that could be judged.
pub(crate) fn score(outcomes: &[Outcome]) -> (usize, usize) {
    let verdicts: Vec<Verdict> =
        outcomes.iter().flat_map(Outcome::judge).map(|judged| judged.verdict).collect();
    let met = verdicts.iter().filter(|verdict| **verdict == Verdict::Pass).count();
    let missed = verdicts.iter().filter(|verdict| **verdict == Verdict::Short).count();
    (met, met + missed)
}

/// Pads columns: the first to the right, figures to the left.
fn align(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        table.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in table {
        let mut padded = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            padded += &if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text += padded.trim_end();
        text.push('\n');
    }
    text
}

/// Everything, every round included.
pub(crate) fn json(head: &Head<'_>, outcomes: &[Outcome]) -> Value {
    let systems: Map<String, Value> =
        head.systems.iter().map(|system| (system.name.to_owned(), json!(system.version))).collect();
    json!({
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "driver_threads": head.settings.threads,
        "rounds": head.rounds,
        "window_seconds": head.settings.window.as_secs_f64(),
        "warmup_seconds": head.settings.warmup.as_secs_f64(),
        "load_average_after": load_average(),
        "reduced": head.settings.reduced,
        "members": head.settings.members,
        "systems": systems,
        "rows": outcomes.iter().map(row_json).collect::<Vec<_>>(),
    })
}

fn row_json(outcome: &Outcome) -> Value {
    let results: Map<String, Value> = outcome
        .results
        .iter()
        .map(|result| {
            let rounds: Vec<Value> = result.rounds.iter().map(sample_json).collect();
            let median = sample_json(&result.median);
            (
                result.system.to_owned(),
                json!({ "median": median, "rounds": rounds, "failure": result.failure }),
            )
        })
        .collect();
    let targets: Vec<Value> = outcome
        .judge()
        .iter()
        .map(|judged| {
            json!({
                "figure": judged.target.metric.name(),
                "target": judged.target.show(),
                "etcd": judged.etcd,
                "cairn": judged.cairn,
                "ratio": judged.ratio,
                "verdict": judged.verdict.mark(),
            })
        })
        .collect();
    json!({ "name": outcome.row.name, "title": outcome.row.title, "results": results, "targets": targets })
}

fn sample_json(sample: &Sample) -> Value {
    let figures = sample.0.iter().map(|(metric, value)| (metric.name().to_owned(), json!(value)));
    Value::Object(figures.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::compare::SystemResult;
    use crate::rows::ROWS;

    fn outcome(row: &str, figures: &[(&'static str, f64, f64)], reduced: bool) -> Outcome {
        let row = ROWS.iter().find(|known| known.name == row).unwrap();
        let results = figures
            .iter()
            .map(|(system, per_cpu, p99)| {
                let median = Sample([(Metric::PerCpu, *per_cpu), (Metric::P99, *p99)].into());
                SystemResult { system, rounds: vec![median.clone()], median, failure: None }
            })
            .collect();
        Outcome { row, results, reduced, several: false }
    }

    #[test]
    fn a_row_shows_each_system_and_the_ratios() {
        let outcome = outcome("put-1000", &[(ETCD, 20_000.0, 0.05), (CAIRN, 50_000.0, 0.025)], false);
        let wanted = "\
put-1000: put, 1,000 clients on 50 connections
              ops/s  p50      p99  p99.9  CPU s  ops/CPU s  peak RSS  disk
  etcd            -    -  50.0 ms      -      -     20,000         -     -
  cairn           -    -  25.0 ms      -      -     50,000         -     -
  cairn/etcd      -    -   0.50 x      -      -     2.50 x         -     -
";
        assert_eq!(row(&outcome), wanted);
    }

    #[test]
    fn verdicts_name_what_falls_short() {
        let outcomes = [outcome("put-1000", &[(ETCD, 20_000.0, 0.05), (CAIRN, 30_000.0, 0.025)], false)];
        let wanted = "\
row          figure     etcd    cairn   ratio     by round         target
put-1000  ops/CPU s   20,000   30,000  1.50 x  1.50 - 1.50  >= 2.0 x etcd  FALLS SHORT
put-1000        p99  50.0 ms  25.0 ms  0.50 x  0.50 - 0.50  <= 1.0 x etcd         pass
";
        assert_eq!(verdicts(&outcomes), wanted);
        assert_eq!(score(&outcomes), (1, 2));
    }

    #[test]
    fn reduced_failed_and_lone_runs_are_not_judged() {
        let both = [(ETCD, 1.0, 1.0), (CAIRN, 9.0, 0.1)];
        let marks =
            |outcome: &Outcome| outcome.judge().iter().map(|judged| judged.verdict).collect::<Vec<_>>();
        assert_eq!(marks(&outcome("load", &both, true))[0], Verdict::Reduced);
        assert_eq!(marks(&outcome("load", &both, false))[0], Verdict::Pass);
        let mut failed = outcome("put-1000", &both, false);
        failed.results[1].failure = Some("no".to_owned());
        assert_eq!(marks(&failed), [Verdict::Unknown; 2]);
        assert!(row(&failed).ends_with("  cairn FAILED: no\n"));
        assert!(marks(&outcome("put-1000", &both[..1], false)).is_empty());
    }

    #[test]
    fn json_holds_rounds_medians_and_verdicts() {
        let outcome = outcome("put-1000", &[(ETCD, 20.0, 0.05), (CAIRN, 50.0, 0.025)], false);
        let json = row_json(&outcome);
        assert_eq!(json["results"]["cairn"]["rounds"][0]["operations_per_cpu_second"], 50.0);
        assert_eq!(json["results"]["etcd"]["median"]["p99_seconds"], 0.05);
        assert_eq!(json["targets"][0]["ratio"], 2.5);
        assert_eq!(json["targets"][0]["verdict"], "pass");
    }
}
