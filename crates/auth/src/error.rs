//! Why something is not done.

use std::fmt;

/// A refusal. All members come to the same one for the same entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// Authentication cannot be switched on without a user `root`.
    RootUserNotExist,
    /// Nor while that user lacks the role `root`.
    RootRoleNotExist,
    /// The user's name is taken.
    UserAlreadyExist,
    /// No name is given; or nobody is named by a request, where somebody must be.
    UserEmpty,
    /// There is no such user.
    UserNotFound,
    /// The role's name is taken.
    RoleAlreadyExist,
    /// There is no such role.
    RoleNotFound,
    /// No name is given for a role.
    RoleEmpty,
    /// There is no permission in a request to grant one.
    PermissionNotGiven,
    /// The password is not the user's, or there is no such user.
    AuthFailed,
    /// What was given as a hash of a password is none.
    BadPasswordHash,
    /// The user's roles do not permit it.
    PermissionDenied,
    /// The user does not have the role.
    RoleNotGranted,
    /// The role does not have the permission.
    PermissionNotGranted,
    /// Authentication is off.
    NotEnabled,
    /// The caller was looked at before the last change of users and roles.
    OldRevision,
    /// The token is unknown, or its time is over.
    InvalidToken,
    /// A token cannot be signed without a private key.
    VerifyOnly,
    /// Against the rules: a change that would take `root` its power, or a permission for no key.
    InvalidManagement,
}

impl Error {
    /// The row of etcd's error table; there is none for [`Error::BadPasswordHash`] and
    /// [`Error::VerifyOnly`].
    pub fn told(self) -> Option<api::Error> {
        Some(match self {
            Error::RootUserNotExist => api::Error::RootUserNotExist,
            Error::RootRoleNotExist => api::Error::RootRoleNotExist,
            Error::UserAlreadyExist => api::Error::UserAlreadyExist,
            Error::UserEmpty => api::Error::UserEmpty,
            Error::UserNotFound => api::Error::UserNotFound,
            Error::RoleAlreadyExist => api::Error::RoleAlreadyExist,
            Error::RoleNotFound => api::Error::RoleNotFound,
            Error::RoleEmpty => api::Error::RoleEmpty,
            Error::PermissionNotGiven => api::Error::PermissionNotGiven,
            Error::AuthFailed => api::Error::AuthFailed,
            Error::PermissionDenied => api::Error::PermissionDenied,
            Error::RoleNotGranted => api::Error::RoleNotGranted,
            Error::PermissionNotGranted => api::Error::PermissionNotGranted,
            Error::NotEnabled => api::Error::AuthNotEnabled,
            Error::OldRevision => api::Error::AuthOldRevision,
            Error::InvalidToken => api::Error::InvalidAuthToken,
            Error::InvalidManagement => api::Error::InvalidAuthMgmt,
            Error::BadPasswordHash | Error::VerifyOnly => return None,
        })
    }

    /// What a client is told.
    pub fn message(self) -> &'static str {
        match self.told() {
            Some(error) => error.message(),
            // etcd's own texts, which go out without the usual prefix.
            None if self == Error::VerifyOnly => "auth: token signing attempted with verify-only key",
            None => "auth: authentication failed, password was given for no password user",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}
