//! Which version the cluster speaks: the highest that every member knows.
//!
//! The leader asks the others for theirs and has the log say it. A new cluster gets its version as soon
//! as it has a leader; it rises once the last member has been upgraded, and sinks only where a
//! downgrade asks for it. Who is older than what the cluster speaks already may not take part.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::membershippb::ClusterVersionSetRequest;
use apply::Cluster;
use futures_util::future::join_all;
use serde::Deserialize;

use crate::forward;
use crate::member::Member;
use crate::metrics::ETCD_VERSION;

/// How often a leader looks whether the version can rise (etcd's number).
const LOOK: Duration = Duration::from_secs(4);

/// The version of a cluster whose members could not all be asked when it was founded.
const LOWEST: Version = Version { major: 3, minor: 0 };

/// A version of etcd, as far as clusters go by it: patches make no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u64,
    minor: u64,
}

impl Version {
    /// The version whose API this member implements.
    pub(crate) fn own() -> Self {
        Self::parse(ETCD_VERSION).expect("our own version is one")
    }

    /// Reads `major.minor.patch`, whatever may follow it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(|part| part.parse::<u64>().ok());
        let version = Self { major: parts.next()??, minor: parts.next()?? };
        parts.next()??;
        parts.next().is_none().then_some(version)
    }

    /// `major.minor`.
    pub(crate) fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    pub(crate) fn is_one_below(self, other: Self) -> bool {
        self.major == other.major && Some(self.minor) == other.minor.checked_sub(1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// What a member answers at `/version`.
#[derive(Clone, Debug, Deserialize)]
struct Told {
    etcdserver: String,
    #[serde(default)]
    etcdcluster: String,
}

/// Says in the log what all members speak, as long as this one leads; until the member stops.
pub(crate) async fn monitor(member: Arc<Member>) {
    let rest = member.config().heartbeat;
    // The term that this member has looked in, and when it looked last.
    let mut looked: Option<(u64, Instant)> = None;
    let check = member.config().downgrade_check;
    let mut checked = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = member.stopping() => return,
        }
        // A leader speaks once the first entry of its own term is applied: only then does it know what
        // earlier ones have said.
        if !member.raft().is_leader() || !member.lessor().lock().is_primary() {
            continue;
        }
        if !check.is_zero() && checked.elapsed() >= check {
            checked = Instant::now();
            tokio::select! {
                () = finish_downgrade(&member) => {}
                () = member.stopping() => return,
            }
        }
        let term = member.raft().term();
        if looked.is_some_and(|(in_term, at)| in_term == term && at.elapsed() < LOOK) {
            continue;
        }
        looked = Some((term, Instant::now()));
        tokio::select! {
            () = look(&member) => {}
            () = member.stopping() => return,
        }
    }
}

/// Asks everybody, and proposes what follows from it.
pub(crate) async fn look(member: &Arc<Member>) {
    let cluster = member.cluster();
    let told = ask(member.peer_tls(), &cluster, member.id(), member.config().request_timeout()).await;
    let current = cluster.version.as_deref().and_then(Version::parse);
    match decide(current, lowest(&told), target(&cluster)) {
        Ok(None) => {}
        Err(words) => tracing::error!(error = words, "failed to monitor cluster version"),
        Ok(Some(version)) => {
            match current {
                None => tracing::info!(
                    "cluster-version" = %version,
                    "setting up initial cluster version using v3 API"
                ),
                Some(current) => {
                    tracing::info!(from = %current, to = %version, "updating cluster version using v3 API");
                }
            }
            match member.propose(ClusterVersionSetRequest { ver: version.to_string() }).await {
                Ok(Ok(_)) => tracing::info!("cluster-version" = %version, "cluster version is updated"),
                Ok(Err(refusal)) => tracing::warn!(error = %refusal, "failed to update cluster version"),
                Err(error) => tracing::warn!(%error, "failed to update cluster version"),
            }
        }
    }
}

/// Ends the downgrade under way once all members run the version that it leads to.
async fn finish_downgrade(member: &Arc<Member>) {
    let cluster = member.cluster();
    let Some(Some(target)) = target(&cluster) else { return };
    let told = ask(member.peer_tls(), &cluster, member.id(), member.config().request_timeout()).await;
    if !all_run(target, &told) {
        return;
    }
    tracing::info!("cluster-version" = %target, "the cluster has been downgraded");
    if let Err(error) = member.set_downgrade(None).await {
        tracing::warn!(?error, "failed to cancel downgrade");
    }
}

fn all_run(target: Version, told: &BTreeMap<u64, Option<Told>>) -> bool {
    let version = |told: &Option<Told>| Version::parse(&told.as_ref()?.etcdserver);
    told.values().all(|told| version(told) == Some(target))
}

/// What the members say of themselves, by id; none for those that do not say. This one is not asked.
async fn ask(tls: &tls::Client, cluster: &Cluster, own: u64, limit: Duration) -> BTreeMap<u64, Option<Told>> {
    let others = cluster.members.values().filter(|other| other.id != own);
    let mut told: BTreeMap<u64, Option<Told>> = join_all(others.map(|other| async move {
        let told = version_of(tls, &other.peer_urls, limit).await;
        if told.is_none() {
            tracing::warn!("remote-member-id" = format!("{:x}", other.id), "failed to get version");
        }
        (other.id, told)
    }))
    .await
    .into_iter()
    .collect();
    let etcdcluster = cluster.version.clone().unwrap_or_default();
    told.insert(own, Some(Told { etcdserver: ETCD_VERSION.to_owned(), etcdcluster }));
    told
}

async fn version_of(tls: &tls::Client, urls: &[String], limit: Duration) -> Option<Told> {
    for url in urls {
        let Ok(answer) = peer::client::get(tls, url, "/version", limit).await else { continue };
        match serde_json::from_slice(answer.body()) {
            Ok(told) => return Some(told),
            Err(error) => tracing::warn!(address = url, %error, "failed to unmarshal response"),
        }
    }
    None
}

/// The oldest of all members; none unless all are known.
fn lowest(told: &BTreeMap<u64, Option<Told>>) -> Option<Version> {
    let version = |told: &Option<Told>| Version::parse(&told.as_ref()?.etcdserver);
    told.values().map(version).collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// Where a downgrade that is under way leads to; an outer none without one.
fn target(cluster: &Cluster) -> Option<Option<Version>> {
    let downgrade = cluster.downgrade.as_ref().filter(|downgrade| downgrade.enabled)?;
    Some(Version::parse(&downgrade.target_version))
}

/// What the cluster's version should become, if it is to change.
///
/// # Errors
/// A downgrade whose target is not one minor version below.
fn decide(
    current: Option<Version>,
    lowest: Option<Version>,
    target: Option<Option<Version>>,
) -> Result<Option<Version>, &'static str> {
    let Some(current) = current else { return Ok(Some(lowest.unwrap_or(LOWEST))) };
    let Some(lowest) = lowest else { return Ok(None) };
    if let Some(target) = target {
        let target = target.ok_or("invalid downgrade target")?;
        if target == current {
            return Ok(None);
        }
        let is_allowed = target.is_one_below(current) && target.is_one_below(lowest);
        return if is_allowed { Ok(Some(target)) } else { Err("invalid downgrade target") };
    }
    let rises = current.major == lowest.major && current < lowest;
    Ok(rises.then_some(lowest))
}

/// Why this member must not take part in a cluster of that version; none if it may.
pub(crate) fn refuses(cluster_version: Option<&str>) -> Option<String> {
    let cluster = Version::parse(cluster_version?)?;
    (Version::own() < cluster).then(|| {
        format!(
            "invalid downgrade; server version is lower than determined cluster version \
             (current-server-version: {}, determined-cluster-version: {}.{})",
            Version::own(),
            cluster.major,
            cluster.minor
        )
    })
}

/// Whether this member can join a cluster that runs: at least one of the others speaks a version that
/// it knows, and none one that it does not.
pub(crate) async fn is_compatible(tls: &tls::Client, cluster: &Cluster, own: u64, limit: Duration) -> bool {
    let told = ask(tls, cluster, own, limit).await;
    let is_downgrading = is_downgrading(tls, cluster, own, limit).await;
    compatible(told.iter().filter(|(id, _)| **id != own).map(|(_, told)| told.as_ref()), is_downgrading)
}

async fn is_downgrading(tls: &tls::Client, cluster: &Cluster, own: u64, limit: Duration) -> bool {
    for other in cluster.members.values().filter(|other| other.id != own) {
        for url in &other.peer_urls {
            let Ok(answer) = peer::client::get(tls, url, forward::DOWNGRADE_ENABLED, limit).await else {
                continue;
            };
            match answer.body().as_ref() {
                b"true" => return true,
                b"false" => return false,
                _ => {}
            }
        }
    }
    false
}

fn compatible<'a>(others: impl Iterator<Item = Option<&'a Told>>, is_downgrading: bool) -> bool {
    let own = Version::own();
    // A cluster that goes down to this member's version still speaks the one above it.
    let above = Version { minor: own.minor + 1, ..own };
    let known = if is_downgrading { above..=above } else { LOWEST..=own };
    let mut found = false;
    for cluster in others.flatten().filter_map(|told| Version::parse(&told.etcdcluster)) {
        if !known.contains(&cluster) {
            tracing::warn!(
                "remote-member-cluster-version" = %cluster,
                "minimum-cluster-version-supported" = %known.start(),
                "maximum-cluster-version-supported" = %known.end(),
                "cluster version of remote member is not compatible"
            );
            return false;
        }
        found = true;
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(&format!("{text}.0")).unwrap()
    }

    #[test]
    fn versions_are_read_as_far_as_they_matter() {
        for text in ["3.5.1", "3.5.0-alpha.1", "3.5.99+git"] {
            assert_eq!(Version::parse(text), Some(Version { major: 3, minor: 5 }), "{text}");
        }
        for text in ["", "3", "3.5", "3.5.x", "3.5.1.2", "not_decided", "v3.5.1"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        assert_eq!(version("3.5").to_string(), "3.5.0");
    }

    /// etcd's cases: what is, the lowest of the members, the target of a downgrade, what follows.
    #[test]
    fn the_version_rises_with_the_last_member_and_sinks_one_step_at_a_time() {
        let cases = [
            (None, None, None, Ok(Some("3.0"))),
            (None, Some("3.5"), None, Ok(Some("3.5"))),
            (Some("3.5"), None, None, Ok(None)),
            (Some("3.5"), Some("3.5"), None, Ok(None)),
            (Some("3.0"), Some("3.7"), None, Ok(Some("3.7"))),
            (Some("3.5"), Some("3.6"), None, Ok(Some("3.6"))),
            (Some("3.6"), Some("3.5"), None, Ok(None)),
            (Some("3.7"), Some("4.0"), None, Ok(None)),
            (Some("3.7"), Some("3.7"), Some("3.6"), Ok(Some("3.6"))),
            (Some("3.6"), Some("3.7"), Some("3.6"), Ok(None)),
            (Some("3.6"), Some("3.6"), Some("3.6"), Ok(None)),
            (Some("3.7"), Some("3.7"), Some("3.5"), Err("invalid downgrade target")),
            (Some("3.7"), Some("3.6"), Some("3.6"), Err("invalid downgrade target")),
        ];
        for (current, lowest, target, expected) in cases {
            let found = decide(current.map(version), lowest.map(version), target.map(|t| Some(version(t))));
            let expected = expected.map(|version| version.map(self::version));
            assert_eq!(found, expected, "{current:?} {lowest:?} {target:?}");
        }
    }

    #[test]
    fn one_silent_member_keeps_the_version_where_it_is() {
        let told = |text: &str| Some(Told { etcdserver: text.to_owned(), etcdcluster: String::new() });
        let all = BTreeMap::from([(1, told("3.7.1")), (2, told("3.5.1")), (3, told("3.6.0"))]);
        assert_eq!(lowest(&all), Some(version("3.5")));
        let mut silent = all.clone();
        silent.insert(2, None);
        assert_eq!(lowest(&silent), None);
        let down = BTreeMap::from([(1, told("3.6.9")), (2, told("3.6.0"))]);
        assert!(all_run(version("3.6"), &down) && !all_run(version("3.5"), &down));
        assert!(!all_run(version("3.7"), &all) && !all_run(version("3.5"), &silent));
        let mut odd = all;
        odd.insert(2, told("?"));
        assert_eq!(lowest(&odd), None);
    }

    #[test]
    fn who_is_older_than_the_cluster_stays_out() {
        assert_eq!(refuses(None), None);
        assert_eq!(refuses(Some("3.0.0")), None);
        assert_eq!(refuses(Some("3.7.0")), None);
        assert!(refuses(Some("3.8.0")).unwrap().starts_with("invalid downgrade; server version is lower"));
    }

    #[test]
    fn joining_needs_one_known_version_and_no_unknown_one() {
        let told = |text: &str| Told { etcdserver: String::new(), etcdcluster: text.to_owned() };
        let ask = |versions: &[Option<&str>], downgrade| {
            let told: Vec<Option<Told>> = versions.iter().map(|text| text.map(told)).collect();
            compatible(told.iter().map(Option::as_ref), downgrade)
        };
        assert!(!ask(&[], false), "nobody has answered");
        assert!(!ask(&[None, Some("not_decided")], false));
        assert!(ask(&[None, Some("3.0.0"), Some("3.7.0")], false));
        assert!(!ask(&[Some("3.7.0"), Some("3.8.0")], false));
        assert!(!ask(&[Some("2.3.0")], false));
        assert!(ask(&[Some("3.8.0")], true), "on its way down to ours");
        assert!(!ask(&[Some("3.7.0")], true));
    }
}
