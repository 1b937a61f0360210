//! Whether two lists of URLs name the same places, as etcd compares them: names are looked up, and
//! so `http://127.0.0.1:2380` equals what resolves to it.

use std::net::ToSocketAddrs;

/// Whether each URL of one list has its equal in the other.
pub(crate) fn equal(some: &[String], others: &[String]) -> bool {
    if some.len() != others.len() {
        return false;
    }
    let sorted = |urls: &[String], show: fn(&str) -> String| {
        let mut urls: Vec<String> = urls.iter().map(|url| show(url)).collect();
        urls.sort();
        urls
    };
    sorted(some, str::to_owned) == sorted(others, str::to_owned)
        || sorted(some, resolved) == sorted(others, resolved)
}

/// A URL with its host looked up. `localhost` stays what it is, as does what cannot be looked up.
fn resolved(url: &str) -> String {
    let Some((scheme, place)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = place.split_once('/').map_or((place, ""), |(host, path)| (host, path));
    let named = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if named == "localhost" {
        return url.to_owned();
    }
    match host.to_socket_addrs().ok().and_then(|mut found| found.next()) {
        Some(address) => format!("{scheme}://{address}/{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_but_number_does() {
        let urls = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        let (a, b) = ("http://127.0.0.1:1", "http://127.0.0.2:2");
        assert!(equal(&urls(&[a, b]), &urls(&[b, a])));
        assert!(!equal(&urls(&[a]), &urls(&[a, b])));
        assert!(!equal(&urls(&[a]), &urls(&[b])));
        assert!(!equal(&urls(&["http://localhost:1"]), &urls(&[a])), "as in etcd");
    }
}
