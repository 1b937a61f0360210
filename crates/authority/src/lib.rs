//! An authority of one's own: certificates, keys and revocation lists for tests. Nothing that serves depends on it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// Issues certificates.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key, PKCS #8.
    pub key: String,
}

/// What a certificate is to say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The common name; none where it is empty.
    pub common_name: &'a str,
    /// Host names and addresses.
    pub names: &'a [&'a str],
    /// The serial number; any where it is zero.
    pub serial: u64,
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if !common_name.is_empty() {
        name.push(DnType::CommonName, common_name);
    }
    name
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from(SystemTime::now())
}

impl Authority {
    /// A new one.
    pub fn new(common_name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Writes its own certificate to a file.
    pub fn write(&self, path: &Path) -> PathBuf {
        replace(path, self.pem().as_bytes());
        path.to_owned()
    }

    /// A certificate for a server and a client alike, good for a day.
    pub fn issue(&self, subject: Subject<'_>) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = subject.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = name(subject.common_name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = now() - Duration::hours(1);
        params.not_after = now() + Duration::days(1);
        if subject.serial != 0 {
            params.serial_number = Some(SerialNumber::from(subject.serial));
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: certificate.pem(), key: key.serialize_pem() }
    }

    /// The list of those that are not to be believed any more: in DER, and in PEM.
    pub fn revoke(&self, serials: &[u64]) -> (Vec<u8>, String) {
        let one = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now(),
            next_update: now() + Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(one).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).unwrap();
        (list.der().to_vec(), list.pem().unwrap())
    }
}

impl Pair {
    /// Writes both to `name.crt` and `name.key`, and tells where they are.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        replace(&cert, self.cert.as_bytes());
        replace(&key, self.key.as_bytes());
        (cert, key)
    }
}

/// Puts a new file in the place of an old one, as whoever renews certificates does.
pub fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(&new, path).unwrap();
}
