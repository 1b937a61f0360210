//! `--auth-token`: the kind of tokens that this member hands out and takes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use auth::{Auth, Caller, Error, Jwt, TOKEN_LETTERS, TOKEN_LETTERS_COUNT};

/// A kind of tokens. All members should have the same.
#[derive(Clone, Debug, Default)]
pub enum AuthToken {
    /// Random letters that members remember.
    #[default]
    Simple,
    /// Signed ones.
    Jwt(Jwt),
    /// None: only certificates tell who a client is.
    None,
}

impl AuthToken {
    /// Reads the flag: a kind, and its options as `name=value`, separated by commas.
    ///
    /// # Errors
    /// What is wrong, in etcd's words.
    pub fn parse(flag: &str) -> Result<Self, String> {
        const INVALID: &str = "auth: invalid auth options";
        let mut parts = flag.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options: Vec<(&str, &str)> = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(INVALID)?;
            if value.contains('=') || options.iter().any(|(known, _)| *known == name) {
                return Err(INVALID.to_owned());
            }
            options.push((name, value));
        }
        match kind {
            "simple" => Ok(Self::Simple),
            "jwt" => {
                const KNOWN: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];
                let unknown: Vec<&str> =
                    options.iter().map(|(name, _)| *name).filter(|name| !KNOWN.contains(name)).collect();
                if !unknown.is_empty() {
                    tracing::warn!(keys = ?unknown, "unknown JWT options");
                }
                Jwt::new(&options, |path| std::fs::read(path)).map(Self::Jwt)
            }
            "" => Ok(Self::None),
            _ => Err(INVALID.to_owned()),
        }
    }

    /// Whether members must have been there when a token was handed out.
    pub(crate) fn is_simple(&self) -> bool {
        matches!(self, Self::Simple)
    }

    /// Whose token this is.
    pub(crate) fn caller(&self, auth: &Auth, token: &str, now: Duration) -> Option<Caller> {
        match self {
            Self::Simple => auth.caller_of_token(token, now),
            Self::Jwt(jwt) => jwt.caller(token, since_1970()),
            Self::None => None,
        }
    }

    /// What a simple token begins with; empty where none is wanted. Nothing if the system has no chance
    /// to draw it by.
    pub(crate) fn letters(&self) -> Option<String> {
        match self {
            Self::Simple => random_letters(),
            Self::Jwt(_) | Self::None => Some(String::new()),
        }
    }

    /// The token to hand out, given what became of the letters in the log.
    pub(crate) fn token(&self, user: &str, revision: u64, simple: String) -> Result<String, Error> {
        match self {
            Self::Simple => Ok(simple),
            Self::Jwt(jwt) => jwt.sign(user, revision, since_1970()),
            Self::None => Err(Error::AuthFailed),
        }
    }
}

/// Signed tokens name a time that all the world agrees on.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn random_letters() -> Option<String> {
    let mut letters = String::with_capacity(TOKEN_LETTERS_COUNT);
    while letters.len() < TOKEN_LETTERS_COUNT {
        let mut bytes = [0; 2 * TOKEN_LETTERS_COUNT];
        getrandom::fill(&mut bytes).ok()?;
        // Of the numbers below 64, those that name a letter: each as likely as any other.
        let drawn = bytes.iter().filter_map(|byte| TOKEN_LETTERS.get(usize::from(byte & 63)));
        letters.extend(drawn.map(|letter| char::from(*letter)).take(TOKEN_LETTERS_COUNT - letters.len()));
    }
    Some(letters)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn letters_are_random_and_all_of_them_occur() {
        let drawn: Vec<String> = (0..200).map(|_| random_letters().unwrap()).collect();
        assert!(drawn.iter().all(|letters| letters.len() == TOKEN_LETTERS_COUNT));
        assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), 200);
        let seen: BTreeSet<u8> = drawn.iter().flat_map(|letters| letters.bytes()).collect();
        assert_eq!(seen, TOKEN_LETTERS.iter().copied().collect());
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for flag in ["magic", "simple,x", "simple,a=b=c", "simple,a=1,a=2", "Simple"] {
            assert_eq!(AuthToken::parse(flag).unwrap_err(), "auth: invalid auth options", "{flag}");
        }
        assert!(matches!(AuthToken::parse("simple").unwrap(), AuthToken::Simple));
        assert_eq!(AuthToken::parse("jwt").unwrap_err(), "auth: invalid auth options");
        let missing = AuthToken::parse("jwt,sign-method=ES256").unwrap_err();
        assert_eq!(missing, "auth: missing key data");
        assert!(matches!(AuthToken::parse("").unwrap(), AuthToken::None));
    }
}
