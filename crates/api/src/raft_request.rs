//! Requests as they stand in the log.
//!
//! An entry's payload is an `InternalRaftRequest`: a header that names the request, and one field
//! that holds the command. That message has a field for every command there is, which makes it two
//! kilobytes large as a value; a proposer writes the two fields that matter and never builds it.

use prost::Message;
use prost::encoding::message;

use crate::etcdserverpb::{
    AlarmRequest, AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGetRequest, AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
    AuthStatusRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
    AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
    CompactionRequest, DeleteRangeRequest, InternalAuthenticateRequest, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RequestHeader, TxnRequest,
};
use crate::membershippb::{ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest};

/// The field number of `InternalRaftRequest.header`.
const HEADER: u32 = 100;

/// A message that is a field of `InternalRaftRequest`.
pub trait Command: Message {
    /// The field's number.
    const FIELD: u32;
    /// What it asks for.
    const OP: Op;
}

macro_rules! commands {
    ($($op:ident: $message:ident = $field:literal;)+) => {
        /// What a request asks for, as etcd's metrics name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Op {
            $($op,)+
            // Of these, members read what others have written and write none.
            Range,
            DowngradeVersionTest,
            /// Whatever has no other name: what a leader appends first, changes of members, and what etcd
            /// before 3.5 wrote.
            Unknown,
        }

        impl Op {
            /// Each of them, in the order of their numbers as values.
            pub const ALL: &'static [Op] = &[$(Op::$op,)+ Op::Range, Op::DowngradeVersionTest, Op::Unknown];

            /// The name that etcd's metrics have for it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Op::$op => stringify!($op),)+
                    Op::Range => "Range",
                    Op::DowngradeVersionTest => "DowngradeVersionTest",
                    Op::Unknown => "unknown",
                }
            }
        }

        $(impl Command for $message {
            const FIELD: u32 = $field;
            const OP: Op = Op::$op;
        })+
    };
}

commands! {
    Put: PutRequest = 4;
    DeleteRange: DeleteRangeRequest = 5;
    Txn: TxnRequest = 6;
    Compaction: CompactionRequest = 7;
    LeaseGrant: LeaseGrantRequest = 8;
    LeaseRevoke: LeaseRevokeRequest = 9;
    Alarm: AlarmRequest = 10;
    LeaseCheckpoint: LeaseCheckpointRequest = 11;
    AuthEnable: AuthEnableRequest = 1000;
    AuthDisable: AuthDisableRequest = 1011;
    Authenticate: InternalAuthenticateRequest = 1012;
    AuthStatus: AuthStatusRequest = 1013;
    AuthUserAdd: AuthUserAddRequest = 1100;
    AuthUserDelete: AuthUserDeleteRequest = 1101;
    AuthUserGet: AuthUserGetRequest = 1102;
    AuthUserChangePassword: AuthUserChangePasswordRequest = 1103;
    AuthUserGrantRole: AuthUserGrantRoleRequest = 1104;
    AuthUserRevokeRole: AuthUserRevokeRoleRequest = 1105;
    AuthUserList: AuthUserListRequest = 1106;
    AuthRoleList: AuthRoleListRequest = 1107;
    AuthRoleAdd: AuthRoleAddRequest = 1200;
    AuthRoleDelete: AuthRoleDeleteRequest = 1201;
    AuthRoleGet: AuthRoleGetRequest = 1202;
    AuthRoleGrantPermission: AuthRoleGrantPermissionRequest = 1203;
    AuthRoleRevokePermission: AuthRoleRevokePermissionRequest = 1204;
    ClusterVersionSet: ClusterVersionSetRequest = 1300;
    ClusterMemberAttrSet: ClusterMemberAttrSetRequest = 1301;
    DowngradeInfoSet: DowngradeInfoSetRequest = 1302;
}

/// The encoding of the `InternalRaftRequest` with this id and command, in nobody's name.
pub fn encode<C: Command>(id: u64, command: &C) -> Vec<u8> {
    encode_as(&RequestHeader { id, ..RequestHeader::default() }, command)
}

/// The encoding of the `InternalRaftRequest` with this header and command.
pub fn encode_as<C: Command>(header: &RequestHeader, command: &C) -> Vec<u8> {
    let length = message::encoded_len(HEADER, header) + message::encoded_len(C::FIELD, command);
    let mut data = Vec::with_capacity(length);
    // Fields in the order of their numbers, as every protobuf writer has them.
    if C::FIELD < HEADER {
        message::encode(C::FIELD, command, &mut data);
        message::encode(HEADER, header, &mut data);
    } else {
        message::encode(HEADER, header, &mut data);
        message::encode(C::FIELD, command, &mut data);
    }
    data
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::etcdserverpb::InternalRaftRequest;

    fn same(id: u64, command: &impl Command, request: InternalRaftRequest) {
        let request =
            InternalRaftRequest { header: Some(RequestHeader { id, ..RequestHeader::default() }), ..request };
        assert_eq!(InternalRaftRequest::decode(encode(id, command).as_slice()).unwrap(), request);
    }

    /// One wrong number and a command would be applied as another.
    #[test]
    fn every_command_is_written_into_its_own_field() {
        let none = InternalRaftRequest::default;
        let put = PutRequest { key: "k".into(), lease: 7, ..PutRequest::default() };
        same(1, &put, InternalRaftRequest { put: Some(put.clone()), ..none() });
        let delete = DeleteRangeRequest { key: "k".into(), ..DeleteRangeRequest::default() };
        same(2, &delete, InternalRaftRequest { delete_range: Some(delete.clone()), ..none() });
        let txn = TxnRequest::default();
        same(3, &txn, InternalRaftRequest { txn: Some(txn.clone()), ..none() });
        let compaction = CompactionRequest { revision: 9, physical: true };
        same(4, &compaction, InternalRaftRequest { compaction: Some(compaction), ..none() });
        let grant = LeaseGrantRequest { ttl: 5, id: 6 };
        same(5, &grant, InternalRaftRequest { lease_grant: Some(grant), ..none() });
        let revoke = LeaseRevokeRequest { id: 6 };
        same(6, &revoke, InternalRaftRequest { lease_revoke: Some(revoke), ..none() });
        let alarm = AlarmRequest { action: 1, member_id: 2, alarm: 1 };
        same(7, &alarm, InternalRaftRequest { alarm: Some(alarm), ..none() });
        let checkpoint = LeaseCheckpointRequest::default();
        same(8, &checkpoint, InternalRaftRequest { lease_checkpoint: Some(checkpoint.clone()), ..none() });
        let version = ClusterVersionSetRequest { ver: "3.7.0".into() };
        same(9, &version, InternalRaftRequest { cluster_version_set: Some(version.clone()), ..none() });
        let downgrade = DowngradeInfoSetRequest { enabled: true, ver: "3.6.0".into() };
        same(10, &downgrade, InternalRaftRequest { downgrade_info_set: Some(downgrade.clone()), ..none() });
        let attributes = ClusterMemberAttrSetRequest { member_id: 1, member_attributes: None };
        same(
            u64::MAX,
            &attributes,
            InternalRaftRequest { cluster_member_attr_set: Some(attributes.clone()), ..none() },
        );
        macro_rules! every {
            ($($message:ident as $field:ident,)+) => {
                $(same(
                    10,
                    &$message::default(),
                    InternalRaftRequest { $field: Some($message::default()), ..none() },
                );)+
            };
        }
        every! {
            AuthEnableRequest as auth_enable,
            AuthDisableRequest as auth_disable,
            InternalAuthenticateRequest as authenticate,
            AuthStatusRequest as auth_status,
            AuthUserAddRequest as auth_user_add,
            AuthUserDeleteRequest as auth_user_delete,
            AuthUserGetRequest as auth_user_get,
            AuthUserChangePasswordRequest as auth_user_change_password,
            AuthUserGrantRoleRequest as auth_user_grant_role,
            AuthUserRevokeRoleRequest as auth_user_revoke_role,
            AuthUserListRequest as auth_user_list,
            AuthRoleListRequest as auth_role_list,
            AuthRoleAddRequest as auth_role_add,
            AuthRoleDeleteRequest as auth_role_delete,
            AuthRoleGetRequest as auth_role_get,
            AuthRoleGrantPermissionRequest as auth_role_grant_permission,
            AuthRoleRevokePermissionRequest as auth_role_revoke_permission,
        }
    }

    #[test]
    fn who_asks_stands_in_the_header() {
        let header = RequestHeader { id: 1, username: "ann".into(), auth_revision: 7 };
        let put = PutRequest { key: "k".into(), ..PutRequest::default() };
        let decoded = InternalRaftRequest::decode(encode_as(&header, &put).as_slice()).unwrap();
        assert_eq!((decoded.header, decoded.put), (Some(header), Some(put)));
    }
}
