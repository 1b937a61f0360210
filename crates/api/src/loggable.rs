//! Requests in a line of the log: shaped as in etcd's, with sizes in the place of values, and without
//! passwords and tokens.

use std::fmt::Write as _;

use crate::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::etcdserverpb::request_op::Request;
use crate::etcdserverpb::{
    Compare, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Fields as protobuf's text format has them: what is zero is left out.
#[derive(Default)]
struct Fields(String);

impl Fields {
    fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let _ = write!(self.0, "{name}:{value} ");
        self
    }

    fn number(self, name: &str, value: i64) -> Self {
        if value == 0 { self } else { self.raw(name, value) }
    }

    fn flag(self, name: &str, value: bool) -> Self {
        if value { self.raw(name, true) } else { self }
    }

    fn bytes(self, name: &str, value: &[u8]) -> Self {
        if value.is_empty() { self } else { self.raw(name, quoted(value)) }
    }
}

/// Bytes between quotation marks; those that cannot be read stand there as octal numbers.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for &byte in bytes {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => _ = write!(text, "\\{byte:03o}"),
        }
    }
    text.push('"');
    text
}

/// A range.
pub fn range(request: &RangeRequest) -> String {
    let fields = Fields::default()
        .bytes("key", &request.key)
        .bytes("range_end", &request.range_end)
        .number("limit", request.limit)
        .number("revision", request.revision);
    let fields = match SortOrder::try_from(request.sort_order) {
        Ok(SortOrder::None) => fields,
        order => fields.raw("sort_order", order.map_or("?", |order| order.as_str_name())),
    };
    let fields = match SortTarget::try_from(request.sort_target) {
        Ok(SortTarget::Key) => fields,
        target => fields.raw("sort_target", target.map_or("?", |target| target.as_str_name())),
    };
    fields
        .flag("serializable", request.serializable)
        .flag("keys_only", request.keys_only)
        .flag("count_only", request.count_only)
        .number("min_mod_revision", request.min_mod_revision)
        .number("max_mod_revision", request.max_mod_revision)
        .number("min_create_revision", request.min_create_revision)
        .number("max_create_revision", request.max_create_revision)
        .0
}

/// A put, with the size of its value.
pub fn put(request: &PutRequest) -> String {
    Fields::default()
        .bytes("key", &request.key)
        .number("value_size", size(&request.value))
        .number("lease", request.lease)
        .flag("prev_kv", request.prev_kv)
        .flag("ignore_value", request.ignore_value)
        .flag("ignore_lease", request.ignore_lease)
        .0
}

/// A deletion.
pub fn delete_range(request: &DeleteRangeRequest) -> String {
    Fields::default()
        .bytes("key", &request.key)
        .bytes("range_end", &request.range_end)
        .flag("prev_kv", request.prev_kv)
        .0
}

/// A transaction, and what is inside of it.
pub fn txn(request: &TxnRequest) -> String {
    let list = |operations: &[RequestOp]| operations.iter().map(operation).collect::<Vec<_>>().join(" ");
    let compare = request.compare.iter().map(compare).collect::<Vec<_>>().join(" ");
    format!("compare:<{compare}> success:<{}> failure:<{}>", list(&request.success), list(&request.failure))
}

fn operation(operation: &RequestOp) -> String {
    match &operation.request {
        Some(Request::RequestRange(request)) => format!("request_range:<{}>", range(request)),
        Some(Request::RequestPut(request)) => format!("request_put:<{}>", put(request)),
        Some(Request::RequestDeleteRange(request)) => {
            format!("request_delete_range:<{}>", delete_range(request))
        }
        Some(Request::RequestTxn(request)) => format!("request_txn:<{}>", txn(request)),
        None => String::new(),
    }
}

fn compare(compare: &Compare) -> String {
    let result = CompareResult::try_from(compare.result).map_or("?", |result| result.as_str_name());
    let target = CompareTarget::try_from(compare.target).map_or("?", |target| target.as_str_name());
    let fields = Fields::default().raw("result", result).raw("target", target).bytes("key", &compare.key);
    let fields = match &compare.target_union {
        Some(TargetUnion::Version(version)) => fields.raw("version", version),
        Some(TargetUnion::CreateRevision(revision)) => fields.raw("create_revision", revision),
        Some(TargetUnion::ModRevision(revision)) => fields.raw("mod_revision", revision),
        Some(TargetUnion::Value(value)) => fields.raw("value_size", value.len()),
        Some(TargetUnion::Lease(lease)) => fields.raw("lease", lease),
        None => fields,
    };
    fields.bytes("range_end", &compare.range_end).0
}

/// What stands in the log. Of commands that are not about keys and leases, the name is told, and the user or
/// role that it is about.
pub fn raft(request: &InternalRaftRequest) -> String {
    let header = request.header.as_ref();
    let header = Fields::default()
        .raw("ID", header.map_or(request.id, |header| header.id))
        .bytes("username", header.map_or(&[], |header| header.username.as_bytes()))
        .number("auth_revision", header.map_or(0, |header| header.auth_revision as i64));
    format!("header:<{}> {}", header.0, command(request))
}

fn told<T>(command: &T, tell: impl Fn(&T) -> String) -> String {
    tell(command)
}

fn command(request: &InternalRaftRequest) -> String {
    /// The first of these that is set: its name, and what of it is told.
    macro_rules! first {
        ($($field:ident: $tell:expr,)+) => {
            $(if let Some(command) = &request.$field {
                return format!(concat!(stringify!($field), ":<{}>"), told(command, $tell));
            })+
        };
    }
    first! {
        put: put,
        txn: txn,
        range: range,
        delete_range: delete_range,
        compaction: |compaction| {
            Fields::default()
                .number("revision", compaction.revision)
                .flag("physical", compaction.physical)
                .0
        },
        lease_grant: |grant| format!("ttl:{}-second id:{:016x}", grant.ttl, grant.id),
        lease_revoke: |revoke| format!("id:{:016x}", revoke.id),
        lease_checkpoint: |checkpoint| format!("checkpoints:{}", checkpoint.checkpoints.len()),
        alarm: |alarm| {
            Fields::default()
                .number("action", alarm.action.into())
                .raw("memberID", alarm.member_id)
                .number("alarm", alarm.alarm.into())
                .0
        },
        authenticate: |request| format!("name:{}", request.name),
        auth_user_add: |request| format!("name:{}", request.name),
        auth_user_delete: |request| format!("name:{}", request.name),
        auth_user_get: |request| format!("name:{}", request.name),
        auth_user_change_password: |request| format!("name:{}", request.name),
        auth_user_grant_role: |request| format!("user:{} role:{}", request.user, request.role),
        auth_user_revoke_role: |request| format!("name:{} role:{}", request.name, request.role),
        auth_role_add: |request| format!("name:{}", request.name),
        auth_role_delete: |request| format!("role:{}", request.role),
        auth_role_get: |request| format!("role:{}", request.role),
        auth_role_grant_permission: |request| format!("name:{}", request.name),
        auth_role_revoke_permission: |request| format!("role:{}", request.role),
        auth_enable: |_| String::new(),
        auth_disable: |_| String::new(),
        auth_status: |_| String::new(),
        auth_user_list: |_| String::new(),
        auth_role_list: |_| String::new(),
        cluster_version_set: |set| format!("ver:{}", set.ver),
        cluster_member_attr_set: |set| format!("member_ID:{}", set.member_id),
        downgrade_info_set: |set| format!("enabled:{} ver:{}", set.enabled, set.ver),
    }
    String::new()
}

fn size(value: &[u8]) -> i64 {
    i64::try_from(value.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcdserverpb::{AuthUserAddRequest, RequestHeader};

    #[test]
    fn values_and_passwords_are_left_out() {
        let secret =
            PutRequest { key: "k\n\u{1}".into(), value: "secret".into(), lease: 7, ..Default::default() };
        let compare = Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Value.into(),
            key: "k".into(),
            target_union: Some(TargetUnion::Value("secret".into())),
            ..Default::default()
        };
        let inner = TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp { request: Some(Request::RequestPut(secret)) }],
            ..Default::default()
        };
        let outer = TxnRequest {
            failure: vec![RequestOp { request: Some(Request::RequestTxn(inner)) }],
            ..Default::default()
        };
        assert_eq!(
            txn(&outer),
            "compare:<> success:<> failure:<request_txn:<compare:<result:GREATER target:VALUE key:\"k\" \
             value_size:6 > success:<request_put:<key:\"k\\n\\001\" value_size:6 lease:7 >> failure:<>>>"
        );
        let header = Some(RequestHeader { id: 3, username: "root".into(), auth_revision: 2 });
        let add = AuthUserAddRequest { name: "ann".into(), password: "secret".into(), ..Default::default() };
        let request = InternalRaftRequest { header, auth_user_add: Some(add), ..Default::default() };
        assert_eq!(
            raft(&request),
            "header:<ID:3 username:\"root\" auth_revision:2 > auth_user_add:<name:ann>"
        );
    }

    #[test]
    fn what_is_zero_is_left_out() {
        let request = RangeRequest { key: "a".into(), range_end: "b".into(), limit: 5, ..Default::default() };
        assert_eq!(range(&request), "key:\"a\" range_end:\"b\" limit:5 ");
        assert_eq!(range(&RangeRequest { count_only: true, ..request.clone() }).split(' ').count(), 5);
        assert_eq!(put(&PutRequest::default()), "");
    }
}
