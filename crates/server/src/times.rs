//! Histograms for what every request moves.
//!
//! Prometheus' own take a search through their bounds and a loop for the sum. The bounds of etcd's
//! histograms double, so the bucket of a time is a matter of counting its bits, and a sum in whole
//! nanoseconds is added to in one step: an observation is two additions. A sample with labels is named by its
//! place, so nothing is looked up by words.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// One histogram, by the labels of its samples.
#[derive(Clone)]
pub struct Times(Arc<Family>);

struct Family {
    description: Desc,
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    /// The first bound, in nanoseconds.
    first: u64,
    samples: Vec<Sample>,
}

struct Sample {
    values: Vec<&'static str>,
    /// How many there were in each bucket; the last is for what is beyond all bounds.
    buckets: Vec<AtomicU64>,
    /// In nanoseconds; it begins anew after five hundred years.
    sum: AtomicU64,
}

/// What a histogram is: its name, what it tells, and its bounds, of which the first is given and each is twice
/// the one before.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) first: Duration,
    pub(crate) bounds: usize,
}

impl Times {
    /// A histogram without labels, entered into `registry`.
    pub(crate) fn new(registry: &Registry, shape: Shape) -> Self {
        Self::with_labels(registry, shape, &[], vec![Vec::new()])
    }

    /// A histogram with a sample for each of the lists of values, by their places. Only samples that have seen
    /// something are told of.
    pub(crate) fn with_labels(
        registry: &Registry,
        shape: Shape,
        labels: &'static [&'static str],
        samples: Vec<Vec<&'static str>>,
    ) -> Self {
        let Shape { name, help, first, bounds } = shape;
        let names = labels.iter().map(|&name| name.to_owned()).collect();
        let description =
            Desc::new(name.to_owned(), help.to_owned(), names, HashMap::new()).expect("a valid metric name");
        let samples = samples
            .into_iter()
            .map(|values| {
                assert_eq!(values.len(), labels.len(), "{name} has a value for each label");
                Sample {
                    values,
                    buckets: (0..=bounds).map(|_| AtomicU64::new(0)).collect(),
                    sum: AtomicU64::new(0),
                }
            })
            .collect();
        let first = u64::try_from(first.as_nanos()).unwrap_or(u64::MAX).max(1);
        let times = Self(Arc::new(Family { description, name, help, labels, first, samples }));
        registry.register(Box::new(times.clone())).expect("a metric name used once");
        times
    }

    /// Something took so long. Without labels the place is 0.
    pub fn observe(&self, place: usize, took: Duration) {
        let Family { first, samples, .. } = &*self.0;
        let sample = &samples[place];
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket(*first, nanos).min(sample.buckets.len() - 1);
        sample.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        sample.sum.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// The first bound that is no less than the time: `first` doubled how often.
fn bucket(first: u64, nanos: u64) -> usize {
    // Rounded up, so what is just above a bound is not within it.
    match nanos.div_ceil(first) {
        0 | 1 => 0,
        times => (u64::BITS - (times - 1).leading_zeros()) as usize,
    }
}

impl Family {
    fn metric(&self, sample: &Sample) -> Metric {
        let mut count = 0;
        let mut bound = self.first as f64 / 1e9;
        let (_, bounded) = sample.buckets.split_last().expect("there is a last bucket");
        let buckets = bounded.iter().map(|held| {
            count += held.load(Ordering::Relaxed);
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(count);
            bucket.set_upper_bound(bound);
            bound *= 2.0;
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(sample.count());
        histogram.set_sample_sum(sample.sum.load(Ordering::Relaxed) as f64 / 1e9);
        let labels = self.labels.iter().zip(&sample.values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(labels.collect());
        metric.set_histogram(histogram);
        metric
    }
}

impl Sample {
    fn count(&self) -> u64 {
        self.buckets.iter().map(|held| held.load(Ordering::Relaxed)).sum()
    }
}

impl Collector for Times {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let family = &*self.0;
        let told = family.samples.iter().filter(|sample| family.labels.is_empty() || sample.count() > 0);
        let mut answer = MetricFamily::default();
        answer.set_name(family.name.to_owned());
        answer.set_help(family.help.to_owned());
        answer.set_field_type(MetricType::HISTOGRAM);
        answer.set_metric(told.map(|sample| family.metric(sample)).collect());
        vec![answer]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder as _, TextEncoder};

    use super::*;

    fn shape(name: &'static str) -> Shape {
        Shape { name, help: "Times.", first: Duration::from_micros(100), bounds: 3 }
    }

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for (nanos, expected) in [
            (0, 0),
            (1, 0),
            (100_000, 0),
            (100_001, 1),
            (200_000, 1),
            (200_001, 2),
            (400_000, 2),
            (400_001, 3),
            (u64::MAX, 48),
        ] {
            assert_eq!(bucket(100_000, nanos), expected, "{nanos} ns");
        }
    }

    #[test]
    fn what_is_told_is_what_prometheus_would_tell() {
        let (registry, twin) = (Registry::new(), Registry::new());
        let times = Times::new(&registry, shape("t"));
        let options = prometheus::HistogramOpts::new("t", "Times.").buckets(vec![0.0001, 0.0002, 0.0004]);
        let histogram = prometheus::Histogram::with_opts(options).expect("a histogram");
        twin.register(Box::new(histogram.clone())).expect("a name used once");
        for micros in [0, 50, 100, 150, 200, 201, 399, 400, 401, 5_000_000] {
            times.observe(0, Duration::from_micros(micros));
            histogram.observe(micros as f64 / 1e6);
        }
        let text = |registry: &Registry| {
            let mut text = Vec::new();
            TextEncoder::new().encode(&registry.gather(), &mut text).expect("text");
            String::from_utf8_lossy(&text).into_owned()
        };
        assert_eq!(text(&registry), text(&twin));
    }

    #[test]
    fn a_sample_that_has_seen_nothing_is_not_told_of() {
        let registry = Registry::new();
        let samples = vec![vec!["Put", "true"], vec!["Put", "false"]];
        let times = Times::with_labels(&registry, shape("t"), &["type", "success"], samples);
        assert!(registry.gather().is_empty());
        times.observe(1, Duration::ZERO);
        let families = registry.gather();
        let told: Vec<&str> = families[0].get_metric()[0].get_label().iter().map(LabelPair::value).collect();
        assert_eq!((families[0].get_metric().len(), told), (1, vec!["Put", "false"]));
    }
}
