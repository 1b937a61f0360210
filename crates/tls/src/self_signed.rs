//! `--auto-tls`: a certificate made on the spot, for those who want encryption and have no authority.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384,
};
use time::OffsetDateTime;

use crate::{Error, Settings};

/// A year, as etcd counts.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Settings with a certificate and a key in `dir`, made for `hosts` and good for `years` unless they are there
/// already.
///
/// # Errors
/// They cannot be made or written.
pub fn self_signed(dir: &Path, hosts: &[String], years: u64) -> Result<Settings, Error> {
    if years == 0 {
        // etcd's words.
        return Err(Error::Settings(
            "selfSignedCertValidity is invalid,it should be greater than 0".to_owned(),
        ));
    }
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if !(cert.exists() && key.exists()) {
        fs::create_dir_all(dir).map_err(|error| Error::file(dir, error))?;
        let made = |error: rcgen::Error| Error::content(dir, format!("cannot make a certificate: {error}"));
        let secret = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).map_err(made)?;
        let params = params(hosts, years).map_err(|words| Error::content(dir, words))?;
        tracing::warn!(
            "certificate-validity-bound-not-after" = %params.not_after,
            "automatically generate certificates"
        );
        let shown = params.self_signed(&secret).map_err(made)?;
        write(&cert, &shown.pem(), 0o644)?;
        tracing::info!(path = %cert.display(), "created cert file");
        write(&key, &secret.serialize_pem(), 0o600)?;
        tracing::info!(path = %key.display(), "created key file");
    }
    Ok(Settings {
        client_cert_file: Some(cert.clone()),
        client_key_file: Some(key.clone()),
        cert_file: Some(cert),
        key_file: Some(key),
        self_signed: true,
        ..Settings::default()
    })
}

fn params(hosts: &[String], years: u64) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(hosts.to_vec()).map_err(|error| error.to_string())?;
    let now = SystemTime::now();
    let length = u32::try_from(years).ok().and_then(|years| YEAR.checked_mul(years));
    let end = length.and_then(|length| now.checked_add(length));
    // Beyond the year 9999 no certificate can go.
    const LAST: i64 = 253_402_300_799;
    let end = end.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok()).map(|end| end.as_secs());
    let end = end.and_then(|end| i64::try_from(end).ok()).filter(|end| *end <= LAST);
    let end = end.ok_or("a certificate cannot be good for that long")?;
    params.not_before = OffsetDateTime::from(now);
    params.not_after = OffsetDateTime::from_unix_timestamp(end).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn write(path: &Path, pem: &str, mode: u32) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(pem.as_bytes()))
        .map_err(|error| Error::file(path, error))
}
