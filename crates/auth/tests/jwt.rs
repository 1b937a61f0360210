//! Tokens that are signed: by us, and by etcd.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use auth::{Caller, Error, Jwt};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn read(name: &str) -> std::io::Result<Vec<u8>> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name))
}

fn jwt(options: &[(&str, &str)]) -> Result<Jwt, String> {
    Jwt::new(options, read)
}

fn both(method: &str, private: &str, public: &str) -> (Jwt, Jwt) {
    let signs = jwt(&[("sign-method", method), ("priv-key", private)]).unwrap();
    let checks = if public.is_empty() {
        signs.clone()
    } else {
        jwt(&[("sign-method", method), ("pub-key", public)]).unwrap()
    };
    (signs, checks)
}

const KEYS: [(&str, &str, &str); 18] = [
    ("HS256", "hmac.key", ""),
    ("HS384", "hmac.key", ""),
    ("HS512", "hmac.key", ""),
    ("RS256", "rsa.pem", "rsa.pub"),
    ("RS384", "rsa-old.pem", "rsa.pub"),
    ("RS512", "rsa.pem", "rsa.pub"),
    ("PS256", "rsa.pem", "rsa.pub"),
    ("PS384", "rsa.pem", "rsa.pub"),
    ("PS512", "rsa.pem", "rsa.pub"),
    ("ES256", "p256.pem", "p256.pub"),
    ("ES256", "p256-old.pem", "p256.pub"),
    ("ES256", "p256.pem", "p256.crt"),
    ("ES384", "p384.pem", "p384.pub"),
    ("ES384", "p384-old.pem", "p384.pub"),
    ("ES512", "p521.pem", "p521.pub"),
    ("ES512", "p521-old.pem", "p521.pub"),
    ("EdDSA", "ed.pem", "ed.pub"),
    ("EdDSA", "ed.pem", ""),
];

#[test]
fn what_one_signs_all_others_can_check() {
    for (method, private, public) in KEYS {
        let (signs, checks) = both(method, private, public);
        let token = signs.sign("ann", 7, NOW).unwrap();
        let ann = Some(Caller { user: "ann".into(), revision: 7 });
        assert_eq!(checks.caller(&token, NOW), ann, "{method} {private}");
        assert_eq!(signs.caller(&token, NOW), ann, "{method} {private}");
        assert_eq!(checks.caller(&token, NOW + Duration::from_secs(299)), ann);
        assert_eq!(checks.caller(&token, NOW + Duration::from_secs(300)), None, "five minutes are over");
        // Any letter changed: somebody else's, or nobody's.
        for at in (0..token.len()).step_by(7) {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            // The last letter of a part has bits that mean nothing.
            let harmless = forged.char_indices().nth(at + 1).is_none_or(|(_, next)| next == '.');
            assert!(harmless || checks.caller(&forged, NOW).is_none(), "{method}: {forged}");
        }
        if !public.is_empty() {
            assert_eq!(checks.sign("ann", 7, NOW), Err(Error::VerifyOnly), "{method}");
        }
    }
}

#[test]
fn tokens_of_etcd_are_understood() {
    let tokens = String::from_utf8(read("etcd-tokens.txt").unwrap()).unwrap();
    let mut understood = 0;
    for line in tokens.lines() {
        let (method, token) = line.split_once(' ').unwrap();
        let (_, private, public) = KEYS.iter().find(|(known, ..)| *known == method).unwrap();
        let (_, checks) = both(method, private, public);
        assert_eq!(checks.caller(token, NOW), Some(Caller { user: "root".into(), revision: 3 }), "{method}");
        understood += 1;
    }
    assert_eq!(understood, 9);
}

/// The method is the configured one: nobody signs with what is public, or not at all.
#[test]
fn a_token_does_not_choose_its_method() {
    let (signs, checks) = both("RS256", "rsa.pem", "rsa.pub");
    let token = signs.sign("ann", 7, NOW).unwrap();
    let (_, claims_and_signature) = token.split_once('.').unwrap();
    let (claims, _) = claims_and_signature.split_once('.').unwrap();
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"PS256"}"#, "{}", "x", ""] {
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        assert_eq!(checks.caller(&format!("{header}.{claims_and_signature}"), NOW), None);
        assert_eq!(checks.caller(&format!("{header}.{claims}."), NOW), None);
    }
    // Signed with the public key's text as if it were a secret.
    let secret = jwt(&[("sign-method", "HS256"), ("priv-key", "rsa.pub")]).unwrap();
    assert_eq!(checks.caller(&secret.sign("root", 7, NOW).unwrap(), NOW), None);
    // And by another's key.
    let other = jwt(&[("sign-method", "RS256"), ("priv-key", "rsa-other.pem")]).unwrap();
    assert_eq!(checks.caller(&other.sign("root", 7, NOW).unwrap(), NOW), None);
    for garbage in ["", ".", "..", "...", "a.b.c", "é.é.é", &format!("{token}.x"), &token.replace('.', "")]
    {
        assert_eq!(checks.caller(garbage, NOW), None, "{garbage}");
    }
}

/// Signs claims as they are.
fn with_claims(claims: &str) -> Option<Caller> {
    let secret = read("hmac.key").unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.as_bytes()));
    let token = format!("{signed}.{}", encode(ring::hmac::sign(&key, signed.as_bytes()).as_ref()));
    both("HS256", "hmac.key", "").1.caller(&token, NOW)
}

#[test]
fn claims_are_read_as_etcd_reads_them() {
    let ann = |revision| Some(Caller { user: "ann".into(), revision });
    for (claims, caller) in [
        (r#"{"username":"ann","revision":7}"#, ann(7)),
        (r#"{"username":"ann","revision":7.9,"exp":1800000001}"#, ann(7)),
        (r#"{"username":"ann","revision":7,"exp":1800000000}"#, None),
        (r#"{"username":"ann","revision":7,"exp":0}"#, None),
        (r#"{"username":"ann","revision":7,"exp":"1900000000"}"#, None),
        (r#"{"username":"ann","revision":7,"nbf":1800000000}"#, ann(7)),
        (r#"{"username":"ann","revision":7,"nbf":1800000001}"#, None),
        (r#"{"username":"ann","revision":7,"iat":1900000000}"#, ann(7)),
        (r#"{"username":"ann","revision":-1}"#, ann(0)),
        (r#"{"username":"ann","revision":1e300}"#, ann(u64::MAX)),
        (r#"{"username":"ann","revision":"7"}"#, None),
        (r#"{"username":"ann"}"#, None),
        (r#"{"username":7,"revision":7}"#, None),
        (r#"{"revision":7}"#, None),
        (r#"["username"]"#, None),
        ("null", None),
        ("", None),
    ] {
        assert_eq!(with_claims(claims), caller, "{claims}");
    }
}

#[test]
fn options_that_cannot_work_are_refused() {
    let invalid = "auth: invalid auth options";
    for (options, expected) in [
        (&[][..], invalid),
        (&[("sign-method", "RS257"), ("priv-key", "rsa.pem")], invalid),
        (&[("sign-method", "none"), ("priv-key", "rsa.pem")], invalid),
        (&[("sign-method", "RS256"), ("priv-key", "nowhere.pem")], invalid),
        (&[("sign-method", "RS256"), ("priv-key", "rsa.pem"), ("ttl", "five minutes")], invalid),
        (&[("sign-method", "RS256")], "auth: missing key data"),
        (&[("sign-method", "ES512")], "auth: missing key data"),
        (&[("sign-method", "EdDSA")], "auth: missing key data"),
        (&[("sign-method", "HS256"), ("pub-key", "hmac.key")], "auth: missing key data"),
        (
            &[("sign-method", "RS256"), ("priv-key", "rsa-other.pem"), ("pub-key", "rsa.pub")],
            "auth: public and private keys don't match",
        ),
        (
            &[("sign-method", "ES256"), ("priv-key", "p384.pem")],
            "auth: a key cannot be read, or is not one for ES256",
        ),
        (
            &[("sign-method", "RS256"), ("priv-key", "rsa.pub")],
            "auth: a key cannot be read, or is not one for RS256",
        ),
        (
            &[("sign-method", "EdDSA"), ("pub-key", "rsa.pub")],
            "auth: a key cannot be read, or is not one for EdDSA",
        ),
    ] {
        assert_eq!(jwt(options).unwrap_err(), expected, "{options:?}");
    }
}

#[test]
fn a_ttl_is_read_as_go_reads_it() {
    for (ttl, seconds) in [("10s", 10), ("1m30s", 90), ("1.5h", 5_400), ("1500ms", 1), ("+2s", 2)] {
        let jwt = jwt(&[("sign-method", "HS256"), ("priv-key", "hmac.key"), ("ttl", ttl)]).unwrap();
        let token = jwt.sign("ann", 7, NOW).unwrap();
        let lasts = |seconds| jwt.caller(&token, NOW + Duration::from_secs(seconds)).is_some();
        assert!(lasts(seconds - 1) && !lasts(seconds), "{ttl}");
    }
    for ttl in ["0", "-1s"] {
        let jwt = jwt(&[("sign-method", "HS256"), ("priv-key", "hmac.key"), ("ttl", ttl)]).unwrap();
        assert_eq!(jwt.caller(&jwt.sign("ann", 7, NOW).unwrap(), NOW), None, "{ttl}");
    }
}

/// Whatever a key file holds, it is refused and not fallen over.
#[test]
fn damaged_keys_are_refused() {
    for (method, private, public) in KEYS.into_iter().filter(|(_, _, public)| !public.is_empty()) {
        for file in [private, public] {
            let whole = read(file).unwrap();
            let option = if file == private { "priv-key" } else { "pub-key" };
            for at in (0..whole.len()).step_by(11) {
                for damaged in [whole[..at].to_vec(), {
                    let mut bytes = whole.clone();
                    bytes[at] ^= 0x15;
                    bytes
                }] {
                    // A letter may be one of those that mean nothing; what matters is that it ends.
                    let _ = Jwt::new(&[("sign-method", method), (option, file)], |_| Ok(damaged.clone()));
                }
            }
        }
    }
}
