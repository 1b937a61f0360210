//! The Auth service: users, roles, permissions, and tokens for passwords.
//!
//! Everything but `Authenticate` goes through the log as it came, in the caller's name, and is looked
//! at there; so it is in etcd, questions included. Passwords are hashed before they do.

use std::sync::Arc;

use api::etcdserverpb::auth_server::Auth;
use api::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest,
    AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
    AuthRoleListRequest, AuthRoleListResponse, AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest,
    AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
    ResponseHeader,
};
use api::raft_request::Command;
use apply::{AuthReply, Body};
use server::{Member, PasswordError};
use tonic::{Request, Response, Status};

use crate::{propose, status};

/// Users, roles and tokens.
pub(crate) struct AuthService {
    pub(crate) member: Arc<Member>,
}

impl AuthService {
    async fn ask<C: Command>(
        &self,
        request: Request<C>,
    ) -> Result<(Option<ResponseHeader>, AuthReply), Status> {
        let (_, extensions, command) = request.into_parts();
        match propose(&self.member, &extensions, command).await? {
            (header, Body::Auth(reply)) => Ok((Some(header), reply)),
            (_, other) => Err(crate::unexpected(&other)),
        }
    }

    /// The same of what is answered by a header alone.
    async fn tell<C: Command>(&self, request: Request<C>) -> Result<Option<ResponseHeader>, Status> {
        match self.ask(request).await? {
            (header, AuthReply::Done) => Ok(header),
            (_, other) => Err(crate::unexpected(&Body::Auth(other))),
        }
    }

    async fn hash(&self, password: &mut String) -> Result<String, Status> {
        let hashed = self.member.hash_password(std::mem::take(password)).await;
        hashed.map_err(|error| match error {
            PasswordError::TooLong => Status::unknown(error.to_string()),
            PasswordError::Failed(error) => status::server(error),
        })
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        Ok(Response::new(AuthEnableResponse { header: self.tell(request).await? }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        Ok(Response::new(AuthDisableResponse { header: self.tell(request).await? }))
    }

    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        match self.ask(request).await? {
            (header, AuthReply::Status { enabled, revision }) => {
                Ok(Response::new(AuthStatusResponse { header, enabled, auth_revision: revision }))
            }
            (_, other) => Err(crate::unexpected(&Body::Auth(other))),
        }
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let AuthenticateRequest { name, password } = request.into_inner();
        let authenticated = self.member.authenticate(&name, &password).await;
        let authenticated = authenticated.map_err(status::server)?.map_err(status::rejection)?;
        let header = Some(self.member.header(authenticated.revision));
        Ok(Response::new(AuthenticateResponse { header, token: authenticated.token }))
    }

    async fn user_add(
        &self,
        mut request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        let add = request.get_mut();
        if add.options.is_some_and(|options| options.no_password) {
            // Of no use, and not to be read in the log.
            add.password.clear();
        } else {
            add.hashed_password = self.hash(&mut add.password).await?;
        }
        Ok(Response::new(AuthUserAddResponse { header: self.tell(request).await? }))
    }

    async fn user_get(
        &self,
        request: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        match self.ask(request).await? {
            (header, AuthReply::UserRoles(roles)) => Ok(Response::new(AuthUserGetResponse { header, roles })),
            (_, other) => Err(crate::unexpected(&Body::Auth(other))),
        }
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        match self.ask(request).await? {
            (header, AuthReply::Users(users)) => Ok(Response::new(AuthUserListResponse { header, users })),
            (_, other) => Err(crate::unexpected(&Body::Auth(other))),
        }
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        Ok(Response::new(AuthUserDeleteResponse { header: self.tell(request).await? }))
    }

    async fn user_change_password(
        &self,
        mut request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        let change = request.get_mut();
        if !change.password.is_empty() {
            change.hashed_password = self.hash(&mut change.password).await?;
        }
        Ok(Response::new(AuthUserChangePasswordResponse { header: self.tell(request).await? }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        Ok(Response::new(AuthUserGrantRoleResponse { header: self.tell(request).await? }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        Ok(Response::new(AuthUserRevokeRoleResponse { header: self.tell(request).await? }))
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        Ok(Response::new(AuthRoleAddResponse { header: self.tell(request).await? }))
    }

    async fn role_get(
        &self,
        request: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        match self.ask(request).await? {
            (header, AuthReply::Permissions(perm)) => Ok(Response::new(AuthRoleGetResponse { header, perm })),
            (_, other) => Err(crate::unexpected(&Body::Auth(other))),
        }
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        match self.ask(request).await? {
            (header, AuthReply::Roles(roles)) => Ok(Response::new(AuthRoleListResponse { header, roles })),
            (_, other) => Err(crate::unexpected(&Body::Auth(other))),
        }
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        Ok(Response::new(AuthRoleDeleteResponse { header: self.tell(request).await? }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        Ok(Response::new(AuthRoleGrantPermissionResponse { header: self.tell(request).await? }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        Ok(Response::new(AuthRoleRevokePermissionResponse { header: self.tell(request).await? }))
    }
}
