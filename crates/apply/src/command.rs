//! What an entry of the log asks for.
//!
//! Every member that applies an entry must do the same with it. So one that this version cannot read is
//! no command that is refused: it is a reason to stop, in words (A10). A cluster that speaks this
//! version's language has none, since later versions keep what is new to themselves until all members
//! know it. etcd panics at the same entries. What a known request holds beside the fields that are known
//! is passed over, there and here.

use std::sync::Arc;

use api::etcdserverpb::{
    AlarmRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, CompactionRequest, DeleteRangeRequest, InternalAuthenticateRequest,
    InternalRaftRequest, LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, TxnRequest,
};
use api::membershippb::{ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest};
use api::raft_request::Op;
use auth::Caller;
use bytes::Bytes;
use prost::Message;
use prost::encoding::{self, DecodeContext};

use crate::{cluster, v2};

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
    Authentication(Authentication),
}

/// A command about users, roles and who may do what.
#[derive(Debug)]
pub(crate) enum Authentication {
    Authenticate(InternalAuthenticateRequest),
    Enable,
    Disable,
    Status,
    UserAdd(AuthUserAddRequest),
    UserDelete(AuthUserDeleteRequest),
    UserChangePassword(AuthUserChangePasswordRequest),
    UserGrantRole(AuthUserGrantRoleRequest),
    UserGet(AuthUserGetRequest),
    UserRevokeRole(AuthUserRevokeRoleRequest),
    RoleAdd(AuthRoleAddRequest),
    RoleGrantPermission(AuthRoleGrantPermissionRequest),
    RoleGet(AuthRoleGetRequest),
    RoleRevokePermission(AuthRoleRevokePermissionRequest),
    RoleDelete(AuthRoleDeleteRequest),
    UserList,
    RoleList,
}

impl Command {
    /// Its name in etcd's metrics. They have none for questions after authentication's state.
    pub(crate) fn op(&self) -> Op {
        match self {
            Self::Range(_) => Op::Range,
            Self::Put(_) => Op::Put,
            Self::DeleteRange(_) => Op::DeleteRange,
            Self::Txn(_) => Op::Txn,
            Self::Compaction(_) => Op::Compaction,
            Self::LeaseGrant(_) => Op::LeaseGrant,
            Self::LeaseRevoke(_) => Op::LeaseRevoke,
            Self::LeaseCheckpoint(_) => Op::LeaseCheckpoint,
            Self::Alarm(_) => Op::Alarm,
            Self::ClusterVersionSet(_) => Op::ClusterVersionSet,
            Self::ClusterMemberAttrSet(_) => Op::ClusterMemberAttrSet,
            Self::DowngradeInfoSet(_) => Op::DowngradeInfoSet,
            Self::DowngradeVersionTest => Op::DowngradeVersionTest,
            Self::Unsupported(_) => Op::Unknown,
            Self::Authentication(command) => match command {
                Authentication::Authenticate(_) => Op::Authenticate,
                Authentication::Enable => Op::AuthEnable,
                Authentication::Disable => Op::AuthDisable,
                Authentication::Status => Op::Unknown,
                Authentication::UserAdd(_) => Op::AuthUserAdd,
                Authentication::UserDelete(_) => Op::AuthUserDelete,
                Authentication::UserChangePassword(_) => Op::AuthUserChangePassword,
                Authentication::UserGrantRole(_) => Op::AuthUserGrantRole,
                Authentication::UserGet(_) => Op::AuthUserGet,
                Authentication::UserRevokeRole(_) => Op::AuthUserRevokeRole,
                Authentication::RoleAdd(_) => Op::AuthRoleAdd,
                Authentication::RoleGrantPermission(_) => Op::AuthRoleGrantPermission,
                Authentication::RoleGet(_) => Op::AuthRoleGet,
                Authentication::RoleRevokePermission(_) => Op::AuthRoleRevokePermission,
                Authentication::RoleDelete(_) => Op::AuthRoleDelete,
                Authentication::UserList => Op::AuthUserList,
                Authentication::RoleList => Op::AuthRoleList,
            },
        }
    }
}

/// What an entry holds.
pub(crate) struct Request {
    /// By which the proposer knows its waiter; zero for an entry that nobody waits for.
    pub(crate) id: u64,
    /// In whose name.
    pub(crate) caller: Caller,
    pub(crate) command: Command,
}

/// Reads an entry's payload. The command's keys and values share the entry's bytes; whoever stores them
/// makes a copy.
///
/// # Errors
/// What it is that this version cannot carry out.
pub(crate) fn read(data: &Arc<[u8]>) -> Result<Request, String> {
    let of_nobody = |id, command| Request { id, caller: Caller::default(), command };
    // A bare v2 request never reads as the other kind: its method, a string, stands where that has a
    // message, and none of the methods is one. Nobody here waits for it.
    let Ok(mut request) = InternalRaftRequest::decode(Bytes::from_owner(Arc::clone(data))) else {
        return match v2::bare(data) {
            Some(request) => Ok(of_nobody(0, v2::command(&request)?)),
            None => Err("bytes that are no request".to_owned()),
        };
    };
    if let Some(request) = &request.v2 {
        return Ok(of_nobody(0, v2::command(request)?));
    }
    let header = request.header.take().unwrap_or_default();
    let id = if request.id == 0 { header.id } else { request.id };
    let caller = Caller { user: header.username, revision: header.auth_revision };
    let command = first_of(request).ok_or_else(|| unknown(data))?;
    if let Command::ClusterVersionSet(set) = &command {
        cluster::speaks(&set.ver)?;
    }
    if let Some(name) = without_hash(&command) {
        return Err(format!("{name} with a password that is not hashed, as etcd before 3.5 writes it"));
    }
    Ok(Request { id, caller, command })
}

/// The command. Should several fields be set, etcd's order decides.
fn first_of(request: InternalRaftRequest) -> Option<Command> {
    /// The first field that is set.
    macro_rules! first {
            ($($field:ident => $command:expr,)+) => {
                $(if let Some(field) = request.$field { return Some($command(field)); })+
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
    first! {
        authenticate => of(Authentication::Authenticate),
        auth_enable => |_| Command::Authentication(Authentication::Enable),
        auth_disable => |_| Command::Authentication(Authentication::Disable),
        auth_status => |_| Command::Authentication(Authentication::Status),
        auth_user_add => of(Authentication::UserAdd),
        auth_user_delete => of(Authentication::UserDelete),
        auth_user_change_password => of(Authentication::UserChangePassword),
        auth_user_grant_role => of(Authentication::UserGrantRole),
        auth_user_get => of(Authentication::UserGet),
        auth_user_revoke_role => of(Authentication::UserRevokeRole),
        auth_role_add => of(Authentication::RoleAdd),
        auth_role_grant_permission => of(Authentication::RoleGrantPermission),
        auth_role_get => of(Authentication::RoleGet),
        auth_role_revoke_permission => of(Authentication::RoleRevokePermission),
        auth_role_delete => of(Authentication::RoleDelete),
        auth_user_list => |_| Command::Authentication(Authentication::UserList),
        auth_role_list => |_| Command::Authentication(Authentication::RoleList),
    }
    None
}

fn of<T>(kind: impl Fn(T) -> Authentication) -> impl Fn(T) -> Command {
    move |request| Command::Authentication(kind(request))
}

/// The name of a command that has a password where its hash belongs. etcd hashes it then and there,
/// each member to another hash; no version that can be in a cluster with this one writes it.
fn without_hash(command: &Command) -> Option<&'static str> {
    let Command::Authentication(command) = command else { return None };
    match command {
        Authentication::UserAdd(request)
            if !request.options.is_some_and(|options| options.no_password)
                && auth::unhashed(&request.password, &request.hashed_password) =>
        {
            Some("AuthUserAdd")
        }
        Authentication::UserChangePassword(request)
            if auth::unhashed(&request.password, &request.hashed_password) =>
        {
            Some("AuthUserChangePassword")
        }
        _ => None,
    }
}

/// What is in a request of which nothing is known.
fn unknown(data: &[u8]) -> String {
    let numbers: Vec<String> =
        fields(data).filter(|field| !KNOWN.contains(field)).map(|n| n.to_string()).collect();
    match numbers.as_slice() {
        [] => "a request for nothing".to_owned(),
        numbers => format!("a request of an unknown kind (field {})", numbers.join(", ")),
    }
}

/// The fields of a request that say who asks, and not for what.
const KNOWN: [u32; 2] = [1, 100];

/// The numbers of the fields of a protobuf message, which has been read before.
fn fields(mut data: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let (field, wire) = encoding::decode_key(&mut data).ok()?;
        encoding::skip_field(wire, field, &mut data, DecodeContext::default()).ok()?;
        Some(field)
    })
}
