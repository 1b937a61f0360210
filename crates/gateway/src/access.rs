//! Which pages may use the answers, and which names the server goes by, on the paths that are not gRPC.
//!
//! A browser may be led to this port by any page that it shows. It says which page that was (`Origin`) and
//! what it takes the server for (`Host`); a page whose own name suddenly stands for this address (DNS
//! rebinding, CVE-2018-5702) is told apart by the second.

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use crate::endpoints;

/// Names that are let in: all of them, or those of a list.
#[derive(Clone, Debug, Default)]
pub struct Names(Option<HashSet<String>>);

impl Names {
    /// The names of a list; an empty one, or one with `*`, means all.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: HashSet<String> = names.into_iter().collect();
        let all = names.is_empty() || names.contains("*");
        Self((!all).then_some(names))
    }

    fn let_in(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }
}

/// Who may use the paths that are not gRPC.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `--cors`: the origins of pages that may use the answers.
    pub origins: Names,
    /// `--host-whitelist`: the names that requests may give to the server.
    pub hosts: Names,
}

impl Access {
    /// The answer to a request that takes the server for somebody else.
    pub(crate) fn refuse<B>(&self, request: &Request<B>) -> Option<Response<Bytes>> {
        let host = match request.headers().get(HOST) {
            Some(host) => host.to_str().unwrap_or_default(),
            // In HTTP/2 it is part of the target.
            None => request.uri().authority().map_or("", http::uri::Authority::as_str),
        };
        let host = host_name(host);
        if self.hosts.let_in(host) {
            return None;
        }
        tracing::warn!(host, "rejecting HTTP request to prevent DNS rebinding attacks");
        Some(endpoints::error(StatusCode::MISDIRECTED_REQUEST, &unknown_host(host)))
    }

    /// Tells a browser whether the page that has asked may read the answer.
    pub(crate) fn mark(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let origin = match (&self.origins.0, origin) {
            (None, _) => HeaderValue::from_static("*"),
            (Some(origins), Some(origin)) if origin.to_str().is_ok_and(|origin| origins.contains(origin)) => {
                origin.clone()
            }
            (Some(_), _) => return,
        };
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let asked = HeaderValue::from_static("accept, content-type, authorization");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
    }
}

/// The page that a request comes from, as a browser says.
pub(crate) fn origin<B>(request: &Request<B>) -> Option<HeaderValue> {
    request.headers().get(ORIGIN).cloned()
}

/// The name in `name:port` or `[address]:port`; what is neither stays as it is.
fn host_name(host: &str) -> &str {
    let Some((name, _port)) = host.rsplit_once(':') else { return host };
    match name.strip_prefix('[') {
        Some(address) => match address.strip_suffix(']') {
            Some(address) if !address.contains(['[', ']']) => address,
            _ => host,
        },
        None if name.contains([':', '[', ']']) => host,
        None => name,
    }
}

/// What etcd answers: scripts look for it, and who reads it knows what to do.
fn unknown_host(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n\
         \x20 - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(list: &[&str]) -> Names {
        Names::new(list.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn the_name_is_what_stands_before_the_port() {
        for (host, name) in [
            ("localhost:2379", "localhost"),
            ("localhost", "localhost"),
            ("10.0.0.1:1", "10.0.0.1"),
            ("[::1]:2379", "::1"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("localhost:::", "localhost:::"),
            (":2379", ""),
            ("", ""),
        ] {
            assert_eq!(host_name(host), name, "{host}");
        }
    }

    #[test]
    fn only_known_hosts_are_answered() {
        let ask = |access: &Access, host: &str| {
            let request = Request::get("/health").header(HOST, host).body(()).unwrap();
            access.refuse(&request).map(|response| response.status().as_u16())
        };
        let some = Access { hosts: names(&["good", "::1"]), ..Access::default() };
        assert_eq!(ask(&some, "good:1"), None);
        assert_eq!(ask(&some, "[::1]:1"), None);
        assert_eq!(ask(&some, "bad:1"), Some(421));
        assert_eq!(some.refuse(&Request::get("/").body(()).unwrap()).unwrap().status(), 421);
        let of_target = Request::get("http://good:1/").body(()).unwrap();
        assert!(some.refuse(&of_target).is_none(), "HTTP/2 names it in the target");
        for all in [names(&[]), names(&["*", "good"])] {
            assert_eq!(ask(&Access { hosts: all, ..Access::default() }, "bad"), None);
        }
    }

    #[test]
    fn pages_of_known_origins_may_read_the_answers() {
        let told = |origins: Names, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            let origin = origin.map(|origin| origin.parse().unwrap());
            Access { origins, ..Access::default() }.mark(origin.as_ref(), &mut headers);
            let origin =
                headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|told| told.to_str().unwrap().to_owned());
            assert_eq!(headers.len(), if origin.is_some() { 3 } else { 0 });
            origin
        };
        let page = "http://good";
        assert_eq!(told(names(&[]), None).as_deref(), Some("*"));
        assert_eq!(told(names(&["*"]), Some(page)).as_deref(), Some("*"));
        assert_eq!(told(names(&[page]), Some(page)).as_deref(), Some(page));
        assert_eq!(told(names(&[page]), Some("http://bad")), None);
        assert_eq!(told(names(&[page]), None), None);
    }
}
