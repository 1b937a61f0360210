//! Tokens and keys made of any bytes: what fuzz targets call, and the tests that repeat what these have found.

use std::time::Duration;

use crate::{Jwt, SimpleTokens};

/// What no fuzzer guesses.
const SECRET: &[u8] = b"the secret of these tests";

/// Presents `input` as a token, and as a key file for the method that its first byte chooses.
///
/// # Panics
/// If somebody is let in.
pub fn token(input: &[u8]) {
    let now = Duration::from_secs(1_000_000_000);
    let options = [("sign-method", "HS256"), ("priv-key", "secret")];
    let jwt = Jwt::new(&options, |_| Ok(SECRET.to_vec())).expect("a good key");
    if let Ok(text) = std::str::from_utf8(input) {
        assert!(jwt.caller(text, now).is_none(), "forged: {text}");
        let mut simple = SimpleTokens::new(now);
        simple.assign("user", "letters", 7, now);
        assert!(
            simple.user(text, now).is_none() || matches!(text, "letters.6" | "letters.7"),
            "forged: {text}"
        );
        let _ = simple.user(&format!("letters.{text}"), now);
        let _ = SimpleTokens::index_of(text);
    }
    // What is behind the signature, with a good one.
    let own = jwt.signed(input).expect("a secret signs");
    let _ = jwt.caller(&own, now);

    const METHODS: [&str; 8] = ["HS512", "RS256", "PS384", "ES256", "ES384", "ES512", "EdDSA", "none"];
    let Some((&method, file)) = input.split_first() else { return };
    let method = METHODS[usize::from(method) % METHODS.len()];
    for name in ["pub-key", "priv-key"] {
        let options = [("sign-method", method), (name, "file")];
        if let Ok(jwt) = Jwt::new(&options, |_| Ok(file.to_vec())) {
            let _ = jwt.sign("user", 1, now);
            assert!(method != "none");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// What the fuzzer has found worth keeping, see tests/fuzz.
    #[test]
    fn tokens_of_the_corpus_let_nobody_in() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/token");
        let files = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path());
        assert!(files.map(|file| super::token(&std::fs::read(file).unwrap())).count() > 0);
    }
}
