//! Certificates, keys, authorities and revocation lists in files.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;

use crate::Error;

/// Where systems keep the authorities that everybody believes; the first that is there counts (Go's list, for
/// Linux).
const SYSTEM_ROOTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::file(path, error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, pem::Error>>()
        .map_err(|error| Error::content(path, error))
}

/// A certificate, what is between it and its authority, and its key, in PEM: PKCS #8, PKCS #1 or SEC 1.
pub(crate) fn pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let chain = certificates(cert)?;
    if chain.is_empty() {
        return Err(Error::content(cert, "tls: failed to find any PEM data in certificate input"));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| {
        let none = matches!(error, pem::Error::NoItemsFound);
        let words =
            if none { "tls: failed to find any PEM data in key input".to_owned() } else { error.to_string() };
        Error::content(key, words)
    })?;
    let pair = CertifiedKey::from_der(chain, secret, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            Error::content(key, "tls: private key does not match public key")
        }
        error => Error::content(key, error),
    })?;
    Ok(Arc::new(pair))
}

/// Authorities.
#[derive(Debug)]
pub(crate) struct Authorities {
    pub(crate) roots: Arc<RootCertStore>,
    /// The certificates themselves: what is among them is believed without another.
    pub(crate) all: Vec<CertificateDer<'static>>,
}

/// The authorities of a file, or those of the system.
pub(crate) fn authorities(file: Option<&Path>) -> Result<Authorities, Error> {
    let all = match file {
        Some(file) => certificates(file)?,
        None => system_roots(),
    };
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in &all {
                roots.add(certificate.clone()).map_err(|error| Error::content(file, error))?;
            }
            if roots.is_empty() {
                return Err(Error::content(file, "there is no certificate in it"));
            }
        }
        // One that is odd does not cost the others.
        None => drop(roots.add_parsable_certificates(all.iter().cloned())),
    }
    Ok(Authorities { roots: Arc::new(roots), all })
}

fn system_roots() -> Vec<CertificateDer<'static>> {
    let named = std::env::var_os("SSL_CERT_FILE");
    let files = named.iter().map(Path::new).chain(SYSTEM_ROOTS.map(Path::new));
    let mut found = files.filter_map(|file| certificates(file).ok());
    found.find(|certificates| !certificates.is_empty()).unwrap_or_default()
}

/// Serial numbers that are not believed any more, without leading zeros.
#[derive(Debug, Default)]
pub(crate) struct Revoked(HashSet<Vec<u8>>);

impl Revoked {
    /// The serial numbers of a list, in DER as etcd wants it, or in PEM.
    pub(crate) fn read(path: &Path) -> Result<Revoked, Error> {
        let bytes = read(path)?;
        let der = match CertificateRevocationListDer::from_pem_slice(&bytes) {
            Ok(der) => der.as_ref().to_vec(),
            Err(_) => bytes,
        };
        let list = CertificateList::from_der(&der)
            .map_err(|error| Error::content(path, format!("no revocation list: {error}")))?;
        let revoked = list.tbs_cert_list.revoked_certificates.into_iter().flatten();
        Ok(Revoked(revoked.map(|one| magnitude(one.serial_number.as_bytes()).to_vec()).collect()))
    }

    pub(crate) fn has(&self, serial: &[u8]) -> bool {
        self.0.contains(magnitude(serial))
    }
}

/// A number without leading zeros.
fn magnitude(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
