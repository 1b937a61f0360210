//! Cipher suites by the names that Go gives them.

use std::fmt;

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite as ring;

use crate::Error;

/// Those of TLS 1.2 that there are, and both of Go's names where there are two.
const SUITES: [(&str, &SupportedCipherSuite); 8] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", &ring::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", &ring::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", &ring::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", &ring::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", &ring::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", &ring::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", &ring::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", &ring::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Those of TLS 1.3. They can be named, and are at work whether they are or not: as in Go, none can be ruled out.
const ALWAYS: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Those that Go has, and that are not safe enough to have here.
const WEAK: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// `--cipher-suites`: which are agreed to with TLS 1.2; all there are unless some are named.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ciphers(Vec<String>);

impl Ciphers {
    /// Those of these names.
    ///
    /// # Errors
    /// A name that nobody knows, in etcd's words; or one of a suite that there is none of here.
    pub fn new(names: Vec<String>) -> Result<Ciphers, Error> {
        for name in &names {
            let name = name.as_str();
            if WEAK.contains(&name) {
                return Err(Error::Settings(format!(
                    "TLS cipher suite {name:?} is not supported by Cairn: only those of TLS 1.3 and those of TLS 1.2 \
                     with ECDHE and AES-GCM or ChaCha20-Poly1305 are. Leave it out"
                )));
            }
            if !ALWAYS.contains(&name) && !SUITES.iter().any(|(known, _)| *known == name) {
                return Err(Error::Settings(format!("unexpected TLS cipher suite {name:?}")));
            }
        }
        Ok(Ciphers(names))
    }

    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, as given.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    pub(crate) fn allow(&self, suite: &SupportedCipherSuite) -> bool {
        self.0.is_empty()
            || suite.tls13().is_some()
            || SUITES.iter().any(|(name, known)| *known == suite && self.0.iter().any(|given| given == name))
    }
}

impl fmt::Debug for Ciphers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn named(names: &[&str]) -> Result<Ciphers, String> {
        Ciphers::new(names.iter().map(|name| (*name).to_owned()).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_rules_out_what_it_does_not_name_but_for_tls_1_3() {
        let all = &rustls::crypto::ring::default_provider().cipher_suites;
        let left = |names: &[&str]| {
            let ciphers = named(names).unwrap();
            let left = all.iter().filter(|suite| ciphers.allow(suite));
            left.map(|suite| format!("{:?}", suite.suite())).collect::<Vec<String>>()
        };
        assert_eq!(left(&[]).len(), 9);
        let newer = left(&["TLS_AES_128_GCM_SHA256"]);
        assert_eq!(newer.len(), 3, "{newer:?}");
        let both = left(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]);
        assert_eq!(both.len(), 5, "{both:?}");
        assert!(both.contains(&"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256".to_owned()), "{both:?}");
    }

    #[test]
    fn what_there_is_not_is_refused() {
        assert_eq!(named(&["TLS_X"]).unwrap_err(), "unexpected TLS cipher suite \"TLS_X\"");
        for weak in WEAK {
            let words = named(&["TLS_AES_128_GCM_SHA256", weak]).unwrap_err();
            assert!(words.contains(weak) && words.contains("not supported by Cairn"), "{words}");
        }
    }
}
