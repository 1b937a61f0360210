//! JSON web tokens: who, since which revision and until when, signed.
//!
//! Members need not remember them, and so need not have been there when one was handed out; but none
//! can be taken back before its time is over. What is in one is that revision of users and roles at
//! which the password was checked: after any change it is too old for reading and writing keys, and
//! its client asks for another.
//!
//! The signature's method is the one that is configured, whatever a token says of itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use p521::ecdsa::signature::{Signer as _, Verifier as _};
use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
    RsaParameters, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

use crate::caller::Caller;
use crate::error::Error;
use crate::keys::{self, Kind, Private, Public};

/// How long a token is good for where nothing else is said.
const TTL: i128 = 300 * SECOND;
const SECOND: i128 = 1_000_000_000;

const INVALID: &str = "auth: invalid auth options";
const MISSING: &str = "auth: missing key data";
const MISMATCH: &str = "auth: public and private keys don't match";

/// How tokens are signed and checked.
#[derive(Clone)]
pub struct Jwt(Arc<Inner>);

struct Inner {
    method: &'static Method,
    signer: Option<Signer>,
    verifier: Verifier,
    /// In nanoseconds; below zero for tokens that nobody can use.
    ttl: i128,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwt {{ method: {} }}", self.0.method.name)
    }
}

struct Method {
    name: &'static str,
    family: Family,
}

enum Family {
    Hmac(&'static ring::hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding, &'static RsaParameters),
    Ecdsa(Kind, &'static EcdsaSigningAlgorithm, &'static dyn VerificationAlgorithm),
    P521,
    Ed25519,
}

// ring's names are long, and each stands once.
#[rustfmt::skip]
static METHODS: [Method; 13] = [
    Method { name: "HS256", family: Family::Hmac(&ring::hmac::HMAC_SHA256) },
    Method { name: "HS384", family: Family::Hmac(&ring::hmac::HMAC_SHA384) },
    Method { name: "HS512", family: Family::Hmac(&ring::hmac::HMAC_SHA512) },
    Method { name: "RS256", family: Family::Rsa(&signature::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256) },
    Method { name: "RS384", family: Family::Rsa(&signature::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384) },
    Method { name: "RS512", family: Family::Rsa(&signature::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512) },
    Method { name: "PS256", family: Family::Rsa(&signature::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256) },
    Method { name: "PS384", family: Family::Rsa(&signature::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384) },
    Method { name: "PS512", family: Family::Rsa(&signature::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512) },
    Method { name: "ES256", family: Family::Ecdsa(Kind::P256, &signature::ECDSA_P256_SHA256_FIXED_SIGNING, &signature::ECDSA_P256_SHA256_FIXED) },
    Method { name: "ES384", family: Family::Ecdsa(Kind::P384, &signature::ECDSA_P384_SHA384_FIXED_SIGNING, &signature::ECDSA_P384_SHA384_FIXED) },
    Method { name: "ES512", family: Family::P521 },
    Method { name: "EdDSA", family: Family::Ed25519 },
];

enum Signer {
    Hmac(ring::hmac::Key),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    P521(p521::ecdsa::SigningKey),
    Ed25519(Ed25519KeyPair),
}

enum Verifier {
    Hmac(ring::hmac::Key),
    Ring(&'static dyn VerificationAlgorithm, Vec<u8>),
    P521(p521::ecdsa::VerifyingKey),
}

impl Jwt {
    /// From the options of `--auth-token jwt`; `read` reads the files that they name.
    ///
    /// # Errors
    /// What is wrong, in etcd's words where it has some.
    pub fn new(
        options: &[(&str, &str)],
        read: impl Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<Jwt, String> {
        let given = |name: &str| {
            options.iter().find(|(known, value)| *known == name && !value.is_empty()).map(|(_, value)| *value)
        };
        let ttl = given("ttl").map_or(Ok(TTL), |ttl| duration(ttl).ok_or(INVALID))?;
        let file = |name: &str| given(name).map(|path| read(path).map_err(|_| INVALID)).transpose();
        let (public, private) = (file("pub-key")?, file("priv-key")?);
        let method =
            METHODS.iter().find(|method| Some(method.name) == given("sign-method")).ok_or(INVALID)?;
        let present = |key: &Option<Vec<u8>>| key.as_ref().is_some_and(|key| !key.is_empty());
        if let Family::Hmac(algorithm) = method.family {
            let secret = private.filter(|key| !key.is_empty()).ok_or(MISSING)?;
            let key = ring::hmac::Key::new(*algorithm, &secret);
            let verifier = Verifier::Hmac(key.clone());
            return Ok(Jwt(Arc::new(Inner { method, signer: Some(Signer::Hmac(key)), verifier, ttl })));
        }
        if !present(&private) && !present(&public) {
            return Err(MISSING.to_owned());
        }
        let unreadable = || format!("auth: a key cannot be read, or is not one for {}", method.name);
        let public = match public.filter(|key| !key.is_empty()) {
            Some(file) => {
                Some(keys::public(&file).filter(|key| method.takes(key.kind)).ok_or_else(unreadable)?)
            }
            None => None,
        };
        let Some(file) = private.filter(|key| !key.is_empty()) else {
            let public = public.ok_or(MISSING)?;
            let verifier = method.verifier(&public.bytes).ok_or_else(unreadable)?;
            return Ok(Jwt(Arc::new(Inner { method, signer: None, verifier, ttl })));
        };
        let private = keys::private(&file).filter(|key| method.takes(key.kind)).ok_or_else(unreadable)?;
        let (signer, own) = method.signer(private, public.as_ref()).ok_or_else(unreadable)?;
        if public.is_some_and(|public| public.bytes != own) {
            return Err(MISMATCH.to_owned());
        }
        let verifier = method.verifier(&own).ok_or_else(unreadable)?;
        Ok(Jwt(Arc::new(Inner { method, signer: Some(signer), verifier, ttl })))
    }

    /// A token for a user; `now` is the time since 1970.
    ///
    /// # Errors
    /// [`Error::VerifyOnly`] where there is no private key; [`Error::AuthFailed`] if it does not sign.
    pub fn sign(&self, user: &str, revision: u64, now: Duration) -> Result<String, Error> {
        let Inner { method, signer, ttl, .. } = &*self.0;
        let signer = signer.as_ref().ok_or(Error::VerifyOnly)?;
        let until =
            (i128::try_from(now.as_nanos()).unwrap_or(i128::MAX).saturating_add(*ttl)).div_euclid(SECOND);
        let until = i64::try_from(until).unwrap_or(i64::MAX);
        let header = serde_json::json!({ "alg": method.name, "typ": "JWT" });
        let claims = serde_json::json!({ "exp": until, "revision": revision, "username": user });
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = signer.sign(signed.as_bytes()).ok_or(Error::AuthFailed)?;
        Ok(format!("{signed}.{}", encode(&signature)))
    }

    /// A token of these claims, whatever they are, with a good signature.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn signed(&self, claims: &[u8]) -> Option<String> {
        let Inner { method, signer, .. } = &*self.0;
        let header = serde_json::json!({ "alg": method.name, "typ": "JWT" });
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims));
        let signature = signer.as_ref()?.sign(signed.as_bytes())?;
        Some(format!("{signed}.{}", encode(&signature)))
    }

    /// Who a token speaks of, if it is signed and its time has come and is not over.
    pub fn caller(&self, token: &str, now: Duration) -> Option<Caller> {
        let Inner { method, verifier, .. } = &*self.0;
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.').filter(|(_, claims)| !claims.contains('.'))?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        if header.get("alg")?.as_str()? != method.name {
            return None;
        }
        verifier.verify(signed.as_bytes(), &decode(signature)?)?;
        let claims: Value = serde_json::from_slice(&decode(claims)?).ok()?;
        let seconds = now.as_secs_f64();
        // Either may be missing, but what is there must be a time.
        let time = |name: &str| claims.get(name).map_or(Some(None), |time| time.as_f64().map(Some));
        let is_over = time("exp")?.is_some_and(|time| seconds >= time.trunc());
        let is_to_come = time("nbf")?.is_some_and(|time| seconds < time.trunc());
        if is_over || is_to_come {
            return None;
        }
        let revision = claims.get("revision")?.as_f64()?;
        // What is below zero or beyond all numbers becomes the nearest there is.
        Some(Caller { user: claims.get("username")?.as_str()?.to_owned(), revision: revision as u64 })
    }
}

impl Method {
    fn takes(&self, kind: Kind) -> bool {
        match self.family {
            Family::Hmac(_) => false,
            Family::Rsa(..) => kind == Kind::Rsa,
            Family::Ecdsa(curve, ..) => kind == curve,
            Family::P521 => kind == Kind::P521,
            Family::Ed25519 => kind == Kind::Ed25519,
        }
    }

    /// What signs, and the public key that belongs to it.
    fn signer(&self, private: Private, public: Option<&Public>) -> Option<(Signer, Vec<u8>)> {
        Some(match self.family {
            Family::Hmac(_) => return None,
            Family::Rsa(encoding, _) => {
                let pair = RsaKeyPair::from_der(&private.bytes).ok()?;
                let public = pair.public().as_ref().to_vec();
                (Signer::Rsa(pair, encoding), public)
            }
            Family::Ecdsa(_, signing, _) => {
                // A file without the public part, which is rare, needs the other file.
                let own = private.public.or(public.map(|public| public.bytes.clone()))?;
                let random = SystemRandom::new();
                let pair =
                    EcdsaKeyPair::from_private_key_and_public_key(signing, &private.bytes, &own, &random);
                (Signer::Ecdsa(pair.ok()?), own)
            }
            Family::P521 => {
                let key = p521::ecdsa::SigningKey::from_slice(&private.bytes).ok()?;
                let public = p521::ecdsa::VerifyingKey::from(&key).to_encoded_point(false);
                (Signer::P521(key), public.as_bytes().to_vec())
            }
            Family::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&private.bytes).ok()?;
                let public = pair.public_key().as_ref().to_vec();
                (Signer::Ed25519(pair), public)
            }
        })
    }

    fn verifier(&self, public: &[u8]) -> Option<Verifier> {
        Some(match self.family {
            Family::Hmac(_) => return None,
            Family::Rsa(_, parameters) => Verifier::Ring(parameters, public.to_vec()),
            Family::Ecdsa(.., verification) => Verifier::Ring(verification, public.to_vec()),
            Family::P521 => Verifier::P521(p521::ecdsa::VerifyingKey::from_sec1_bytes(public).ok()?),
            Family::Ed25519 => Verifier::Ring(&signature::ED25519, public.to_vec()),
        })
    }
}

impl Signer {
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        Some(match self {
            Signer::Hmac(key) => ring::hmac::sign(key, message).as_ref().to_vec(),
            Signer::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).ok()?;
                signature
            }
            Signer::Ecdsa(pair) => pair.sign(&random, message).ok()?.as_ref().to_vec(),
            Signer::P521(key) => {
                let signature: p521::ecdsa::Signature = key.try_sign(message).ok()?;
                signature.to_vec()
            }
            Signer::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

impl Verifier {
    fn verify(&self, message: &[u8], signature: &[u8]) -> Option<()> {
        match self {
            Verifier::Hmac(key) => ring::hmac::verify(key, message, signature).ok(),
            Verifier::Ring(algorithm, key) => {
                UnparsedPublicKey::new(*algorithm, key).verify(message, signature).ok()
            }
            Verifier::P521(key) => {
                key.verify(message, &p521::ecdsa::Signature::from_slice(signature).ok()?).ok()
            }
        }
    }
}

/// A length of time as Go writes it, such as `1h30m` or `1.5s`, in nanoseconds.
fn duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) =
            after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        sum += (number * unit as f64) as i128;
        rest = after;
        if sum > i128::from(i64::MAX) {
            return None;
        }
    }
    (!text.is_empty()).then_some(sign * sum)
}
