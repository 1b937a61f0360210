//! What an entry of the log asks for.

use std::sync::Arc;

use api::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, InternalRaftRequest, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, TxnRequest,
};
use api::membershippb::{ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest};
use bytes::Bytes;
use prost::Message;

use crate::v2;

/// One command. The fields of etcd's `InternalRaftRequest` exclude each other; here the type says
/// so.
#[derive(Debug)]
pub(crate) enum Command {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compaction(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    LeaseCheckpoint(LeaseCheckpointRequest),
    Alarm(AlarmRequest),
    ClusterVersionSet(ClusterVersionSetRequest),
    ClusterMemberAttrSet(ClusterMemberAttrSetRequest),
    DowngradeInfoSet(DowngradeInfoSetRequest),
    /// Does nothing; etcd's own tests write it.
    DowngradeVersionTest,
    /// Known by name, but not carried out.
    Unsupported(&'static str),
    /// Changes what only authentication looks at. Only a member that is no Cairn can have proposed it.
    Authentication(&'static str),
    /// None of the fields that this version knows is set.
    Unknown,
}

/// Reads an entry's payload: the request's id and the command. The command's keys and values share
/// the entry's bytes; whoever stores them makes a copy.
pub(crate) fn read(data: &Arc<[u8]>) -> Option<(u64, Command)> {
    // A bare v2 request never reads as the other kind: its method, a string, stands where that has a
    // message, and none of the methods is one. Nobody here waits for it.
    let Ok(request) = InternalRaftRequest::decode(Bytes::from_owner(Arc::clone(data))) else {
        return v2::bare(data).map(|command| (0, command));
    };
    if let Some(request) = &request.v2 {
        return Some((0, v2::command(request)));
    }
    let id = match (request.id, &request.header) {
        (0, Some(header)) => header.id,
        (id, _) => id,
    };
    Some((id, Command::from(request)))
}

impl From<InternalRaftRequest> for Command {
    /// Should several fields be set, etcd's order decides.
    fn from(request: InternalRaftRequest) -> Self {
        /// The first field that is set.
        macro_rules! first {
            ($($field:ident => $command:expr,)+) => {
                $(if let Some(field) = request.$field { return $command(field); })+
            };
        }
        macro_rules! first_named {
            ($kind:ident: $($field:ident => $name:literal,)+) => {
                $(if request.$field.is_some() { return Command::$kind($name); })+
            };
        }
        first! {
            cluster_version_set => Command::ClusterVersionSet,
            cluster_member_attr_set => Command::ClusterMemberAttrSet,
            downgrade_info_set => Command::DowngradeInfoSet,
            downgrade_version_test => |_| Command::DowngradeVersionTest,
            range => Command::Range,
            put => Command::Put,
            delete_range => Command::DeleteRange,
            txn => Command::Txn,
            compaction => Command::Compaction,
            lease_grant => Command::LeaseGrant,
            lease_revoke => Command::LeaseRevoke,
            lease_checkpoint => Command::LeaseCheckpoint,
            alarm => Command::Alarm,
        }
        // Those that only ask.
        first_named! {
            Unsupported:
            authenticate => "Authenticate",
            auth_status => "AuthStatus",
            auth_user_get => "AuthUserGet",
            auth_role_get => "AuthRoleGet",
            auth_user_list => "AuthUserList",
            auth_role_list => "AuthRoleList",
        }
        first_named! {
            Authentication:
            auth_enable => "AuthEnable",
            auth_disable => "AuthDisable",
            auth_user_add => "AuthUserAdd",
            auth_user_delete => "AuthUserDelete",
            auth_user_change_password => "AuthUserChangePassword",
            auth_user_grant_role => "AuthUserGrantRole",
            auth_user_revoke_role => "AuthUserRevokeRole",
            auth_role_add => "AuthRoleAdd",
            auth_role_grant_permission => "AuthRoleGrantPermission",
            auth_role_revoke_permission => "AuthRoleRevokePermission",
            auth_role_delete => "AuthRoleDelete",
        }
        Command::Unknown
    }
}
