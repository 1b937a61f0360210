//! Commands about users, roles and who may do what, carried out. That their caller may has been
//! looked at.

use std::time::Duration;

use api::etcdserverpb::InternalAuthenticateRequest;
use auth::Error;

use crate::command::Authentication;
use crate::machine::Machine;
use crate::rejection::Rejection;
use crate::reply::AuthReply;

impl Machine {
    /// `now` sets how long a token lasts, in memory alone.
    pub(crate) fn authenticate(
        &mut self,
        command: Authentication,
        now: Duration,
    ) -> Result<AuthReply, Rejection> {
        use Authentication as A;
        let auth = self.auth.clone();
        let done = |result: Result<(), Error>| result.map(|()| AuthReply::Done);
        let reply = match &command {
            A::Authenticate(request) => return self.token(request, now),
            A::Status => Ok(AuthReply::Status { enabled: auth.is_enabled(), revision: auth.revision() }),
            A::Enable => auth.change(|store| done(store.enable().map(drop))),
            A::Disable => {
                if auth.change(|store| store.disable()) {
                    auth.tokens(|tokens| tokens.clear());
                }
                Ok(AuthReply::Done)
            }
            A::UserAdd(request) => auth.change(|store| done(store.add_user(request))),
            A::UserDelete(request) => {
                let deleted = auth.change(|store| store.delete_user(&request.name));
                auth.tokens(|tokens| deleted.map(|()| tokens.forget_user(&request.name)))
                    .map(|()| AuthReply::Done)
            }
            A::UserChangePassword(request) => {
                let changed = auth.change(|store| store.change_password(request));
                auth.tokens(|tokens| changed.map(|()| tokens.forget_user(&request.name)))
                    .map(|()| AuthReply::Done)
            }
            A::UserGrantRole(request) => {
                auth.change(|store| done(store.grant_role(&request.user, &request.role)))
            }
            A::UserGet(request) => {
                auth.read(|store| store.user_roles(&request.name)).map(AuthReply::UserRoles)
            }
            A::UserRevokeRole(request) => {
                auth.change(|store| done(store.revoke_role(&request.name, &request.role)))
            }
            A::RoleAdd(request) => auth.change(|store| done(store.add_role(&request.name))),
            A::RoleGrantPermission(request) => auth.change(|store| done(store.grant_permission(request))),
            A::RoleGet(request) => {
                auth.read(|store| store.role_permissions(&request.role)).map(AuthReply::Permissions)
            }
            A::RoleRevokePermission(request) => auth.change(|store| done(store.revoke_permission(request))),
            A::RoleDelete(request) => auth.change(|store| done(store.delete_role(&request.role))),
            A::UserList => Ok(AuthReply::Users(auth.read(|store| store.users()))),
            A::RoleList => Ok(AuthReply::Roles(auth.read(|store| store.roles()))),
        };
        self.ops.extend(auth.change(|store| store.take_ops()));
        Ok(reply?)
    }

    /// The password was checked by the member that was asked, which also drew the token's letters: here
    /// every member remembers whose it is.
    fn token(
        &mut self,
        request: &InternalAuthenticateRequest,
        now: Duration,
    ) -> Result<AuthReply, Rejection> {
        if !self.auth.is_enabled() {
            return Err(Error::NotEnabled.into());
        }
        if self.auth.read(|store| store.password_hash(&request.name)).is_none() {
            return Err(Error::AuthFailed.into());
        }
        let letters = &request.simple_token;
        let index = self.applied().0.next().0;
        let token = if letters.is_empty() {
            String::new()
        } else {
            self.auth.tokens(|tokens| tokens.assign(&request.name, letters, index, now))
        };
        Ok(AuthReply::Authenticated { user: request.name.clone(), token, revision: self.auth.revision() })
    }
}
