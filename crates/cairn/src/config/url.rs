//! URLs as etcd's flags take them: a scheme, a host and a port, and nothing after it.
//!
//! A general URL library is the wrong tool here: it drops a default port and adds a path, while etcd compares
//! and announces URLs exactly as they were written.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// How to talk to whoever listens at a [`Url`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A socket in the file system.
    Unix,
    /// TLS over a socket in the file system.
    Unixs,
}

/// One address of a member.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// How to talk there.
    pub scheme: Scheme,
    /// A name or an address without brackets; for unix sockets the path.
    pub host: String,
    /// The port; 0 for one of the system's choice, and for unix sockets.
    pub port: u16,
    /// As it was written, apart from the case of the scheme.
    text: String,
}

impl Url {
    /// Reads one URL. Blanks around it are ignored.
    ///
    /// # Errors
    /// etcd's words about what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let (scheme, rest) = split_scheme(text)?;
        let (scheme, name) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, "http"),
            "https" => (Scheme::Https, "https"),
            "unix" => (Scheme::Unix, "unix"),
            "unixs" => (Scheme::Unixs, "unixs"),
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        };
        let rest = rest.strip_prefix("//").unwrap_or("");
        let shown = format!("{name}://{rest}");
        if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
            return Ok(Url { scheme, host: rest.to_owned(), port: 0, text: shown });
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let no_port = || format!("URL address does not have the form \"host:port\": {text}");
        let (host, port) = split_host_port(authority).ok_or_else(no_port)?;
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        let number = if port.is_empty() { Some(0) } else { port.parse().ok() };
        let port = match number {
            Some(number) if port.bytes().all(|digit| digit.is_ascii_digit()) => number,
            _ => return Err(format!("parse {text:?}: invalid port \":{port}\" after host")),
        };
        Ok(Url { scheme, host: host.to_owned(), port, text: shown })
    }

    /// Reads a comma-separated list and sorts it, as etcd does.
    ///
    /// # Errors
    /// etcd's words about the first one that is wrong.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Url>, String> {
        let mut urls = text.split(',').map(Url::parse).collect::<Result<Vec<Url>, String>>()?;
        urls.sort_by(|a, b| a.text.cmp(&b.text));
        urls.dedup();
        Ok(urls)
    }

    /// `http://host:port` for an address; brackets are added where it needs them.
    pub(crate) fn http(host: IpAddr, port: u16) -> Url {
        let text = format!("http://{}", SocketAddr::new(host, port));
        Url { scheme: Scheme::Http, host: host.to_string(), port, text }
    }

    /// The URL as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether both were written with the same address or path, whatever is spoken there.
    pub(crate) fn is_at(&self, other: &Url) -> bool {
        self.port == other.port && self.host == other.host
    }

    /// Where to listen: an address, or `localhost` for the loopback address of IPv4. Other names are no
    /// answer, since what they stand for may change, and unix sockets have no address.
    pub(crate) fn socket_addr(&self) -> Option<SocketAddr> {
        if matches!(self.scheme, Scheme::Unix | Scheme::Unixs) {
            return None;
        }
        let host = if self.host == "localhost" { "127.0.0.1" } else { &self.host };
        host.parse().ok().map(|host: IpAddr| SocketAddr::new(host, self.port))
    }

    /// # Errors
    /// etcd's words when the URL names a host and not an address, and so cannot be listened at.
    pub(crate) fn check_bind(&self) -> Result<(), String> {
        match self.scheme {
            Scheme::Unix | Scheme::Unixs => Ok(()),
            _ if self.socket_addr().is_some() => Ok(()),
            _ => Err(format!("expected IP in URL for binding ({self})")),
        }
    }

    /// # Errors
    /// etcd's words when the URL names no host, and so cannot be announced to others.
    pub(crate) fn check_host(&self) -> Result<(), String> {
        match self.scheme {
            Scheme::Http | Scheme::Https if self.host.is_empty() => {
                Err(format!("unexpected empty host ({self})"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The URLs as one comma-separated list.
pub(crate) fn join(urls: &[Url]) -> String {
    strings(urls).join(",")
}

/// The URLs as strings.
pub(crate) fn strings(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

/// What stands before the first colon, if it can be a scheme at all, and what stands after it.
fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    let Some((scheme, rest)) = text.split_once(':') else { return Ok(("", text)) };
    let mut letters = scheme.bytes();
    match letters.next() {
        None => Err(format!("parse {text:?}: missing protocol scheme")),
        Some(first) if first.is_ascii_alphabetic() => {
            let legal = letters.all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
            Ok(if legal { (scheme, rest) } else { ("", text) })
        }
        Some(_) if scheme.contains('/') => Ok(("", text)),
        Some(_) => Err(format!("parse {text:?}: first path segment in URL cannot contain colon")),
    }
}

/// Host and port of `host:port` or `[v6]:port`; none when there is no port, or a colon too many.
fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        return Some((host, port));
    }
    let (host, port) = authority.rsplit_once(':')?;
    (!host.contains([':', '[', ']'])).then_some((host, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn good_urls_keep_their_spelling() {
        let cases = [
            ("http://localhost:2379", "http://localhost:2379", Some("127.0.0.1:2379")),
            (" HTTP://127.0.0.1:80 ", "http://127.0.0.1:80", Some("127.0.0.1:80")),
            ("https://10.0.0.1:443", "https://10.0.0.1:443", Some("10.0.0.1:443")),
            ("http://[::1]:2379", "http://[::1]:2379", Some("[::1]:2379")),
            ("http://127.0.0.1:", "http://127.0.0.1:", Some("127.0.0.1:0")),
            ("http://example.com:2379", "http://example.com:2379", None),
            ("unix://run/cairn.sock:2379", "unix://run/cairn.sock:2379", None),
        ];
        for (text, shown, address) in cases {
            let url = Url::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.socket_addr().map(|address| address.to_string()).as_deref(), address, "{text}");
        }
        assert_eq!(Url::http("::1".parse().unwrap(), 5).to_string(), "http://[::1]:5");
    }

    #[test]
    fn a_list_is_sorted_and_holds_each_url_once() {
        let urls = Url::parse_list("http://b:1,http://a:1, http://b:1").unwrap();
        assert_eq!(join(&urls), "http://a:1,http://b:1");
    }

    #[test]
    fn bad_urls_are_refused_in_etcds_words() {
        let cases = [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
            ("127.0.0.1:80", "parse \"127.0.0.1:80\": first path segment in URL cannot contain colon"),
            (":80", "parse \":80\": missing protocol scheme"),
            ("http://127.0.0.1", "URL address does not have the form \"host:port\": http://127.0.0.1"),
            ("http://::1:80", "URL address does not have the form \"host:port\": http://::1:80"),
            ("http://127.0.0.1:1/", "URL must not contain a path: http://127.0.0.1:1/"),
            ("http://h:http", "parse \"http://h:http\": invalid port \":http\" after host"),
        ];
        for (text, words) in cases {
            assert_eq!(Url::parse(text).unwrap_err(), words);
        }
    }
}
