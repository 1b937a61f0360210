//! Who may do what: users, their roles, what the roles permit, and tokens that stand for a password.
//!
//! # The problem
//!
//! A member that is asked something must know two things: who asks, and whether that may be. Both can
//! change while the request is on its way through the log, so what is decided when it is applied must
//! follow from the log alone, and be the same on every member.
//!
//! # The idea
//!
//! All that is stored — users, roles, whether the whole is in force, and a count of its changes, the
//! *revision* — is part of the replicated state and changed by entries of the log alone ([`Store`]).
//! A request travels with the name of its user and the revision at which the member that took it in
//! looked ([`Caller`]). Where it is applied the permissions of that moment count, and a caller of an
//! older revision is refused: what it was told of its user may be wrong by now.
//!
//! | the caller | asks for a key | asks what only `root` may |
//! |---|---|---|
//! | authentication is off | yes | yes |
//! | nobody | user name is empty | user name is empty |
//! | of an older revision | revision is old | by its present roles |
//! | has the role `root` | yes | yes |
//! | anyone else | if one role, or several together, cover all of the range | no |
//!
//! What a user's roles permit is kept as two unions of intervals, one to read and one to write
//! ([`Ranges`]), made anew when the user or one of the roles changes. A permission for `[a, c)` and
//! another for `[c, e)` together permit to read `[b, d)`.
//!
//! # Tokens
//!
//! A token is handed out for a password, and presented with every request afterwards. Simple tokens
//! are sixteen random letters and the place in the log of the request for it; they are known to the
//! members that were there, in memory, and die of disuse ([`SimpleTokens`]). [`Jwt`] signs and checks
//! those that need no memory. [`Auth`] is the store and the simple tokens behind locks, for every thread.
//!
//! # Left out
//!
//! Passwords are never seen here, only their hashes: hashing is slow on purpose, and is done before a
//! request enters the log. Which permissions a request needs is known to whoever knows requests.
#![forbid(unsafe_code)]

mod caller;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod jwt;
mod keys;
mod range;
mod shared;
mod store;
mod token;

pub use caller::{Access, Caller};
pub use error::Error;
pub use jwt::Jwt;
pub use range::Ranges;
pub use shared::Auth;
pub use store::{Damaged, Loader, Store, unhashed};
pub use token::{SimpleTokens, TOKEN_LETTERS, TOKEN_LETTERS_COUNT};

/// The user that must exist, and cannot be removed, while authentication is on.
pub const ROOT_USER: &str = "root";

/// The role that permits everything.
pub const ROOT_ROLE: &str = "root";
