//! The first start of a member: which cluster it founds with others, or joins.
//!
//! The founders of a cluster need not speak to each other. Each of them makes the same ids and the
//! same first entries out of the same flags, so their logs agree before the first message. Whoever
//! joins later asks the members that are there for its id, which was given when it was added, and
//! begins with an empty log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apply::{Cluster, Member};
use raft::{Entry, HardState, NodeId};

use crate::config::{ClusterState, Config};
use crate::identity::{cluster_id, member_id};
use crate::{ask, urls, versions};

/// How long each member that is asked by one who joins has for its answer (etcd's figure).
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Who a new member is, and what its log begins with.
#[derive(Debug)]
pub(crate) struct Founding {
    pub(crate) id: u64,
    pub(crate) cluster_id: u64,
    /// What is committed of `entries`: all of them.
    pub(crate) hard_state: Option<HardState>,
    /// One configuration entry for each founder; none for a member that joins.
    pub(crate) entries: Vec<Entry>,
    /// The other members, for one that joins: its log will not name them for a while.
    pub(crate) remotes: Vec<Member>,
}

/// Finds out which. Other members may be asked, in bounded time.
///
/// # Errors
/// In etcd's words, why this member can do neither.
pub(crate) fn decide(config: &Config) -> Result<Founding, String> {
    if !config.initial_cluster.contains_key(&config.name) {
        return Err(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            config.name
        ));
    }
    match config.cluster_state {
        ClusterState::New => found(config),
        ClusterState::Existing => join(config),
    }
}

/// The members that `--initial-cluster` names, in the order of their ids.
fn named(config: &Config) -> Result<BTreeMap<u64, Member>, String> {
    founders(&config.initial_cluster, &config.cluster_token)
}

/// The members of a new cluster, given the peer URLs of each by its name, in the order of their ids.
///
/// # Errors
/// In etcd's words: two of them would have the same id.
pub fn founders(named: &BTreeMap<String, Vec<String>>, token: &str) -> Result<BTreeMap<u64, Member>, String> {
    let mut members = BTreeMap::new();
    for (name, peer_urls) in named {
        let mut peer_urls = peer_urls.clone();
        peer_urls.sort();
        let id = member_id(&peer_urls, token);
        if id == 0 {
            return Err("cannot use 0 as member id".to_owned());
        }
        let member = Member { id, name: name.clone(), peer_urls, ..Member::default() };
        if let Some(other) = members.insert(id, member) {
            return Err(format!("member exists with identical ID {id:x}: {} and {name}", other.name));
        }
    }
    Ok(members)
}

fn others_urls<'a>(members: impl IntoIterator<Item = &'a Member>, name: &str) -> Vec<String> {
    let others = members.into_iter().filter(|member| member.name != name);
    let mut urls: Vec<String> = others.flat_map(|member| member.peer_urls.iter().cloned()).collect();
    urls.sort();
    urls
}

fn found(config: &Config) -> Result<Founding, String> {
    let members = named(config)?;
    let own = members.values().find(|member| member.name == config.name);
    let id = own.map(|member| member.id).unwrap_or_default();
    let urls = others_urls(members.values(), &config.name);
    if !urls.is_empty() {
        // A disk that was lost: the others remember a member of this id, and what it has promised.
        let known =
            ask::members(&config.peer_tls, urls, config.bootstrap_timeout, ask::Failures::Expected).ok();
        if known.is_some_and(|known| was_started(&known.members, id)) {
            return Err(bootstrapped(id));
        }
    }
    let ids: Vec<u64> = members.keys().copied().collect();
    let founders: Vec<(NodeId, Arc<[u8]>)> =
        members.values().map(|member| (NodeId(member.id), Arc::from(&*apply::to_json(member)))).collect();
    let (hard_state, entries) = raft::found(&founders);
    Ok(Founding {
        id,
        cluster_id: cluster_id(&ids),
        hard_state: Some(hard_state),
        entries,
        remotes: Vec::new(),
    })
}

fn bootstrapped(id: u64) -> String {
    format!("member {id:x} has already been bootstrapped")
}

fn was_started(members: &[Member], id: u64) -> bool {
    members.iter().any(|member| member.id == id && !member.client_urls.is_empty())
}

fn join(config: &Config) -> Result<Founding, String> {
    let named = named(config)?;
    let urls = others_urls(named.values(), &config.name);
    let known = ask::members(&config.peer_tls, urls, JOIN_TIMEOUT, ask::Failures::Told)
        .map_err(|words| format!("cannot fetch cluster info from peer urls: {words}"))?;
    let validating = |words| format!("error validating peerURLs {}: {words}", show(&known));
    let own = assign(&named, &known.members, &config.name).map_err(validating)?;
    let others: Vec<Member> = known.members.iter().filter(|member| member.id != own).cloned().collect();
    let cluster = Cluster {
        members: known.members.iter().map(|member| (member.id, member.clone())).collect(),
        ..Cluster::default()
    };
    let compatible = versions::is_compatible(&config.peer_tls, &cluster, own, config.request_timeout());
    if ask::wait(compatible) != Some(true) {
        return Err("incompatible with current running cluster".to_owned());
    }
    if was_started(&known.members, own) {
        // Whoever was a member of this id has promised things that an empty disk does not know of:
        // a vote might be given twice, and what was acknowledged be lost (E4).
        return Err(format!(
            "{}; remove it from the cluster and add it again, to join with an empty data directory",
            bootstrapped(own)
        ));
    }
    let learners = known.members.iter().filter(|member| member.is_learner).count();
    if learners > config.max_learners {
        return Err(format!(
            "current cluster has {learners} learners, exceeding maxLearners limit of {}",
            config.max_learners
        ));
    }
    Ok(Founding {
        id: own,
        cluster_id: known.cluster_id,
        hard_state: None,
        entries: Vec::new(),
        remotes: others,
    })
}

/// Finds each member of the cluster among those named here, by its peer URLs; the id of the one
/// called `name`.
fn assign(named: &BTreeMap<u64, Member>, known: &[Member], name: &str) -> Result<u64, String> {
    if known.len() != named.len() {
        return Err("member count is unequal".to_owned());
    }
    let mut own = None;
    for member in known {
        let matching = named.values().find(|one| urls::equal(&one.peer_urls, &member.peer_urls));
        let Some(matching) = matching else {
            return Err(format!(
                "PeerURLs: no match found for existing member ({:x}, [{}])",
                member.id,
                member.peer_urls.join(" ")
            ));
        };
        if matching.name == name {
            own = Some(member.id);
        }
    }
    own.ok_or_else(|| format!("couldn't find local name {name:?} among the members of the cluster"))
}

fn show(known: &ask::Known) -> String {
    let member =
        |member: &Member| format!("{:x} {:?} [{}]", member.id, member.name, member.peer_urls.join(" "));
    let members: Vec<String> = known.members.iter().map(member).collect();
    format!("{{ClusterID:{:x} Members:[{}]}}", known.cluster_id, members.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use raft::{Index, Term};

    use super::*;

    fn config(urls: &[(&str, &str)], name: &str) -> Config {
        let initial_cluster =
            urls.iter().map(|(name, url)| ((*name).to_owned(), vec![(*url).to_owned()])).collect();
        Config {
            name: name.to_owned(),
            initial_cluster,
            bootstrap_timeout: Duration::from_millis(1),
            ..Config::new("unused".into())
        }
    }

    /// The ids that etcd 3.5.1 logs for these flags, and the entries that it writes.
    #[test]
    fn founders_have_etcd_s_ids_and_first_entries() {
        // Nobody listens there but, perhaps, for a moment, somebody who is no member.
        let urls = [
            ("a", "http://127.0.0.1:17380"),
            ("b", "http://127.0.0.1:27380"),
            ("c", "http://127.0.0.1:37380"),
        ];
        let ids = [0x866b_2327_9458_7293, 0x99bc_a5ff_d3b6_b513, 0xaae4_76f2_4b12_16a3];
        for ((name, _), id) in urls.iter().zip(ids) {
            let founding = decide(&config(&urls, name)).unwrap();
            assert_eq!((founding.id, founding.cluster_id), (id, 0x4a4b_568f_09b2_546e));
            let commit = HardState { term: Term(1), vote: None, commit: Index(3) };
            assert_eq!(founding.hard_state, Some(commit));
            let places: Vec<_> = founding.entries.iter().map(|entry| (entry.term, entry.index)).collect();
            assert_eq!(places, [(Term(1), Index(1)), (Term(1), Index(2)), (Term(1), Index(3))]);
            let first = b"\x08\x00\x10\x00\x18\x93\xe5\xe1\xa2\xf9\xe4\xc8\xb5\x86\x01\"\x4b\
                {\"id\":9685874076489904787,\"peerURLs\":[\"http://127.0.0.1:17380\"],\"name\":\"a\"}";
            assert_eq!(&*founding.entries[0].data, first);
        }
    }

    #[test]
    fn who_is_not_named_cannot_begin() {
        let error = decide(&config(&[("a", "http://127.0.0.1:1")], "z")).unwrap_err();
        assert_eq!(error, "couldn't find local name \"z\" in the initial cluster configuration");
    }

    #[test]
    fn ids_are_assigned_by_urls() {
        let config = config(&[("a", "http://127.0.0.1:1"), ("b", "http://127.0.0.2:1")], "b");
        let named = named(&config).unwrap();
        let known = |id, url: &str| Member { id, peer_urls: vec![url.to_owned()], ..Member::default() };
        let cluster = [known(7, "http://127.0.0.1:1"), known(8, "http://127.0.0.2:1")];
        assert_eq!(assign(&named, &cluster, "b"), Ok(8));
        assert_eq!(assign(&named, &cluster[..1], "b"), Err("member count is unequal".to_owned()));
        let stranger = [known(7, "http://127.0.0.1:1"), known(8, "http://127.0.0.9:1")];
        let error = assign(&named, &stranger, "b").unwrap_err();
        assert_eq!(error, "PeerURLs: no match found for existing member (8, [http://127.0.0.9:1])");
    }
}
