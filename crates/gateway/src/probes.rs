//! The probes of containers: `/livez` asks whether this process is any good, `/readyz` whether the
//! member can serve everybody.
//!
//! A probe is a list of checks; each can be asked for by itself, below the probe's path, and left out by
//! `?exclude=`. The names and the words are etcd's.

use std::fmt::Write as _;
use std::sync::Arc;

use api::etcdserverpb::AlarmType;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};
use server::Member;

use crate::health;

/// One look at the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// No alarm says that members differ.
    DataCorruption,
    /// What is here can be read.
    SerializableRead,
    /// A quorum agrees that this is the latest.
    LinearizableRead,
    /// The member has a vote.
    NonLearner,
}

const LIVE: &[Probe] = &[Probe::SerializableRead];
const READY: &[Probe] =
    &[Probe::DataCorruption, Probe::SerializableRead, Probe::LinearizableRead, Probe::NonLearner];

impl Probe {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, member: &Arc<Member>) -> Result<(), String> {
        match self {
            Self::DataCorruption => match member.alarms().get(AlarmType::Corrupt.into()).next() {
                Some(_) => Err("alarm activated: CORRUPT".to_owned()),
                None => Ok(()),
            },
            Self::SerializableRead => health::read(member, true).await,
            Self::LinearizableRead => health::read(member, false).await,
            Self::NonLearner if member.is_learner() => Err("not supported for learner".to_owned()),
            Self::NonLearner => Ok(()),
        }
    }
}

/// What is asked for at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `livez` or `readyz`.
    kind: &'static str,
    checks: &'static [Probe],
}

/// The checks behind a path; none if it is no path of a probe.
pub(crate) fn find(path: &str) -> Option<Asked> {
    let mut parts = path.strip_prefix('/')?.splitn(2, '/');
    let (kind, all) = match parts.next()? {
        "livez" => ("livez", LIVE),
        "readyz" => ("readyz", READY),
        _ => return None,
    };
    let checks = match parts.next() {
        None => all,
        Some(name) => all.iter().position(|probe| probe.name() == name).map(|at| &all[at..=at])?,
    };
    Some(Asked { kind, checks })
}

/// What the checks have come to, for whoever looks at the numbers.
pub(crate) struct ProbeMetrics {
    last: GaugeVec,
    all: IntCounterVec,
}

impl ProbeMetrics {
    /// Enters the numbers into `registry`, which has them from nobody else.
    pub(crate) fn new(registry: &Registry) -> Self {
        let last = Opts::new("etcd_server_healthcheck", "Whether a check went well the last time.");
        let last = GaugeVec::new(last, &["type", "name"]).expect("a valid metric name");
        let all = Opts::new("etcd_server_healthchecks_total", "Checks by what they came to.");
        let all = IntCounterVec::new(all, &["type", "name", "status"]).expect("a valid metric name");
        registry.register(Box::new(last.clone())).expect("a metric name used once");
        registry.register(Box::new(all.clone())).expect("a metric name used once");
        Self { last, all }
    }

    fn count(&self, kind: &str, name: &str, is_good: bool) {
        self.last.with_label_values(&[kind, name]).set(f64::from(u8::from(is_good)));
        let status = if is_good { "success" } else { "error" };
        self.all.with_label_values(&[kind, name, status]).inc();
    }
}

/// What a probe has found.
pub(crate) struct Found {
    /// Whether every check passed.
    pub(crate) is_good: bool,
    /// A line for each.
    pub(crate) lines: String,
}

/// Runs the checks that are not excluded.
pub(crate) async fn run(
    member: &Arc<Member>,
    metrics: &ProbeMetrics,
    asked: Asked,
    excluded: &[String],
) -> Found {
    let mut found = Found { is_good: true, lines: String::new() };
    for check in asked.checks.iter().filter(|check| !excluded.iter().any(|name| name == check.name())) {
        let name = check.name();
        let result = check.run(member).await;
        metrics.count(asked.kind, name, result.is_ok());
        let _ = match result {
            Ok(()) => writeln!(found.lines, "[+]{name} ok"),
            Err(words) => {
                found.is_good = false;
                writeln!(found.lines, "[-]{name} failed: {words}")
            }
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_found_by_path() {
        let found = |path: &str| find(path).map(|asked| (asked.kind, asked.checks));
        assert_eq!(found("/livez"), Some(("livez", LIVE)));
        assert_eq!(found("/readyz"), Some(("readyz", READY)));
        assert_eq!(found("/readyz/non_learner"), Some(("readyz", &[Probe::NonLearner][..])));
        assert_eq!(found("/livez/serializable_read"), Some(("livez", &[Probe::SerializableRead][..])));
        for path in ["/livez/non_learner", "/readyz/", "/readyz/x", "/livez/serializable_read/x", "/", ""] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
