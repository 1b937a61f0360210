//! What an entry of the log asks for.
//!
//! Every member that applies an entry must do the same with it. So one that this version cannot read is
//! no command that is refused: it is a reason to stop, in words (A10). A cluster that speaks this
//! version's language has none, since later versions keep what is new to themselves until all members
//! know it. etcd panics at the same entries. What a known request holds beside the fields that are known
//! is passed over, there and here.

use std::sync::Arc;

use api::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, InternalRaftRequest, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, TxnRequest,
};
use api::membershippb::{ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest};
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
    /// Changes what only authentication looks at. Only a member that is no Cairn can have proposed it.
    Authentication(&'static str),
}

/// Reads an entry's payload: the request's id and the command. The command's keys and values share
/// the entry's bytes; whoever stores them makes a copy.
///
/// # Errors
/// What it is that this version cannot carry out.
pub(crate) fn read(data: &Arc<[u8]>) -> Result<(u64, Command), String> {
    // A bare v2 request never reads as the other kind: its method, a string, stands where that has a
    // message, and none of the methods is one. Nobody here waits for it.
    let Ok(request) = InternalRaftRequest::decode(Bytes::from_owner(Arc::clone(data))) else {
        return match v2::bare(data) {
            Some(request) => Ok((0, v2::command(&request)?)),
            None => Err("bytes that are no request".to_owned()),
        };
    };
    if let Some(request) = &request.v2 {
        return Ok((0, v2::command(request)?));
    }
    let id = match (request.id, &request.header) {
        (0, Some(header)) => header.id,
        (id, _) => id,
    };
    let command = first_of(request).ok_or_else(|| unknown(data))?;
    if let Command::ClusterVersionSet(set) = &command {
        cluster::speaks(&set.ver)?;
    }
    Ok((id, command))
}

/// The command. Should several fields be set, etcd's order decides.
fn first_of(request: InternalRaftRequest) -> Option<Command> {
    /// The first field that is set.
    macro_rules! first {
            ($($field:ident => $command:expr,)+) => {
                $(if let Some(field) = request.$field { return Some($command(field)); })+
            };
        }
    macro_rules! first_named {
            ($kind:ident: $($field:ident => $name:literal,)+) => {
                $(if request.$field.is_some() { return Some(Command::$kind($name)); })+
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
    None
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
