//! Who a client is, and what it may: the member's side of users, roles and permissions.
//!
//! What a client shows is looked at for every call, and for every message of a stream: a token may
//! have come to an end meanwhile. What it may is decided where its request is applied, with what is
//! written about it in the entry; and here, beside the log, for what never enters it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use api::etcdserverpb::InternalAuthenticateRequest;
use api::raft_request::Command;
use apply::permission::{self, Need};
use apply::{AuthReply, Body, Rejection, Reply};
use auth::{Auth, Caller, SimpleTokens};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::error::Error;
use crate::member::Member;
use crate::passwords::{PasswordError, cost_of};
use crate::slow::{self, Applying};

/// How often a password is checked again because users or roles have changed meanwhile.
const ROUNDS: usize = 16;

/// What a client shows of itself with a call.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The token out of the call's metadata.
    pub token: Option<String>,
    /// The common name in the certificate that it proved to own, where such certificates are asked for.
    pub common_name: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "a token" } else { "no token" };
        write!(f, "Credentials {{ {token}, common_name: {:?} }}", self.common_name)
    }
}

/// What a password comes to.
pub struct Authenticated {
    /// The revision of keys for the answer's header.
    pub revision: i64,
    /// The token.
    pub token: String,
}

impl Member {
    /// Users, roles and tokens.
    pub fn auth(&self) -> &Auth {
        &self.shared().auth
    }

    /// Waits until a simple token that is shown here for the first time can be known here: it was
    /// handed out by a member that may be further in the log than this one.
    pub async fn await_token(&self, credentials: &Credentials) {
        let Some(token) = credentials.token.as_ref().filter(|_| self.auth().is_enabled()) else { return };
        let Some(index) = SimpleTokens::index_of(token).filter(|_| self.config().auth_token.is_simple())
        else {
            return;
        };
        if index > self.raft().applied() {
            // Whatever was handed out before now is applied after it. A number that was made up is not
            // waited for, and if nobody leads the token is just not known.
            let _ = self.linearize().await;
        }
    }

    /// Who shows these credentials; nobody while authentication is off.
    ///
    /// # Errors
    /// [`auth::Error::InvalidToken`].
    pub fn caller(&self, credentials: &Credentials) -> Result<Caller, auth::Error> {
        if !self.auth().is_enabled() {
            return Ok(Caller::default());
        }
        match (&credentials.token, &credentials.common_name) {
            (Some(token), _) => {
                let caller = self.config().auth_token.caller(self.auth(), token, self.now());
                if caller.is_none() {
                    tracing::warn!("invalid auth token");
                }
                caller.ok_or(auth::Error::InvalidToken)
            }
            (None, Some(name)) if self.config().client_cert_auth => {
                Ok(Caller { revision: self.auth().revision(), user: name.clone() })
            }
            (None, _) => Ok(Caller::default()),
        }
    }

    /// Whether a caller may do all of this, as of now.
    ///
    /// # Errors
    /// The first refusal.
    pub fn allow(&self, caller: &Caller, needs: &[Need<'_>]) -> Result<(), auth::Error> {
        permission::check(self.auth(), self.lessor(), caller, needs)
    }

    /// Whether a caller is anybody at all, where somebody is asked for.
    ///
    /// # Errors
    /// [`auth::Error::UserEmpty`].
    pub fn require_somebody(&self, caller: &Caller) -> Result<(), auth::Error> {
        if self.auth().is_enabled() && caller.is_nobody() { Err(auth::Error::UserEmpty) } else { Ok(()) }
    }

    /// Whether users and roles are still what they were when the caller was found out, so that what was
    /// read meanwhile may be told.
    ///
    /// # Errors
    /// [`auth::Error::OldRevision`].
    pub fn still(&self, caller: &Caller) -> Result<(), auth::Error> {
        if caller.revision != 0 && caller.revision != self.auth().revision() {
            return Err(auth::Error::OldRevision);
        }
        Ok(())
    }

    /// The name under which this member does what clients did not ask for.
    pub(crate) fn own_name(&self) -> Caller {
        if self.auth().is_enabled() {
            Caller { user: auth::ROOT_USER.to_owned(), revision: self.auth().revision() }
        } else {
            Caller::default()
        }
    }

    /// The hash of a password, in the form in which it travels through the log.
    ///
    /// # Errors
    /// It is too long, or too many wait already.
    pub async fn hash_password(&self, password: String) -> Result<String, PasswordError> {
        Ok(BASE64_STANDARD.encode(self.passwords().hash(password).await?))
    }

    /// Checks a password, and has all members know a token for it.
    ///
    /// What is answered does not tell whether there is such a user, and nor does the time that it takes.
    ///
    /// # Errors
    /// As [`Member::propose`]; [`auth::Error::AuthFailed`] for a password that is not the user's.
    pub async fn authenticate(
        self: &Arc<Self>,
        name: &str,
        password: &str,
    ) -> Result<Result<Authenticated, Rejection>, Error> {
        self.linearize().await?;
        for _ in 0..ROUNDS {
            let auth = self.auth();
            if !auth.is_enabled() {
                return Ok(Err(auth::Error::NotEnabled.into()));
            }
            let (checked, hash, costliest) = auth.read(|store| {
                let costs = store.password_hashes().filter_map(|hash| cost_of(str::from_utf8(hash).ok()?));
                (store.revision(), store.password_hash(name), costs.max().unwrap_or(0))
            });
            let hash = hash.and_then(|hash| String::from_utf8(hash.to_vec()).ok());
            if !self.passwords().verify(password.to_owned(), hash, costliest).await? {
                tracing::warn!(user = name, "invalid authentication was requested");
                return Ok(Err(auth::Error::AuthFailed.into()));
            }
            let request = InternalAuthenticateRequest {
                name: name.to_owned(),
                // It was checked, and does not belong into the log.
                password: String::new(),
                simple_token: self.config().auth_token.letters().ok_or(Error::Stopped)?,
            };
            let reply = match self.propose(request).await? {
                Ok(reply) => reply,
                Err(rejection) => return Ok(Err(rejection)),
            };
            // Otherwise the password may have been changed before the token was known.
            if checked == self.auth().revision() {
                return Ok(self.token(reply));
            }
        }
        Ok(Err(auth::Error::OldRevision.into()))
    }

    fn token(&self, reply: Reply) -> Result<Authenticated, Rejection> {
        let Body::Auth(AuthReply::Authenticated { user, token, revision: users }) = reply.body else {
            return Err(auth::Error::AuthFailed.into());
        };
        let token = self.config().auth_token.token(&user, users, token)?;
        Ok(Authenticated { revision: reply.revision, token })
    }

    /// As [`Member::propose`], in the name of a caller.
    ///
    /// # Errors
    /// As there.
    pub async fn propose_as<C: Command>(
        &self,
        caller: &Caller,
        command: C,
    ) -> Result<Result<Reply, Rejection>, Error> {
        self.propose_kept(caller, command, &mut Arc::default()).await
    }

    /// The same; what was proposed is left behind as it stands in the log, for whoever has to tell of it.
    ///
    /// # Errors
    /// As there.
    pub async fn propose_kept<C: Command>(
        &self,
        caller: &Caller,
        command: C,
        encoded: &mut Arc<[u8]>,
    ) -> Result<Result<Reply, Rejection>, Error> {
        let began = Instant::now();
        let outcome = self.asked(caller, command, encoded).await;
        let took = began.elapsed();
        // Who comes while too much waits is not let in, and so not timed.
        if !matches!(outcome, Err(Error::TooManyRequests)) {
            self.metrics().answered(C::OP, outcome.is_ok(), took);
        }
        if took > slow::TRACED {
            let (reply, applying) = match &outcome {
                Ok((outcome, applying)) => (outcome.as_ref().ok(), *applying),
                Err(_) => (None, None),
            };
            slow::proposed(encoded, began, applying, reply);
        }
        outcome.map(|(outcome, _)| outcome)
    }

    async fn asked(
        &self,
        caller: &Caller,
        command: impl Command,
        encoded: &mut Arc<[u8]>,
    ) -> Result<(Result<Reply, Rejection>, Option<Applying>), Error> {
        let answer = self.post(caller, &command, encoded)?;
        // Encoded by now: a value of a mebibyte need not be held twice while it waits.
        drop(command);
        self.outcome(answer).await
    }
}
