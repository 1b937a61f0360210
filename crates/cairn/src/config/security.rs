//! What the flags say about TLS.

use std::path::PathBuf;

use tls::{Ciphers, Settings, Version, Versions};

use super::Source;
use crate::flags::Given;

/// TLS for clients and for peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Security {
    /// `--cert-file` and so on.
    pub client: Settings,
    /// `--peer-cert-file` and so on.
    pub peer: Settings,
    /// `--auto-tls`: make a certificate for clients where there is none.
    pub auto_client: bool,
    /// `--peer-auto-tls`.
    pub auto_peer: bool,
    /// `--self-signed-cert-validity`, in years.
    pub validity: u64,
}

impl Security {
    /// # Errors
    /// A version or a cipher suite that there is none of, or a contradiction; in etcd's words where it has some.
    pub(crate) fn new(given: &Given, source: Source) -> Result<Security, String> {
        let words = |error: tls::Error| error.to_string();
        let min = Version::parse(&given.text("tls-min-version")).map_err(words)?;
        let max = Version::parse(&given.text("tls-max-version")).map_err(words)?;
        if let (Some(min_version), Some(max_version)) = (min, max)
            && min_version > max_version
        {
            return Err(format!(
                "min version ({}) is greater than max version ({})",
                given.text("tls-min-version"),
                given.text("tls-max-version")
            ));
        }
        let ciphers = Ciphers::new(list(given, "cipher-suites")).map_err(words)?;
        if min == Some(Version::Tls13) && !ciphers.is_empty() {
            return Err("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
        }
        let usual = Versions::default();
        let versions = Versions { min: min.unwrap_or(usual.min), max: max.unwrap_or(usual.max) };
        let both = Settings { ciphers, versions, ..Settings::default() };
        let client = Settings {
            crl_file: file(given, "client-crl-file"),
            allowed_hostnames: list(given, "client-cert-allowed-hostname"),
            ..family(given, "", &both)
        };
        let peer = Settings {
            crl_file: file(given, "peer-crl-file"),
            allowed_cns: list(given, "peer-cert-allowed-cn"),
            allowed_hostnames: list(given, "peer-cert-allowed-hostname"),
            check_addresses: !given.bool("peer-skip-client-san-verification"),
            ..family(given, "peer-", &both)
        };
        // A file cannot say zero.
        let least = if source == Source::File { 1 } else { 0 };
        Ok(Security {
            client,
            peer,
            auto_client: given.bool("auto-tls"),
            auto_peer: given.bool("peer-auto-tls"),
            validity: given.unsigned("self-signed-cert-validity").max(least),
        })
    }
}

/// The flags that clients and peers both have.
fn family(given: &Given, prefix: &str, both: &Settings) -> Settings {
    let file = |name: &str| file(given, &format!("{prefix}{name}"));
    Settings {
        cert_file: file("cert-file"),
        key_file: file("key-file"),
        client_cert_file: file("client-cert-file"),
        client_key_file: file("client-key-file"),
        trusted_ca_file: file("trusted-ca-file"),
        client_cert_auth: given.bool(&format!("{prefix}client-cert-auth")),
        ..both.clone()
    }
}

fn file(given: &Given, name: &str) -> Option<PathBuf> {
    Some(given.text(name)).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn list(given: &Given, name: &str) -> Vec<String> {
    given.words(name).into_iter().filter(|word| !word.is_empty()).collect()
}
