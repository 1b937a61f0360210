//! The probes of containers: `/livez` asks whether this process is any good, `/readyz` whether the
//! member can serve everybody.
//!
//! A probe is a list of checks; each can be asked for by itself, below the probe's path, and left out by
//! `?exclude=`. The names and the words are etcd's.

use std::fmt::Write as _;
use std::sync::Arc;

use api::etcdserverpb::AlarmType;
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

/// The checks behind a path; none if it is no path of a probe.
pub(crate) fn find(path: &str) -> Option<&'static [Probe]> {
    let mut parts = path.strip_prefix('/')?.splitn(2, '/');
    let all = match parts.next()? {
        "livez" => LIVE,
        "readyz" => READY,
        _ => return None,
    };
    match parts.next() {
        None => Some(all),
        Some(name) => all.iter().position(|probe| probe.name() == name).map(|at| &all[at..=at]),
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
pub(crate) async fn run(member: &Arc<Member>, checks: &[Probe], excluded: &[String]) -> Found {
    let mut found = Found { is_good: true, lines: String::new() };
    for check in checks.iter().filter(|check| !excluded.iter().any(|name| name == check.name())) {
        let name = check.name();
        let _ = match check.run(member).await {
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
        assert_eq!(find("/livez"), Some(LIVE));
        assert_eq!(find("/readyz"), Some(READY));
        assert_eq!(find("/readyz/non_learner"), Some(&[Probe::NonLearner][..]));
        assert_eq!(find("/livez/serializable_read"), Some(&[Probe::SerializableRead][..]));
        for path in ["/livez/non_learner", "/readyz/", "/readyz/x", "/livez/serializable_read/x", "/", ""] {
            assert_eq!(find(path), None, "{path}");
        }
    }
}
