//! Whether a certificate is its bearer's: whether the address that a peer comes from is one of those in it.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::certificate::Names;

/// How long the names of a certificate may take to look up.
const LOOKUP: Duration = Duration::from_secs(5);

/// What is looked up; another one in tests.
pub(crate) trait Resolver {
    /// The name of an address.
    fn name(&self, address: IpAddr) -> impl Future<Output = Option<String>> + Send;
    /// The addresses of a name.
    fn addresses(&self, name: &str) -> impl Future<Output = Vec<IpAddr>> + Send;
}

/// The system's.
pub(crate) struct System;

impl Resolver for System {
    async fn name(&self, address: IpAddr) -> Option<String> {
        // The system's resolver has no other way to be asked.
        let found = spawn_blocking(move || dns_lookup::lookup_addr(&address).ok());
        let name = timeout(LOOKUP, found).await.ok()?.ok()??;
        // Where nothing is known of it, the address itself is told.
        name.parse::<IpAddr>().is_err().then_some(name)
    }

    async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        match timeout(LOOKUP, lookup_host((name, 0))).await {
            Ok(Ok(found)) => found.map(|address| address.ip().to_canonical()).collect(),
            _ => Vec::new(),
        }
    }
}

/// Looks whether one of the names stands for the address. A certificate without names is anybody's.
///
/// # Errors
/// It is somebody else's.
pub(crate) async fn check(names: &Names, remote: IpAddr, resolver: &impl Resolver) -> Result<(), String> {
    let remote = remote.to_canonical();
    if names.hosts.is_empty() && names.addresses.is_empty() {
        return Ok(());
    }
    if names.addresses.iter().any(|address| address.to_canonical() == remote) {
        return Ok(());
    }
    if names.hosts.is_empty() {
        let valid: Vec<String> = names.addresses.iter().map(IpAddr::to_string).collect();
        return Err(format!("x509: certificate is valid for {}, not {remote}", valid.join(", ")));
    }
    let (endings, whole): (Vec<&String>, Vec<&String>) =
        names.hosts.iter().partition(|name| name.starts_with("*."));
    if let Some(known) = resolver.name(remote).await {
        let known = known.strip_suffix('.').unwrap_or(&known);
        if endings.iter().any(|ending| known.ends_with(&ending[1..]))
            || whole.iter().any(|name| *name == known)
        {
            return Ok(());
        }
    }
    for name in whole {
        if resolver.addresses(name).await.contains(&remote) {
            return Ok(());
        }
    }
    Err(format!("tls: {:?} does not match any of DNSNames {:?}", remote.to_string(), names.hosts))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Knows one host.
    struct One(&'static str, IpAddr);

    impl Resolver for One {
        async fn name(&self, address: IpAddr) -> Option<String> {
            (address == self.1).then(|| format!("{}.", self.0))
        }

        async fn addresses(&self, name: &str) -> Vec<IpAddr> {
            if name == self.0 { vec![self.1] } else { Vec::new() }
        }
    }

    #[tokio::test]
    async fn a_certificate_is_for_the_addresses_and_names_in_it() {
        let known = One("a.example.org", [10, 0, 0, 1].into());
        let cases: [(&[&str], &[&str], &str, bool); 12] = [
            (&[], &[], "10.0.0.9", true),
            (&[], &["10.0.0.1", "10.0.0.2"], "10.0.0.2", true),
            (&[], &["10.0.0.1"], "::ffff:10.0.0.1", true),
            (&[], &["10.0.0.1"], "10.0.0.2", false),
            (&[], &["::1"], "::1", true),
            (&["a.example.org"], &[], "10.0.0.1", true),
            (&["b.example.org"], &[], "10.0.0.1", false),
            (&["a.example.org"], &["10.0.0.7"], "10.0.0.1", true),
            (&["a.example.org"], &[], "10.0.0.2", false),
            (&["*.example.org"], &[], "10.0.0.1", true),
            (&["*.example.com"], &[], "10.0.0.1", false),
            (&["*.example.com", "a.example.org"], &[], "10.0.0.1", true),
        ];
        for (hosts, addresses, remote, good) in cases {
            let names = Names {
                hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            };
            let result = check(&names, remote.parse().unwrap(), &known).await;
            assert_eq!(result.is_ok(), good, "{names:?} from {remote}: {result:?}");
        }
    }
}
