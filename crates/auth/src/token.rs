//! Simple tokens: random letters that a member remembers.

use std::collections::BTreeMap;
use std::time::Duration;

/// What the random part of a token is made of, and how much of it there is: 91 bits.
pub const TOKEN_LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// How many letters a token begins with.
pub const TOKEN_LETTERS_COUNT: usize = 16;

/// Tokens that are no use any more are looked for no more often than this.
const SWEEP: Duration = Duration::from_secs(1);

/// The tokens that a member knows, each of a user, until it has not been used for a while.
///
/// A token reads `letters.index`. The letters are the secret; they were drawn by the member that was
/// asked for the token. The index says how far a member must have come in the log to know it: the
/// place of the request for it, or the place before that one, by which versions of etcd differ.
#[derive(Debug)]
pub struct SimpleTokens {
    /// How long a token may go unused.
    ttl: Duration,
    by_letters: BTreeMap<String, Token>,
    next_sweep: Duration,
}

#[derive(Debug)]
struct Token {
    user: String,
    index: u64,
    until: Duration,
}

impl SimpleTokens {
    /// No tokens; those to come may go unused for `ttl`.
    pub fn new(ttl: Duration) -> Self {
        SimpleTokens { ttl, by_letters: BTreeMap::new(), next_sweep: Duration::ZERO }
    }

    /// Makes letters a token of a user, out of the entry at `index` of the log; the token.
    pub fn assign(&mut self, user: &str, letters: &str, index: u64, now: Duration) -> String {
        if now >= self.next_sweep {
            self.by_letters.retain(|_, token| token.until > now);
            self.next_sweep = now + SWEEP;
        }
        let token = Token { user: user.to_owned(), index, until: now + self.ttl };
        self.by_letters.insert(letters.to_owned(), token);
        // As etcd 3.7 writes it: what is applied while the request for it is not.
        format!("{letters}.{}", index.saturating_sub(1))
    }

    /// Whose token this is. It lasts longer for having been used.
    pub fn user(&mut self, token: &str, now: Duration) -> Option<String> {
        let (letters, index) = parts(token)?;
        let known = self.by_letters.get_mut(letters)?;
        if known.until <= now || !(index == known.index || index.checked_add(1) == Some(known.index)) {
            return None;
        }
        known.until = now + self.ttl;
        Some(known.user.clone())
    }

    /// Forgets a user's tokens.
    pub fn forget_user(&mut self, user: &str) {
        self.by_letters.retain(|_, token| token.user != user);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.by_letters.clear();
    }

    /// How many there are, unused ones included.
    pub fn len(&self) -> usize {
        self.by_letters.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_letters.is_empty()
    }

    /// How far in the log a member must be to know this token, if it is one by its form.
    pub fn index_of(token: &str) -> Option<u64> {
        parts(token).map(|(_, index)| index)
    }
}

fn parts(token: &str) -> Option<(&str, u64)> {
    let (letters, index) = token.split_once('.')?;
    // Nothing but digits: a number may be written in one way only.
    let is_number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    let index = index.parse::<u64>().ok().filter(|index| is_number && *index < u64::MAX)?;
    Some((letters, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_lasts_for_as_long_as_it_is_used() {
        let mut tokens = SimpleTokens::new(at(300));
        let token = tokens.assign("ann", "abcdefghijklmnop", 12, at(0));
        assert_eq!(token, "abcdefghijklmnop.11");
        assert_eq!(tokens.user(&token, at(299)).as_deref(), Some("ann"));
        assert_eq!(tokens.user(&token, at(598)).as_deref(), Some("ann"));
        assert_eq!(tokens.user(&token, at(898)), None);
    }

    #[test]
    fn only_the_whole_token_counts() {
        let mut tokens = SimpleTokens::new(at(300));
        tokens.assign("ann", "abcdefghijklmnop", 12, at(0));
        let mut known = |token: &str| tokens.user(token, at(1)).is_some();
        assert!(known("abcdefghijklmnop.11") && known("abcdefghijklmnop.12"));
        for wrong in [
            "",
            ".",
            "abcdefghijklmnop",
            "abcdefghijklmnop.",
            "abcdefghijklmnop.10",
            "abcdefghijklmnop.13",
            "abcdefghijklmnop.+11",
            "abcdefghijklmnop.11.",
            "abcdefghijklmno.11",
            "abcdefghijklmnop.18446744073709551615",
            "abcdefghijklmnop.99999999999999999999",
        ] {
            assert!(!known(wrong), "{wrong:?}");
        }
        assert_eq!(SimpleTokens::index_of("x.77"), Some(77));
        assert_eq!(SimpleTokens::index_of("header.claims.signature"), None);
    }

    #[test]
    fn a_user_that_goes_takes_its_tokens_along() {
        let mut tokens = SimpleTokens::new(at(300));
        let (ann, bob) = (tokens.assign("ann", "a", 1, at(0)), tokens.assign("bob", "b", 2, at(0)));
        tokens.forget_user("ann");
        assert_eq!((tokens.user(&ann, at(1)), tokens.user(&bob, at(1))), (None, Some("bob".into())));
    }

    #[test]
    fn what_nobody_uses_is_thrown_away() {
        let mut tokens = SimpleTokens::new(at(10));
        for second in 0..10_000 {
            tokens.assign("ann", &format!("t{second}"), second, at(second));
            assert!(tokens.len() <= 12, "{} at {second}", tokens.len());
        }
    }
}
