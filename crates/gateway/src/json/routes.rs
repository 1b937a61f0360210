//! Which path stands for which method. The paths are etcd's.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, MessageDescriptor};

/// Every path below `/v3/`, with the method behind it.
#[rustfmt::skip]
pub(super) const PATHS: [(&str, &str); 51] = [
    ("kv/range", "/etcdserverpb.KV/Range"),
    ("kv/put", "/etcdserverpb.KV/Put"),
    ("kv/deleterange", "/etcdserverpb.KV/DeleteRange"),
    ("kv/txn", "/etcdserverpb.KV/Txn"),
    ("kv/compaction", "/etcdserverpb.KV/Compact"),
    ("watch", "/etcdserverpb.Watch/Watch"),
    ("lease/grant", "/etcdserverpb.Lease/LeaseGrant"),
    ("lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("kv/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive"),
    ("lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("kv/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("kv/lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("cluster/member/add", "/etcdserverpb.Cluster/MemberAdd"),
    ("cluster/member/remove", "/etcdserverpb.Cluster/MemberRemove"),
    ("cluster/member/update", "/etcdserverpb.Cluster/MemberUpdate"),
    ("cluster/member/list", "/etcdserverpb.Cluster/MemberList"),
    ("cluster/member/promote", "/etcdserverpb.Cluster/MemberPromote"),
    ("maintenance/alarm", "/etcdserverpb.Maintenance/Alarm"),
    ("maintenance/status", "/etcdserverpb.Maintenance/Status"),
    ("maintenance/defragment", "/etcdserverpb.Maintenance/Defragment"),
    ("maintenance/hash", "/etcdserverpb.Maintenance/Hash"),
    ("maintenance/hashkv", "/etcdserverpb.Maintenance/HashKV"),
    ("maintenance/snapshot", "/etcdserverpb.Maintenance/Snapshot"),
    ("maintenance/transfer-leadership", "/etcdserverpb.Maintenance/MoveLeader"),
    ("maintenance/downgrade", "/etcdserverpb.Maintenance/Downgrade"),
    ("auth/enable", "/etcdserverpb.Auth/AuthEnable"),
    ("auth/disable", "/etcdserverpb.Auth/AuthDisable"),
    ("auth/status", "/etcdserverpb.Auth/AuthStatus"),
    ("auth/authenticate", "/etcdserverpb.Auth/Authenticate"),
    ("auth/user/add", "/etcdserverpb.Auth/UserAdd"),
    ("auth/user/get", "/etcdserverpb.Auth/UserGet"),
    ("auth/user/list", "/etcdserverpb.Auth/UserList"),
    ("auth/user/delete", "/etcdserverpb.Auth/UserDelete"),
    ("auth/user/changepw", "/etcdserverpb.Auth/UserChangePassword"),
    ("auth/user/grant", "/etcdserverpb.Auth/UserGrantRole"),
    ("auth/user/revoke", "/etcdserverpb.Auth/UserRevokeRole"),
    ("auth/role/add", "/etcdserverpb.Auth/RoleAdd"),
    ("auth/role/get", "/etcdserverpb.Auth/RoleGet"),
    ("auth/role/list", "/etcdserverpb.Auth/RoleList"),
    ("auth/role/delete", "/etcdserverpb.Auth/RoleDelete"),
    ("auth/role/grant", "/etcdserverpb.Auth/RoleGrantPermission"),
    ("auth/role/revoke", "/etcdserverpb.Auth/RoleRevokePermission"),
    ("election/campaign", "/v3electionpb.Election/Campaign"),
    ("election/proclaim", "/v3electionpb.Election/Proclaim"),
    ("election/leader", "/v3electionpb.Election/Leader"),
    ("election/observe", "/v3electionpb.Election/Observe"),
    ("election/resign", "/v3electionpb.Election/Resign"),
    ("lock/lock", "/v3lockpb.Lock/Lock"),
    ("lock/unlock", "/v3lockpb.Lock/Unlock"),
];

/// What is known of a method.
pub(super) struct Route {
    /// Its path in gRPC.
    pub(super) method: &'static str,
    /// What it is asked.
    pub(super) input: MessageDescriptor,
    /// What it answers.
    pub(super) output: MessageDescriptor,
    /// Whether it may be asked more than once in a call.
    pub(super) takes_stream: bool,
    /// Whether it may answer more than once.
    pub(super) gives_stream: bool,
}

/// All routes, by path.
pub(crate) struct Routes(HashMap<&'static str, Route>);

impl Routes {
    /// The routes to all methods of [`PATHS`], which are those of `proto/`.
    pub(crate) fn new() -> Self {
        let pool =
            DescriptorPool::decode(api::DESCRIPTORS).expect("descriptors as the build has written them");
        let route = |method: &'static str| {
            let service = method.trim_start_matches('/').split('/').next()?;
            let name = method.rsplit('/').next()?;
            let found = pool.get_service_by_name(service)?.methods().find(|method| method.name() == name)?;
            Some(Route {
                method,
                input: found.input(),
                output: found.output(),
                takes_stream: found.is_client_streaming(),
                gives_stream: found.is_server_streaming(),
            })
        };
        let routes = PATHS.iter().map(|&(path, method)| (path, route(method).expect("a method of `proto/`")));
        Self(routes.collect())
    }

    /// The route number `number`, if they went round.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn nth(&self, number: usize) -> &Route {
        &self.0[PATHS[number % PATHS.len()].0]
    }

    /// The route of a path below `/v3/`.
    pub(super) fn find(&self, path: &str) -> Option<&Route> {
        self.0.get(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_method() {
        let routes = Routes::new();
        assert_eq!(routes.0.len(), PATHS.len(), "a path stands twice");
        let streams = |path: &str| routes.find(path).map(|route| (route.takes_stream, route.gives_stream));
        assert_eq!(streams("kv/put"), Some((false, false)));
        assert_eq!(streams("watch"), Some((true, true)));
        assert_eq!(streams("lease/keepalive"), Some((true, true)));
        assert_eq!(streams("maintenance/snapshot"), Some((false, true)));
        assert_eq!(streams("election/observe"), Some((false, true)));
        assert_eq!(streams("kv/guess"), None);
    }
}
