//! Where others connect to this member, and how the two sides prove who they are.

use std::path::Path;

use gateway::Listeners;
use tls::{Client, Door, Listener, Server, Settings};

use crate::config::Config;
use crate::config::url::{Scheme, Url};
use crate::logging;
use crate::note::{self, Level, Note};

/// What a client may speak inside TLS, the better first; gRPC needs the better one, peers speak the other alone.
const CLIENT_PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];
const GRPC_PROTOCOLS: [&str; 1] = ["h2"];
const PEER_PROTOCOLS: [&str; 1] = ["http/1.1"];

/// The ports of a member, and how it connects to others.
pub(crate) struct Doors {
    pub(crate) listeners: Listeners,
    /// For connections to other members.
    pub(crate) peer: Client,
    /// Whether a client's certificate says which user it is.
    pub(crate) client_cert_auth: bool,
}

impl Doors {
    /// Reads certificates, makes those that are to be made, and listens everywhere.
    ///
    /// # Errors
    /// A port is taken, or a certificate makes no sense.
    pub(crate) fn open(config: &Config) -> Result<Doors, String> {
        let words = |error: tls::Error| error.to_string();
        let security = &config.security;
        let fixtures = config.data_dir.join("fixtures");
        let made = |kind: &str, auto: bool, settings: &Settings, urls: &[Url]| {
            self_signed(kind, auto, settings, urls, &fixtures.join(kind), security.validity)
        };
        let peer = made("peer", security.auto_peer, &security.peer, &config.listen_peer_urls)?;
        let http = &config.listen_client_http_urls;
        let client_urls = [config.listen_client_urls.as_slice(), http].concat();
        let client = made("client", security.auto_client, &security.client, &client_urls)?;
        for (kind, settings) in [("peer", &peer), ("client", &client)] {
            announce(kind, settings);
        }
        passed_over("peer", &peer, &config.listen_peer_urls);
        passed_over("client", &client, &client_urls);
        let dialing = Client::new(peer.clone()).map_err(words)?;
        let without =
            |url: &Url| format!("cannot listen on TLS for {url}: KeyFile and CertFile are not presented");
        let at_peers = server(&peer, &PEER_PROTOCOLS, &config.listen_peer_urls, without)?;
        let without = |url: &Url| {
            format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            )
        };
        let protocols = if http.is_empty() { &CLIENT_PROTOCOLS[..] } else { &GRPC_PROTOCOLS };
        let at_clients = server(&client, protocols, &config.listen_client_urls, without)?;
        let at_http = server(&client, &CLIENT_PROTOCOLS, http, without)?;
        let listeners = Listeners {
            client: bind(config, &config.listen_client_urls, at_clients.as_ref())?,
            http: bind(config, http, at_http.as_ref())?,
            peer: bind(config, &config.listen_peer_urls, at_peers.as_ref())?,
        };
        Ok(Doors { listeners, peer: dialing, client_cert_auth: client.client_cert_auth })
    }
}

fn is_secure(url: &Url) -> bool {
    matches!(url.scheme, Scheme::Https | Scheme::Unixs)
}

/// The settings, with a certificate made on the spot where one is asked for and none is given.
fn self_signed(
    kind: &str,
    auto: bool,
    settings: &Settings,
    urls: &[Url],
    dir: &Path,
    years: u64,
) -> Result<Settings, String> {
    if !auto {
        return Ok(settings.clone());
    }
    if !settings.is_empty() {
        let words = format!("ignoring {kind} auto TLS since certs given");
        logging::note(&Note::new(Level::Warn, &words));
        return Ok(settings.clone());
    }
    let on_network = urls.iter().filter(|url| matches!(url.scheme, Scheme::Http | Scheme::Https));
    let hosts: Vec<String> = on_network.map(|url| url.host.clone()).filter(|host| !host.is_empty()).collect();
    let made = tls::self_signed(dir, &hosts, years)
        .map_err(|error| format!("failed to get {kind} self-signed certs: {error}"))?;
    Ok(Settings { ciphers: settings.ciphers.clone(), versions: settings.versions, ..made })
}

fn announce(kind: &str, settings: &Settings) {
    if settings.is_empty() {
        return;
    }
    let file = |file: &Option<std::path::PathBuf>| {
        file.as_ref().map_or_else(String::new, |file| file.display().to_string())
    };
    let info = format!(
        "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, client-cert-auth = {}, crl-file = {}",
        file(&settings.cert_file),
        file(&settings.key_file),
        file(&settings.client_cert_file),
        file(&settings.client_key_file),
        file(&settings.trusted_ca_file),
        settings.client_cert_auth,
        file(&settings.crl_file)
    );
    logging::note(
        &Note::new(Level::Info, &format!("starting with {kind} TLS"))
            .text("tls-info", &info)
            .with("cipher-suites", settings.ciphers.names().to_vec()),
    );
}

/// Says where what was asked for does nothing.
fn passed_over(kind: &str, settings: &Settings, urls: &[Url]) {
    let (scheme, flag, name) = match kind {
        "peer" => ("HTTP", "--peer-client-cert-auth", "peer-url"),
        _ => ("http or unix", "--client-cert-auth", "client-url"),
    };
    for url in urls.iter().filter(|url| !is_secure(url)) {
        let warn = |words: &str| {
            logging::note(&Note::new(Level::Warn, words).text(name, url.as_str()));
        };
        if !settings.is_empty() {
            warn(&format!(
                "scheme is {scheme} while key and cert files are present; ignoring key and cert files"
            ));
        }
        if settings.client_cert_auth {
            warn(&format!(
                "scheme is {scheme} while {flag} is enabled; ignoring client cert auth for this URL"
            ));
        }
    }
}

/// What takes in those who come with TLS, if there are to be any.
fn server(
    settings: &Settings,
    protocols: &[&str],
    urls: &[Url],
    without: impl Fn(&Url) -> String,
) -> Result<Option<Server>, String> {
    let Some(first) = urls.iter().find(|url| is_secure(url)) else { return Ok(None) };
    if settings.is_empty() {
        return Err(without(first));
    }
    Server::new(settings.clone(), protocols).map(Some).map_err(|error| error.to_string())
}

/// Listens at every address once, however many URLs have it.
fn bind(config: &Config, urls: &[Url], server: Option<&Server>) -> Result<Vec<Listener>, String> {
    let is_same = |one: &Url, other: &Url| match (one.socket_addr(), other.socket_addr()) {
        // Port 0 is another one each time.
        (Some(one), Some(other)) => one == other && one.port() != 0,
        (None, None) => one.host == other.host,
        _ => false,
    };
    let mut listeners = Vec::new();
    for (at, url) in urls.iter().enumerate() {
        if urls[..at].iter().any(|earlier| is_same(earlier, url)) {
            continue;
        }
        let here = || urls[at..].iter().filter(|other| other.as_str() == url.as_str() || is_same(url, other));
        let door = Door {
            plain: here().any(|url| !is_secure(url)),
            tls: server.filter(|_| here().any(is_secure)).cloned(),
        };
        listeners.push(listen(config, url, door)?);
    }
    Ok(listeners)
}

fn listen(config: &Config, url: &Url, door: Door) -> Result<Listener, String> {
    if let Scheme::Unix | Scheme::Unixs = url.scheme {
        return Listener::unix(Path::new(&url.host), door)
            .map_err(|error| format!("listen unix {}: bind: {}", url.host, note::system_words(&error)));
    }
    // `Config::new` has made sure that there is an address.
    let address = url.socket_addr().ok_or_else(|| format!("cannot listen at {url}"))?;
    gateway::bind(address, config.socket_reuse_address, config.socket_reuse_port)
        .map(|listener| Listener::tcp(listener, door))
        .map_err(|error| format!("listen tcp {address}: bind: {}", note::system_words(&error)))
}

/// Where clients are served: what there is, the URL, and whether over TLS.
pub(crate) fn told(config: &Config) -> Vec<(&'static str, String, bool)> {
    let told = |traffic: &'static str, urls: &[Url]| -> Vec<_> {
        urls.iter().map(|url| (traffic, url.as_str().to_owned(), is_secure(url))).collect()
    };
    match config.listen_client_http_urls.as_slice() {
        [] => told("grpc+http", &config.listen_client_urls),
        http => [told("grpc", &config.listen_client_urls), told("http", http)].concat(),
    }
}
