//! Changes of users and roles, in the log of each member that applies them: the lines and fields of etcd's,
//! never with a password or a token.

use api::authpb::permission::Type;
use api::etcdserverpb::InternalRaftRequest;
use api::raft_request::Op;
use prost::Message as _;

use crate::member::Member;

/// An entry that was granted. `was_enabled`: whether authentication was on before it.
pub(crate) fn changed(member: &Member, op: Op, data: &[u8], was_enabled: bool) {
    match op {
        Op::AuthEnable if was_enabled => {
            tracing::info!("authentication is already enabled; ignored auth enable request");
        }
        Op::AuthEnable => tracing::info!("enabled authentication"),
        Op::AuthDisable if was_enabled => tracing::info!("disabled authentication"),
        _ => {
            if let Ok(request) = InternalRaftRequest::decode(data) {
                user(member, &request);
                role(&request);
            }
        }
    }
}

/// Whether an entry is of interest here.
pub(crate) fn concerns(op: Op) -> bool {
    matches!(
        op,
        Op::AuthEnable
            | Op::AuthDisable
            | Op::AuthUserAdd
            | Op::AuthUserDelete
            | Op::AuthUserChangePassword
            | Op::AuthUserGrantRole
            | Op::AuthUserRevokeRole
            | Op::AuthRoleAdd
            | Op::AuthRoleDelete
            | Op::AuthRoleGrantPermission
            | Op::AuthRoleRevokePermission
    )
}

fn user(member: &Member, request: &InternalRaftRequest) {
    let roles = |name: &str| member.auth().read(|store| store.user_roles(name)).unwrap_or_default();
    if let Some(add) = &request.auth_user_add {
        tracing::info!("user-name" = add.name, "added a user");
    } else if let Some(delete) = &request.auth_user_delete {
        tracing::info!("user-name" = delete.name, "deleted a user");
    } else if let Some(change) = &request.auth_user_change_password {
        let roles = roles(&change.name);
        tracing::info!("user-name" = change.name, "user-roles" = ?roles, "changed a password of a user");
    } else if let Some(grant) = &request.auth_user_grant_role {
        tracing::info!(
            "user-name" = grant.user,
            "user-roles" = ?roles(&grant.user),
            "added-role-name" = grant.role,
            "granted a role to a user"
        );
    } else if let Some(revoke) = &request.auth_user_revoke_role {
        let left = roles(&revoke.name);
        let mut before = left.clone();
        before.insert(before.partition_point(|role| *role < revoke.role), revoke.role.clone());
        tracing::info!(
            "user-name" = revoke.name,
            "old-user-roles" = ?before,
            "new-user-roles" = ?left,
            "revoked-role-name" = revoke.role,
            "revoked a role from a user"
        );
    }
}

fn role(request: &InternalRaftRequest) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(add) = &request.auth_role_add {
        tracing::info!("role-name" = add.name, "created a role");
    } else if let Some(delete) = &request.auth_role_delete {
        tracing::info!("role-name" = delete.role, "deleted a role");
    } else if let Some(revoke) = &request.auth_role_revoke_permission {
        tracing::info!(
            "role-name" = revoke.role,
            key = text(&revoke.key),
            "range-end" = text(&revoke.range_end),
            "revoked a permission on range"
        );
    } else if let Some(grant) = &request.auth_role_grant_permission {
        let permission = grant.perm.clone().unwrap_or_default();
        // etcd calls the role a user there.
        tracing::info!(
            "user-name" = grant.name,
            "permission-name" = Type::try_from(permission.perm_type).map_or("", |kind| kind.as_str_name()),
            key = text(&permission.key),
            "range-end" = text(&permission.range_end),
            "granted/updated a permission to a user"
        );
    }
}
