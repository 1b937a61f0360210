//! Numbers in Prometheus' text format.

use std::collections::BTreeMap;

/// What one scrape has told.
pub(crate) struct Numbers {
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A metric: its type, the labels of its samples but for the bounds of buckets, and the sum of its values; of a
/// histogram, how often it was moved.
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) labels: Vec<String>,
    pub(crate) sum: f64,
}

impl Numbers {
    pub(crate) fn read(text: &str) -> Self {
        let mut numbers = Self { kinds: BTreeMap::new(), samples: Vec::new() };
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                let known = numbers.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(known, None, "{name} is there twice");
            } else if !line.starts_with('#') {
                numbers.samples.push(Sample::read(line));
            }
        }
        numbers
    }

    pub(crate) fn family(&self, name: &str) -> Option<Family> {
        let kind = self.kinds.get(name)?.clone();
        let counted = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let mut labels = None;
        let mut sum = 0.0;
        for sample in self.samples.iter().filter(|sample| sample.name == counted) {
            let names: Vec<String> = sample.labels.keys().cloned().collect();
            assert_eq!(*labels.get_or_insert_with(|| names.clone()), names, "{name}: alike for all");
            sum += sample.value;
        }
        Some(Family { kind, labels: labels?, sum })
    }

    /// The values of the samples of this name whose labels are such; any value will do where none is given.
    pub(crate) fn samples(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        let fits = move |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| {
                    sample.labels.get(*label).is_some_and(|found| value.is_empty() || found == value)
                })
        };
        self.samples.iter().filter(fits).map(|sample| sample.value)
    }
}

impl Sample {
    fn read(line: &str) -> Self {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let labels = labels.strip_suffix('}').unwrap().split("\",").filter(|label| !label.is_empty());
        let label = |label: &str| {
            let (name, value) = label.split_once("=\"").unwrap();
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        };
        Self { name: name.to_owned(), labels: labels.map(label).collect(), value: value.parse().unwrap() }
    }
}
