//! The store and the tokens, for all threads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::caller::Caller;
use crate::store::Store;
use crate::token::SimpleTokens;

/// Who may do what; clones share it. The apply thread changes it, and everybody asks. No lock is held
/// for longer than one change or question.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    store: RwLock<Store>,
    tokens: Mutex<SimpleTokens>,
    // What every request wants to know, without a lock. Written under the store's.
    enabled: AtomicBool,
    revision: AtomicU64,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither hashes nor tokens belong into a log.
        write!(f, "Auth {{ enabled: {}, revision: {} }}", self.is_enabled(), self.revision())
    }
}

impl Auth {
    /// A store, with tokens that may go unused for `token_ttl`.
    pub fn new(store: Store, token_ttl: Duration) -> Self {
        let (enabled, revision) = (store.is_enabled().into(), store.revision().into());
        let tokens = Mutex::new(SimpleTokens::new(token_ttl));
        Auth(Arc::new(Inner { store: RwLock::new(store), tokens, enabled, revision }))
    }

    /// Whether authentication is on.
    pub fn is_enabled(&self) -> bool {
        self.0.enabled.load(Ordering::Acquire)
    }

    /// The revision of users and roles.
    pub fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }

    /// Asks the store.
    pub fn read<T>(&self, ask: impl FnOnce(&Store) -> T) -> T {
        ask(&self.0.store.read())
    }

    /// Changes the store: for the apply thread.
    pub fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.0.store.write();
        let result = change(&mut store);
        self.0.enabled.store(store.is_enabled(), Ordering::Release);
        self.0.revision.store(store.revision(), Ordering::Release);
        result
    }

    /// Puts another store in its place: that of a snapshot. Tokens stay, as in etcd.
    pub fn replace(&self, store: Store) {
        self.change(|old| *old = store);
    }

    /// Uses the tokens.
    pub fn tokens<T>(&self, ask: impl FnOnce(&mut SimpleTokens) -> T) -> T {
        ask(&mut self.0.tokens.lock())
    }

    /// Whose simple token this is, as of now; authentication must be on.
    pub fn caller_of_token(&self, token: &str, now: Duration) -> Option<Caller> {
        // First the revision: a change that comes between makes the caller an old one.
        let revision = self.revision();
        let user = self.tokens(|tokens| tokens.user(token, now))?;
        Some(Caller { user, revision })
    }
}
