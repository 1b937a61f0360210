//! What one family of flags says.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{SupportedProtocolVersion, version};

use crate::{Ciphers, Error};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// Reads the name of one; none where it is empty.
    ///
    /// # Errors
    /// There is none of this name, in etcd's words; with a word more where there once was one.
    pub fn parse(name: &str) -> Result<Option<Version>, Error> {
        match name {
            "" => Ok(None),
            "TLS1.2" => Ok(Some(Version::Tls12)),
            "TLS1.3" => Ok(Some(Version::Tls13)),
            _ => {
                let old = if matches!(name, "TLS1.0" | "TLS1.1") { "; older ones are not safe" } else { "" };
                Err(Error::Settings(format!(
                    "unexpected TLS version {name:?} (must be one of: TLS1.2, TLS1.3){old}"
                )))
            }
        }
    }
}

/// The versions that are agreed to, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// `--tls-min-version`.
    pub min: Version,
    /// `--tls-max-version`.
    pub max: Version,
}

impl Default for Versions {
    fn default() -> Versions {
        Versions { min: Version::Tls12, max: Version::Tls13 }
    }
}

impl Versions {
    pub(crate) fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        [(Version::Tls13, &version::TLS13), (Version::Tls12, &version::TLS12)]
            .into_iter()
            .filter(|(version, _)| (self.min..=self.max).contains(version))
            .map(|(_, known)| known)
            .collect()
    }
}

/// What is proved to others, and what they have to prove. Each field is the flag of its name, with `peer-` in
/// front for those of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--cert-file`: the certificate to show, and those between it and its authority.
    pub cert_file: Option<PathBuf>,
    /// `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `--client-cert-file`: what to show instead as a client.
    pub client_cert_file: Option<PathBuf>,
    /// `--client-key-file`.
    pub client_key_file: Option<PathBuf>,
    /// `--trusted-ca-file`: the authorities by which others are believed; the system's where it is not given.
    pub trusted_ca_file: Option<PathBuf>,
    /// `--client-cert-auth`: whether clients have to show a certificate. They have to, too, where
    /// there is a `trusted_ca_file`.
    pub client_cert_auth: bool,
    /// `--client-crl-file`: serial numbers that are not believed any more.
    pub crl_file: Option<PathBuf>,
    /// `--peer-cert-allowed-cn`: common names of which one must be in the certificate of the other side.
    pub allowed_cns: Vec<String>,
    /// `--client-cert-allowed-hostname`: names or addresses, likewise.
    pub allowed_hostnames: Vec<String>,
    /// Whether a client must come from where its certificate says: peers must, unless
    /// `--peer-skip-client-san-verification` is given.
    pub check_addresses: bool,
    /// The certificate was made by [`crate::self_signed`], as those of the others were: none is looked at.
    pub self_signed: bool,
    /// `--cipher-suites`.
    pub ciphers: Ciphers,
    /// `--tls-min-version` and `--tls-max-version`.
    pub versions: Versions,
}

impl Settings {
    /// Whether there is nothing to show to anybody.
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_none() && self.key_file.is_none()
    }

    /// Whether clients are asked for a certificate.
    pub fn asks_clients(&self) -> bool {
        self.trusted_ca_file.is_some() || self.client_cert_auth
    }

    /// Looks for contradictions.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let name =
            |file: &Option<PathBuf>| file.as_ref().map_or(String::new(), |file| file.display().to_string());
        let refuse = |words: String| Err(Error::Settings(words));
        if self.cert_file.is_none() || self.key_file.is_none() {
            let (key, cert) = (name(&self.key_file), name(&self.cert_file));
            return refuse(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
        }
        if self.client_cert_file.is_some() != self.client_key_file.is_some() {
            let (key, cert) = (name(&self.client_key_file), name(&self.client_cert_file));
            return refuse(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]"
            ));
        }
        if !self.allowed_cns.is_empty() && !self.allowed_hostnames.is_empty() {
            return refuse(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={}, hostnames={})",
                go_list(&self.allowed_cns),
                go_list(&self.allowed_hostnames)
            ));
        }
        Ok(())
    }

    /// What encrypts and signs.
    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites.retain(|suite| self.ciphers.allow(suite));
        Arc::new(provider)
    }
}

/// A list of words as Go shows one with `%q`.
fn go_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn versions_have_etcds_names() {
        assert_eq!(Version::parse("").unwrap(), None);
        assert_eq!(Version::parse("TLS1.3").unwrap(), Some(Version::Tls13));
        let words = Version::parse("TLS1.4").unwrap_err().to_string();
        assert_eq!(words, "unexpected TLS version \"TLS1.4\" (must be one of: TLS1.2, TLS1.3)");
        assert!(Version::parse("TLS1.1").unwrap_err().to_string().ends_with("older ones are not safe"));
        let only = |min, max| Versions { min, max }.list().len();
        assert_eq!(only(Version::Tls12, Version::Tls12), 1);
        assert_eq!(only(Version::Tls12, Version::Tls13), 2);
    }

    #[test]
    fn contradictions_are_told_in_etcds_words() {
        let pair =
            Settings { cert_file: Some("c".into()), key_file: Some("k".into()), ..Settings::default() };
        pair.check().unwrap();
        let words = |settings: Settings| settings.check().unwrap_err().to_string();
        assert_eq!(
            words(Settings { key_file: None, ..pair.clone() }),
            "KeyFile and CertFile must both be present[key: , cert: c]"
        );
        assert_eq!(
            words(Settings { client_cert_file: Some("x".into()), ..pair.clone() }),
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: x]"
        );
        let both = Settings {
            allowed_cns: vec!["a".into(), "b".into()],
            allowed_hostnames: vec!["h".into()],
            ..pair
        };
        assert_eq!(
            words(both),
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\" \"b\"], hostnames=[\"h\"])"
        );
    }
}
