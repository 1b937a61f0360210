//! What is measured, and what is asked of it.
//!
//! A row's run gives a [`Sample`]; several rounds give their [`median`]; a [`Target`] turns Cairn's
//! median, beside etcd's of the same run, into a [`Verdict`].

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// One figure. The order is the order of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Operations per second.
    Throughput,
    /// Median latency in seconds, as are all latencies.
    P50,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
    /// Server CPU seconds in the window.
    Cpu,
    /// Operations per server CPU second.
    PerCpu,
    /// Highest resident set in bytes.
    PeakRss,
    /// Allocated bytes of the data directory.
    Disk,
    /// Peak resident set in bytes while a million keys were put.
    LoadRss,
    /// Peak resident set in bytes after the restart with them.
    RestartRss,
    /// Seconds from the spawn after a kill to the first linearizable read.
    Restart,
    /// Seconds from the spawn on an empty directory to the first put.
    FirstPut,
    /// Bytes by which one big list raised the resident set.
    ListGrowth,
    /// p99 of puts before something happened.
    P99Before,
    /// p99 of puts while it did.
    P99During,
    /// The latter over the former.
    Slowdown,
    /// Operations per second while something happened, over those before.
    SpeedRatio,
    /// Seconds that the compaction took.
    CompactionTime,
    /// What work beside puts took, the first time.
    WorkTime,
}

use Metric::*;

/// Columns of the main table; the other figures go below it.
pub(crate) const COLUMNS: [Metric; 8] = [Throughput, P50, P99, P999, Cpu, PerCpu, PeakRss, Disk];

/// The figures of a few rows only.
pub(crate) const EXTRAS: [Metric; 11] = [
    LoadRss,
    RestartRss,
    Restart,
    FirstPut,
    ListGrowth,
    P99Before,
    P99During,
    Slowdown,
    SpeedRatio,
    CompactionTime,
    WorkTime,
];

impl Metric {
    /// Name in JSON; carries the unit.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Throughput => "operations_per_second",
            P50 => "p50_seconds",
            P99 => "p99_seconds",
            P999 => "p999_seconds",
            Cpu => "server_cpu_seconds",
            PerCpu => "operations_per_cpu_second",
            PeakRss => "peak_rss_bytes",
            Disk => "disk_bytes",
            LoadRss => "load_peak_rss_bytes",
            RestartRss => "restart_peak_rss_bytes",
            Restart => "restart_seconds",
            FirstPut => "first_put_seconds",
            ListGrowth => "list_rss_growth_bytes",
            P99Before => "p99_before_seconds",
            P99During => "p99_during_seconds",
            Slowdown => "p99_during_over_before",
            SpeedRatio => "operations_during_over_before",
            CompactionTime => "compaction_seconds",
            WorkTime => "work_seconds",
        }
    }

    /// Heading in the table.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Throughput => "ops/s",
            P50 => "p50",
            P99 => "p99",
            P999 => "p99.9",
            Cpu => "CPU s",
            PerCpu => "ops/CPU s",
            PeakRss => "peak RSS",
            Disk => "disk",
            LoadRss => "peak RSS loading",
            RestartRss => "peak RSS after the restart",
            Restart => "restart to first read",
            FirstPut => "empty directory to first put",
            ListGrowth => "RSS growth",
            P99Before => "p99 before",
            P99During => "p99 during",
            Slowdown => "p99 during / before",
            SpeedRatio => "ops/s during / before",
            CompactionTime => "compaction",
            WorkTime => "the work",
        }
    }

    /// A value for people.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Throughput | PerCpu => thousands(value),
            P50 | P99 | P999 | Restart | FirstPut | P99Before | P99During | CompactionTime | WorkTime => {
                time(value)
            }
            Cpu => format!("{value:.2}"),
            PeakRss | LoadRss | RestartRss | Disk | ListGrowth => format!("{:.0} MB", value / 1e6),
            Slowdown | SpeedRatio => format!("{value:.2}"),
        }
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.01 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.2} ms", s * 1e3),
    }
}

/// The figures of one run, or the medians of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample(pub(crate) BTreeMap<Metric, f64>);

impl Sample {
    /// Sets a figure; an unknown one stays absent.
    pub(crate) fn set(&mut self, metric: Metric, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.0.insert(metric, value);
        }
    }

    /// A figure, where known.
    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).copied()
    }

    /// Sets the three percentiles of latencies in nanoseconds.
    pub(crate) fn set_latencies(&mut self, latencies: &Histogram<u64>) {
        for (metric, quantile) in [(P50, 0.5), (P99, 0.99), (P999, 0.999)] {
            self.set(metric, percentile(latencies, quantile));
        }
    }
}

/// A percentile in seconds of latencies in nanoseconds.
pub(crate) fn percentile(latencies: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!latencies.is_empty()).then(|| latencies.value_at_quantile(quantile) as f64 / 1e9)
}

/// Per figure the median of the rounds; between the two middle ones when they are even.
pub(crate) fn median(rounds: &[Sample]) -> Sample {
    let mut all: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
    for (metric, value) in rounds.iter().flat_map(|round| &round.0) {
        all.entry(*metric).or_default().push(*value);
    }
    Sample(all.into_iter().map(|(metric, values)| (metric, middle(values))).collect())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

/// What is asked of one figure of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The figure.
    pub(crate) metric: Metric,
    /// Its bound.
    pub(crate) bound: Bound,
}

/// A bound on Cairn's figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// At least this many times etcd's.
    TimesAtLeast(f64),
    /// At most this many times etcd's.
    TimesAtMost(f64),
    /// At most this, whatever etcd does.
    AtMost(f64),
    /// At least this, whatever etcd does.
    AtLeast(f64),
}

impl Target {
    /// The bound for people.
    pub(crate) fn show(&self) -> String {
        match self.bound {
            Bound::TimesAtLeast(times) => format!(">= {times:.1} x etcd"),
            Bound::TimesAtMost(times) => format!("<= {times:.1} x etcd"),
            Bound::AtMost(value) => format!("<= {}", self.metric.show(value)),
            Bound::AtLeast(value) => format!(">= {}", self.metric.show(value)),
        }
    }

    /// Judges Cairn's figure beside etcd's.
    pub(crate) fn judge(&self, cairn: Option<f64>, etcd: Option<f64>) -> Verdict {
        let times = |bound: fn(f64, f64) -> bool, wanted| match (cairn, etcd) {
            (Some(cairn), Some(etcd)) if etcd > 0.0 => verdict(bound(cairn / etcd, wanted)),
            _ => Verdict::Unknown,
        };
        match self.bound {
            Bound::TimesAtLeast(wanted) => times(|ratio, wanted| ratio >= wanted, wanted),
            Bound::TimesAtMost(wanted) => times(|ratio, wanted| ratio <= wanted, wanted),
            Bound::AtMost(wanted) => cairn.map_or(Verdict::Unknown, |cairn| verdict(cairn <= wanted)),
            Bound::AtLeast(wanted) => cairn.map_or(Verdict::Unknown, |cairn| verdict(cairn >= wanted)),
        }
    }
}

fn verdict(met: bool) -> Verdict {
    if met { Verdict::Pass } else { Verdict::Short }
}

/// Whether a target is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Met.
    Pass,
    /// Missed.
    Short,
    /// A figure is missing.
    Unknown,
    /// Run at a reduced size, for which the target is not meant.
    Reduced,
}

impl Verdict {
    /// The mark in the table and in JSON.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Short => "FALLS SHORT",
            Verdict::Unknown => "not measured",
            Verdict::Reduced => "not judged (reduced size)",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(throughput: f64) -> Sample {
        Sample([(Throughput, throughput)].into())
    }

    #[test]
    fn medians_are_per_figure_and_ignore_rounds_without_it() {
        let mut rounds = [sample(3.0), sample(1.0), sample(2.0)];
        rounds[0].set(Cpu, 5.0);
        rounds[1].set(Cpu, 7.0);
        rounds[2].set(Cpu, None);
        let median = median(&rounds);
        assert_eq!((median.get(Throughput), median.get(Cpu)), (Some(2.0), Some(6.0)));
        assert_eq!(median.get(Disk), None);
    }

    #[test]
    fn percentiles_are_in_seconds() {
        let mut latencies = crate::load::histogram();
        assert_eq!(percentile(&latencies, 0.5), None);
        for micros in 1..=1000_u64 {
            latencies.record(micros * 1000).unwrap();
        }
        let mut sample = Sample::default();
        sample.set_latencies(&latencies);
        for (metric, wanted) in [(P50, 500e-6), (P99, 990e-6), (P999, 999e-6)] {
            let got = sample.get(metric).unwrap();
            assert!((got / wanted - 1.0).abs() < 0.002, "{metric:?} {got}");
        }
    }

    #[test]
    fn bounds_include_their_edge() {
        let judge = |metric, bound, cairn, etcd| Target { metric, bound }.judge(cairn, etcd);
        let at_least = Bound::TimesAtLeast(2.0);
        assert_eq!(judge(PerCpu, at_least, Some(20.0), Some(10.0)), Verdict::Pass);
        assert_eq!(judge(PerCpu, at_least, Some(19.9), Some(10.0)), Verdict::Short);
        assert_eq!(judge(PerCpu, at_least, Some(20.0), None), Verdict::Unknown);
        assert_eq!(judge(PerCpu, at_least, Some(20.0), Some(0.0)), Verdict::Unknown);
        let at_most = Bound::TimesAtMost(0.5);
        assert_eq!(judge(PeakRss, at_most, Some(5.0), Some(10.0)), Verdict::Pass);
        assert_eq!(judge(PeakRss, at_most, Some(5.1), Some(10.0)), Verdict::Short);
        assert_eq!(judge(Restart, Bound::AtMost(1.0), Some(1.0), None), Verdict::Pass);
        assert_eq!(judge(Restart, Bound::AtMost(1.0), Some(1.1), None), Verdict::Short);
        assert_eq!(judge(Restart, Bound::AtMost(1.0), None, Some(1.0)), Verdict::Unknown);
        assert_eq!(judge(SpeedRatio, Bound::AtLeast(0.9), Some(0.9), None), Verdict::Pass);
        assert_eq!(judge(SpeedRatio, Bound::AtLeast(0.9), Some(0.8), None), Verdict::Short);
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(Throughput.show(1_234_567.4), "1,234,567");
        assert_eq!(PerCpu.show(999.0), "999");
        assert_eq!(P99.show(0.000_25), "0.25 ms");
        assert_eq!(P99.show(0.0254), "25.4 ms");
        assert_eq!(Restart.show(2.8), "2.80 s");
        assert_eq!(PeakRss.show(1.0e9), "1000 MB");
        let target = Target { metric: ListGrowth, bound: Bound::AtMost(128e6) };
        assert_eq!(target.show(), "<= 128 MB");
    }
}
