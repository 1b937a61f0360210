//! What may differ, read from `differences.txt`, and the comparison that heeds it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fields::Fields;
use crate::pair;

/// The list, one rule a line: its kind, the place, for some kinds more, and the reason.
const LIST: &str = include_str!("differences.txt");

/// What may differ besides where both are clusters.
const LIST_OF_CLUSTERS: &str = include_str!("differences-cluster.txt");

/// What a value is that an answer does not have.
const ABSENT: &str = "(absent)";

/// The rules, and how often each was needed.
pub(crate) struct Rules(Vec<Rule>);

struct Rule {
    /// Its file and line.
    at: String,
    text: &'static str,
    place: &'static str,
    allows: Allows,
    used: AtomicUsize,
}

enum Allows {
    /// Two runs of one server differ here as well.
    Anything,
    /// A number that time moves a little.
    Near(i64),
    /// The values of such places, in whatever order.
    Order,
    /// Exactly this, on account of a later version of etcd.
    Change { etcd: &'static str, cairn: &'static str },
}

/// One value that is not the same.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) place: String,
    pub(crate) etcd: String,
    pub(crate) cairn: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n      etcd:  {}\n      cairn: {}", self.place, self.etcd, self.cairn)
    }
}

impl Rules {
    /// Reads the list; it is compiled in, so a mistake in it is a bug here.
    pub(crate) fn read() -> Self {
        let mut lists = vec![("differences.txt", LIST)];
        if pair::members() > 1 {
            lists.push(("differences-cluster.txt", LIST_OF_CLUSTERS));
        }
        let lines = lists.into_iter().flat_map(|(file, list)| {
            list.lines().enumerate().map(move |(at, line)| (format!("{file}:{}", at + 1), line))
        });
        let rules = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        Self(rules.map(|(at, line)| Rule::read(at, line)).collect())
    }

    /// What differs between two answers and is on no list.
    pub(crate) fn compare(&self, etcd: &Fields, cairn: &Fields) -> Vec<Difference> {
        let refused = |fields: &Fields| fields.iter().any(|(place, _)| is_error(place));
        let (etcd, cairn) = (&self.sorted(etcd), &self.sorted(cairn));
        // Where only one refuses, that is the difference, and not what the other one said.
        let only_one = refused(etcd) != refused(cairn);
        let mut both: BTreeMap<&str, [&str; 2]> = BTreeMap::new();
        for (side, fields) in [etcd, cairn].into_iter().enumerate() {
            for (place, value) in fields.iter().filter(|(place, _)| !only_one || is_error(place)) {
                both.entry(place).or_insert([ABSENT; 2])[side] = value;
            }
        }
        both.into_iter()
            .filter(|(place, [etcd, cairn])| etcd != cairn && !self.allow(place, etcd, cairn))
            .map(|(place, [etcd, cairn])| Difference {
                place: place.to_owned(),
                etcd: etcd.to_owned(),
                cairn: cairn.to_owned(),
            })
            .collect()
    }

    /// The same fields, the values of lists whose order means nothing in one order.
    fn sorted(&self, fields: &Fields) -> Fields {
        let mut fields = fields.clone();
        for rule in self.0.iter().filter(|rule| matches!(rule.allows, Allows::Order)) {
            let inside = |place: &str| matches(rule.place, place);
            let mut values: Vec<String> =
                fields.iter().filter(|(place, _)| inside(place)).map(|(_, value)| value.clone()).collect();
            values.sort_unstable();
            rule.used.fetch_add(usize::from(values.len() > 1), Ordering::Relaxed);
            let places = fields.iter_mut().filter(|(place, _)| inside(place));
            places.zip(values).for_each(|((_, value), sorted)| *value = sorted);
        }
        fields
    }

    fn allow(&self, place: &str, etcd: &str, cairn: &str) -> bool {
        let rule = self.0.iter().find(|rule| matches(rule.place, place) && rule.allows.pair(etcd, cairn));
        if let Some(rule) = rule {
            rule.used.fetch_add(1, Ordering::Relaxed);
        }
        rule.is_some()
    }

    /// The rules that no comparison needed.
    pub(crate) fn idle(&self) -> Vec<String> {
        // How much time moves a number is chance, and may be nothing.
        let steady = self.0.iter().filter(|rule| !matches!(rule.allows, Allows::Near(_)));
        let idle = steady.filter(|rule| rule.used.load(Ordering::Relaxed) == 0);
        idle.map(|rule| format!("{}: {}", rule.at, rule.text)).collect()
    }
}

impl Rule {
    fn read(at: String, text: &'static str) -> Self {
        Self::parse(&at, text).unwrap_or_else(|| panic!("{at}: not a rule: {text}"))
    }

    fn parse(at: &str, text: &'static str) -> Option<Self> {
        let mut columns = text.split(" | ").map(str::trim).filter(|column| !column.is_empty());
        let (kind, place) = (columns.next()?, columns.next()?);
        let allows = match kind.split_once(' ') {
            None if kind == "varies" => Allows::Anything,
            None if kind == "order" => Allows::Order,
            None if kind == "later" => {
                let (etcd, cairn) = columns.next()?.split_once(" => ")?;
                Allows::Change { etcd, cairn }
            }
            Some(("near", by)) => Allows::Near(by.parse().ok()?),
            _ => return None,
        };
        let _reason = columns.next()?;
        Some(Self { at: at.to_owned(), text, place, allows, used: AtomicUsize::new(0) })
    }
}

impl Allows {
    fn pair(&self, etcd: &str, cairn: &str) -> bool {
        match self {
            // What is not the same when sorted is not allowed.
            Allows::Order => false,
            Allows::Anything => etcd != ABSENT && cairn != ABSENT,
            Allows::Near(by) => match (etcd.parse::<i64>(), cairn.parse::<i64>()) {
                (Ok(etcd), Ok(cairn)) => (etcd - cairn).abs() <= *by,
                _ => false,
            },
            Allows::Change { etcd: was, cairn: is } => matches(was, etcd) && matches(is, cairn),
        }
    }
}

fn is_error(place: &str) -> bool {
    place.ends_with("error.code") || place.ends_with("error.message")
}

/// Whether a text fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| matches(tail, rest)))
}
