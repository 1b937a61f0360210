//! Who speaks: ids, versions, and the headers that carry them.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::settings::Settings;

pub(crate) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(crate) const FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(crate) const MIN_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
pub(crate) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
pub(crate) const RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");
/// Ours: the checksum (CRC-32C, hexadecimal) of the database that follows a snapshot message.
pub(crate) const DATABASE_CRC: HeaderName = HeaderName::from_static("x-cairn-database-crc32c");

/// What 412 says to whom is too old or too new.
pub(crate) const INCOMPATIBLE: &str = "incompatible version";
/// What 412 says to whom is of another cluster.
pub(crate) const OTHER_CLUSTER: &str = "cluster ID mismatch";

/// An id as it is written everywhere: hexadecimal without leading zeros.
pub(crate) fn id_text(id: u64) -> String {
    format!("{id:x}")
}

/// The id in such a text.
pub(crate) fn parse_id(text: &str) -> Option<u64> {
    // The standard parser would also take a sign.
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Major and minor of a version `major.minor.patch`; what follows the patch number plays no part.
pub(crate) fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.splitn(3, '.');
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
    patch.starts_with(|first: char| first.is_ascii_digit()).then_some(())?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Headers by which every request to a peer introduces this member.
pub(crate) fn introduction(settings: &Settings) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(FROM, hex_value(settings.id));
    headers.insert(VERSION, HeaderValue::from_static(settings.version));
    headers.insert(MIN_VERSION, HeaderValue::from_static(settings.min_cluster_version));
    headers.insert(CLUSTER_ID, hex_value(settings.cluster_id));
    if let Ok(urls) = HeaderValue::from_str(&settings.urls.join(",")) {
        headers.insert(PEER_URLS, urls);
    }
    headers
}

/// An id as a header's value.
pub(crate) fn hex_value(id: u64) -> HeaderValue {
    HeaderValue::from_str(&id_text(id)).unwrap_or(HeaderValue::from_static("0"))
}

/// A header as text; empty if it is missing or no text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether who sent these headers may speak to this member, else what to answer with 412.
pub(crate) fn check(settings: &Settings, headers: &HeaderMap) -> Result<(), &'static str> {
    // etcd 2.0 did not send them.
    let version = |name: HeaderName| match text(headers, &name) {
        "" => Some((2, 0)),
        version => major_minor(version),
    };
    let ours = |version| major_minor(version).unwrap_or_default();
    let server = version(VERSION).ok_or(INCOMPATIBLE)?;
    let minimum = version(MIN_VERSION).ok_or(INCOMPATIBLE)?;
    if server < ours(settings.min_cluster_version) || minimum > ours(settings.version) {
        return Err(INCOMPATIBLE);
    }
    if text(headers, &CLUSTER_ID) != id_text(settings.cluster_id) {
        return Err(OTHER_CLUSTER);
    }
    Ok(())
}

/// Where the sender of a request is to be found, if it says so.
pub(crate) fn peer_urls(headers: &HeaderMap) -> Vec<String> {
    text(headers, &PEER_URLS).split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn settings() -> Settings {
        let urls = vec!["http://a:1".to_owned(), "http://b:2".to_owned()];
        Settings::new(0xab, 0xcdef, urls, "unused".into(), Duration::from_secs(1))
    }

    #[test]
    fn an_introduction_passes_the_check_of_the_same_cluster() {
        let headers = introduction(&settings());
        assert_eq!(check(&settings(), &headers), Ok(()));
        assert_eq!(text(&headers, &FROM), "ab");
        assert_eq!(peer_urls(&headers), ["http://a:1", "http://b:2"]);
        let other = Settings { cluster_id: 1, ..settings() };
        assert_eq!(check(&other, &headers), Err(OTHER_CLUSTER));
    }

    #[test]
    fn versions_that_do_not_understand_each_other_are_told_so() {
        let verdict = |server: Option<&'static str>, minimum: Option<&'static str>| {
            let mut headers = introduction(&settings());
            headers.remove(VERSION);
            headers.remove(MIN_VERSION);
            for (name, value) in [(VERSION, server), (MIN_VERSION, minimum)] {
                value.map(|value| headers.insert(name, HeaderValue::from_static(value)));
            }
            check(&settings(), &headers)
        };
        assert_eq!(verdict(Some("3.5.1"), Some("3.0.0")), Ok(()));
        assert_eq!(verdict(Some("3.8.0-alpha.0"), Some("3.0.0")), Ok(()), "newer, but modest");
        assert_eq!(verdict(Some("3.0.0"), None), Ok(()));
        assert_eq!(verdict(Some("2.3.8"), Some("2.1.0")), Err(INCOMPATIBLE), "too old");
        assert_eq!(verdict(Some("3.9.0"), Some("3.8.0")), Err(INCOMPATIBLE), "wants newer ones");
        assert_eq!(verdict(None, None), Err(INCOMPATIBLE), "2.0 did not say");
        for odd in ["3", "3.5", "three.five.one", "", "3.5.x", "-3.5.1"] {
            assert_eq!(verdict(Some(odd), Some("3.0.0")), Err(INCOMPATIBLE), "{odd}");
        }
    }

    #[test]
    fn ids_are_hexadecimal_and_nothing_else() {
        assert_eq!(parse_id("8e9e05c52164694d"), Some(0x8e9e_05c5_2164_694d));
        for odd in ["", "+1", "-1", "x", "0x1", "11112222333344445", " 1"] {
            assert_eq!(parse_id(odd), None, "{odd}");
        }
    }
}
