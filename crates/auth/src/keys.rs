//! Key files as operators have them: PEM around DER, in the forms that OpenSSL and Go write.
//!
//! Little is read of them: which kind of key, and its bytes. Whether these are a key of that kind is for
//! the signature library to say.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// The kinds of keys, each by its algorithm, and those on curves by their curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

/// A public key: an RSA key in PKCS #1's form, the bytes of a point for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Public {
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

/// A private key.
pub(crate) struct Private {
    pub(crate) kind: Kind,
    /// An RSA key in PKCS #1's form, a scalar on a curve, an Ed25519 seed.
    pub(crate) bytes: Vec<u8>,
    /// The public key, where it lies beside it.
    pub(crate) public: Option<Vec<u8>>,
}

// Tags of DER.
const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;

// Object identifiers, as DER writes them.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// The first block of a PEM file: its label and what is in it.
fn pem(file: &[u8]) -> Option<(&str, Vec<u8>)> {
    let text = std::str::from_utf8(file).ok()?;
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_ascii_whitespace().collect();
    Some((label, BASE64_STANDARD.decode(body).ok()?))
}

/// Takes one value off the front: its tag and its contents.
fn any<'a>(der: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let bytes = usize::from(first & 0x7f);
        if bytes == 0 || bytes > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(bytes)?;
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = after;
    }
    let (contents, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some((tag, contents))
}

/// The same of a value that must have this tag.
fn take<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    any(der).filter(|(found, _)| *found == tag).map(|(_, contents)| contents)
}

fn bits(contents: &[u8]) -> Option<&[u8]> {
    contents.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
}

fn curve(object: &[u8]) -> Option<Kind> {
    [(P256, Kind::P256), (P384, Kind::P384), (P521, Kind::P521)]
        .into_iter()
        .find_map(|(known, kind)| (known == object).then_some(kind))
}

/// The kind that an algorithm identifier names.
fn algorithm(mut identifier: &[u8]) -> Option<Kind> {
    match take(&mut identifier, OBJECT)? {
        RSA => Some(Kind::Rsa),
        ED25519 => Some(Kind::Ed25519),
        EC => curve(take(&mut identifier, OBJECT)?),
        _ => None,
    }
}

/// Reads a public key, or the one in a certificate.
pub(crate) fn public(file: &[u8]) -> Option<Public> {
    let (label, der) = pem(file)?;
    let mut der = der.as_slice();
    match label {
        "RSA PUBLIC KEY" => Some(Public { kind: Kind::Rsa, bytes: der.to_vec() }),
        "PUBLIC KEY" => subject(take(&mut der, SEQUENCE)?),
        "CERTIFICATE" => {
            let mut certificate = take(&mut der, SEQUENCE)?;
            let mut signed = take(&mut certificate, SEQUENCE)?;
            if signed.first() == Some(&CONTEXT_0) {
                any(&mut signed)?;
            }
            // Serial number, signature, issuer, validity, subject.
            take(&mut signed, INTEGER)?;
            for _ in 0..4 {
                take(&mut signed, SEQUENCE)?;
            }
            subject(take(&mut signed, SEQUENCE)?)
        }
        _ => None,
    }
}

/// A key as certificates have it.
fn subject(mut info: &[u8]) -> Option<Public> {
    let kind = algorithm(take(&mut info, SEQUENCE)?)?;
    Some(Public { kind, bytes: bits(take(&mut info, BITS)?)?.to_vec() })
}

/// Reads a private key that is not locked by a password.
pub(crate) fn private(file: &[u8]) -> Option<Private> {
    let (label, der) = pem(file)?;
    let mut der = der.as_slice();
    match label {
        "RSA PRIVATE KEY" => Some(Private { kind: Kind::Rsa, bytes: der.to_vec(), public: None }),
        "EC PRIVATE KEY" => on_curve(take(&mut der, SEQUENCE)?, None),
        "PRIVATE KEY" => {
            let mut info = take(&mut der, SEQUENCE)?;
            take(&mut info, INTEGER)?;
            let kind = algorithm(take(&mut info, SEQUENCE)?)?;
            let mut key = take(&mut info, OCTETS)?;
            match kind {
                Kind::Rsa => Some(Private { kind, bytes: key.to_vec(), public: None }),
                Kind::Ed25519 => {
                    Some(Private { kind, bytes: take(&mut key, OCTETS)?.to_vec(), public: None })
                }
                Kind::P256 | Kind::P384 | Kind::P521 => on_curve(take(&mut key, SEQUENCE)?, Some(kind)),
            }
        }
        _ => None,
    }
}

fn on_curve(mut key: &[u8], mut kind: Option<Kind>) -> Option<Private> {
    take(&mut key, INTEGER)?;
    let bytes = take(&mut key, OCTETS)?.to_vec();
    let mut public = None;
    while !key.is_empty() {
        match any(&mut key)? {
            (CONTEXT_0, mut parameters) => kind = Some(curve(take(&mut parameters, OBJECT)?)?),
            (CONTEXT_1, mut beside) => public = Some(bits(take(&mut beside, BITS)?)?.to_vec()),
            _ => {}
        }
    }
    Some(Private { kind: kind?, bytes, public })
}
