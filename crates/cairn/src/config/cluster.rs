//! The first start of a member: is what it was told about its cluster good for beginning one?
//!
//! None of this is looked at again once the data directory holds a member.

use std::net::ToSocketAddrs;

use super::url::{self, Scheme, Url};
use super::{ClusterState, Config};

/// What the identity of a new cluster is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bootstrap {
    /// The only member's name.
    pub name: String,
    /// Its peer URLs, sorted.
    pub peer_urls: Vec<Url>,
    /// The cluster's token.
    pub token: String,
}

impl Config {
    /// Checks that a new cluster can begin with this member alone. To be called when the data directory holds no
    /// member yet. Names in URLs may be looked up.
    ///
    /// # Errors
    /// What is wrong, in etcd's words; or that Cairn cannot do it yet.
    pub(crate) fn bootstrap(&self) -> Result<Bootstrap, String> {
        let members = members(&self.initial_cluster)
            .map_err(|words| format!("error setting up initial cluster: {words}"))?;
        let Some((_, urls)) = members.iter().find(|(name, _)| *name == self.name) else {
            return Err(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            ));
        };
        if self.initial_cluster_state == ClusterState::Existing {
            return Err(
                "--initial-cluster-state=existing has no effect yet: a Cairn cluster has one member so \
                        far, and cannot be joined"
                    .to_owned(),
            );
        }
        if members.len() > 1 {
            return Err(format!(
                "--initial-cluster names {} members: a Cairn cluster has one member so far",
                members.len()
            ));
        }
        let mut urls = urls.clone();
        urls.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        self.advertised_as(&urls)?;
        Ok(Bootstrap { name: self.name.clone(), peer_urls: urls, token: self.initial_cluster_token.clone() })
    }

    /// The member must tell its peers the same addresses that the cluster is to have for it; different
    /// spellings of one address will do.
    fn advertised_as(&self, urls: &[Url]) -> Result<(), String> {
        let advertised = &self.advertise_peer_urls;
        if advertised.len() == urls.len() && (advertised == urls || resolved(advertised) == resolved(urls)) {
            return Ok(());
        }
        let absent = |from: &[Url], of: &[Url]| -> Vec<String> {
            of.iter().filter(|url| !from.contains(url)).map(Url::to_string).collect()
        };
        let named = |url: &String| format!("{}={url}", self.name);
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

/// `name=url,name=url` as members with their URLs, in the order of their first mention.
fn members(text: &str) -> Result<Vec<(String, Vec<Url>)>, String> {
    let mut members: Vec<(String, Vec<Url>)> = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        let url = Url::parse(url)?;
        match members.iter_mut().find(|(other, _)| other == name) {
            Some((_, urls)) => urls.push(url),
            None => members.push((name.to_owned(), vec![url])),
        }
    }
    Ok(members)
}
