//! The first start of a member: is what it was told about its cluster good for founding it, or for joining it?
//!
//! None of this is looked at again once the data directory holds a member.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;

use super::url::{self, Scheme, Url};
use super::{ClusterState, Config};

/// What a member without data is told of the cluster that it founds or joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bootstrap {
    /// The members' peer URLs by name, this one's too, each list sorted.
    pub members: BTreeMap<String, Vec<Url>>,
}

impl Config {
    /// Checks that the member can found its cluster, or join it. To be called when the data directory holds no
    /// member yet. Names in URLs may be looked up.
    ///
    /// # Errors
    /// What is wrong, in etcd's words.
    pub(crate) fn bootstrap(&self) -> Result<Bootstrap, String> {
        let members = members(&self.initial_cluster)
            .map_err(|words| format!("error setting up initial cluster: {words}"))?;
        // Who joins has been announced to the cluster already, under whatever URLs.
        let is_new = self.initial_cluster_state == ClusterState::New;
        Bootstrap { members }.check(&self.name, is_new.then_some(&self.advertise_peer_urls))
    }
}

impl Bootstrap {
    /// The cluster of `--initial-cluster`, whose member `name` tells its peers `advertised`.
    ///
    /// # Errors
    /// What is wrong, in etcd's words.
    pub(crate) fn of(name: &str, initial_cluster: &str, advertised: &[Url]) -> Result<Bootstrap, String> {
        Bootstrap { members: members(initial_cluster)? }.check(name, Some(advertised))
    }

    fn check(self, name: &str, advertised: Option<&[Url]>) -> Result<Bootstrap, String> {
        let Some(urls) = self.members.get(name) else {
            return Err(format!("couldn't find local name {name:?} in the initial cluster configuration"));
        };
        if let Some(advertised) = advertised {
            advertised_as(name, advertised, urls)?;
        }
        let mut all: Vec<&str> = self.members.values().flatten().map(Url::as_str).collect();
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("initial cluster {} has duplicate url", show(&self.members)));
        }
        Ok(self)
    }
}

/// The member must tell its peers the same addresses that the cluster is to have for it; different
/// spellings of one address will do.
fn advertised_as(name: &str, advertised: &[Url], urls: &[Url]) -> Result<(), String> {
    if advertised.len() == urls.len() && (advertised == urls || resolved(advertised) == resolved(urls)) {
        return Ok(());
    }
    let absent = |from: &[Url], of: &[Url]| -> Vec<String> {
        of.iter().filter(|url| !from.contains(url)).map(Url::to_string).collect()
    };
    let named = |url: &String| format!("{name}={url}");
    let announced = url::join(advertised);
    let missing = absent(advertised, urls);
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(named).collect();
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={announced}",
            missing.join(",")
        ));
    }
    let cluster: Vec<String> = url::strings(advertised).iter().map(named).collect();
    let cluster = cluster.join(",");
    match absent(urls, advertised) {
        missing if !missing.is_empty() => Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={cluster}",
            missing.join(",")
        )),
        _ => Err(format!("failed to resolve {announced} to match --initial-cluster={cluster}")),
    }
}
/// The URLs with their hosts looked up, sorted. As in etcd `localhost` stays what it is, and does not equal
/// 127.0.0.1; a name that cannot be looked up stays too.
fn resolved(urls: &[Url]) -> Vec<String> {
    let resolve = |url: &Url| {
        let named = url.host != "localhost" && matches!(url.scheme, Scheme::Http | Scheme::Https);
        let mut found = named.then(|| (url.host.as_str(), url.port).to_socket_addrs().ok()).flatten();
        match found.as_mut().and_then(Iterator::next) {
            Some(address) => format!("{:?} {address}", url.scheme),
            None => url.to_string(),
        }
    };
    let mut all: Vec<String> = urls.iter().map(resolve).collect();
    all.sort();
    all
}

/// `name=url,name=url` as members with their URLs.
fn members(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        members.entry(name.to_owned()).or_default().push(Url::parse(url)?);
    }
    for urls in members.values_mut() {
        urls.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    }
    Ok(members)
}

/// The members as `--initial-cluster` would have them, in order.
fn show(members: &BTreeMap<String, Vec<Url>>) -> String {
    let pairs = |(name, urls): (&String, &Vec<Url>)| {
        urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<String>>()
    };
    let mut pairs: Vec<String> = members.iter().flat_map(pairs).collect();
    pairs.sort();
    pairs.join(",")
}
