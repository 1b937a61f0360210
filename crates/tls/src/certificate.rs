//! What a certificate says.

use std::net::IpAddr;

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::{
    BmpString, Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef,
};
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectAltName};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// For what a certificate is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Server,
    Client,
}

impl Use {
    fn id(self) -> ObjectIdentifier {
        match self {
            Use::Server => ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"),
            Use::Client => ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"),
        }
    }
}

/// A certificate that could be read. That says nothing about whether it is believed.
pub(crate) struct Certificate(CertificateInner<Raw>);

impl Certificate {
    pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Certificate> {
        CertificateInner::from_der(der).ok().map(Certificate)
    }

    /// The common name of its subject; the last where there are several, as in Go, and empty where there is none.
    pub(crate) fn common_name(&self) -> String {
        let parts = self.0.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
        parts.filter(|part| part.oid == COMMON_NAME).filter_map(text).next_back().unwrap_or_default()
    }

    pub(crate) fn serial(&self) -> &[u8] {
        self.0.tbs_certificate.serial_number.as_bytes()
    }

    /// The host names and the addresses of which it is the certificate.
    pub(crate) fn names(&self) -> Names {
        let mut names = Names::default();
        let Ok(Some((_, list))) = self.0.tbs_certificate.get::<SubjectAltName>() else { return names };
        for name in list.0 {
            match name {
                GeneralName::DnsName(name) => names.hosts.push(name.as_str().to_owned()),
                GeneralName::IpAddress(bytes) => {
                    let bytes = bytes.as_bytes();
                    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
                    let sixteen = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
                    names.addresses.extend(four.or_else(|_| sixteen()).ok());
                }
                _ => {}
            }
        }
        names
    }

    /// Whether it is good for this use at this time, whoever has issued it.
    pub(crate) fn is_good_for(&self, use_: Use, now: UnixTime) -> bool {
        let validity = &self.0.tbs_certificate.validity;
        let from = validity.not_before.to_unix_duration().as_secs();
        let until = validity.not_after.to_unix_duration().as_secs();
        let usages = match self.0.tbs_certificate.get::<ExtendedKeyUsage>() {
            Ok(usages) => usages.map(|(_, usages)| usages.0),
            Err(_) => return false,
        };
        let for_this =
            |usages: Vec<ObjectIdentifier>| usages.contains(&use_.id()) || usages.contains(&ANY_USAGE);
        (from..=until).contains(&now.as_secs()) && usages.is_none_or(for_this)
    }
}

/// Of whom a certificate is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) hosts: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Whether it is the certificate of this host: a name, or an address in brackets or without.
pub(crate) fn is_of_host(der: &CertificateDer<'_>, host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let Ok(name) = ServerName::try_from(host) else { return false };
    EndEntityCert::try_from(der)
        .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

/// A string in any of the shapes that names have.
fn text(part: &AttributeTypeAndValue) -> Option<String> {
    let value = &part.value;
    match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().to_owned()),
        Tag::PrintableString => {
            value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.as_str().to_owned())
        }
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok().map(|text| text.as_str().to_owned()),
        Tag::TeletexString => {
            value.decode_as::<TeletexStringRef<'_>>().ok().map(|text| text.as_str().to_owned())
        }
        Tag::BmpString => value.decode_as::<BmpString>().ok().map(|text| text.to_string()),
        _ => None,
    }
}
