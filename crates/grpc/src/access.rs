//! Who calls, and whether the call may begin.
//!
//! Every method that there is has a line in [`gate`], and what is not in it is not served. Most calls are looked at twice: here only whether there is anybody at all, or
//! somebody with the role `root`; and with the request in hand where it is read or applied.

use apply::permission::Need;
use auth::{Access, Caller};
use http::{Extensions, HeaderMap, HeaderName};
use server::{Credentials, Member};
use tonic::Status;

use crate::status;

/// The name in the certificate that a client has proved to own: put among the extensions of its
/// requests by whoever takes in its connection. Of meaning with `--client-cert-auth` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's common name; empty if it has none.
    pub common_name: String,
}

/// What the Go client sends its token in, and what the JSON gateway does.
const TOKENS: [&str; 2] = ["token", "authorization"];

/// Says that a call came through the JSON gateway: its certificate is the gateway's, not the client's.
const GATEWAY: HeaderName = HeaderName::from_static("grpcgateway-accept");

/// What is asked of the caller before a call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing: there may be no token yet, or nothing is told that is worth one.
    Open,
    /// Whoever serves the call looks at the request and its caller, or has it looked at where it is
    /// applied.
    Looked,
    /// Somebody.
    Somebody,
    /// The role `root`.
    Root,
}

/// What is asked of the caller of a method; none for methods of which nothing is known.
pub(crate) fn gate(service: &str, method: &str) -> Option<Gate> {
    Some(match (service, method) {
        // Read at a revision of users and roles, or applied under the caller's name.
        ("etcdserverpb.KV", "Range" | "RangeStream" | "Put" | "DeleteRange" | "Txn") => Gate::Looked,
        ("etcdserverpb.KV", "Compact") => Gate::Root,
        // Each watcher, and each renewal, by itself.
        ("etcdserverpb.Watch", "Watch") => Gate::Looked,
        ("etcdserverpb.Lease", "LeaseKeepAlive") => Gate::Looked,
        ("etcdserverpb.Lease", "LeaseGrant") => Gate::Somebody,
        // And then at the keys of the lease.
        ("etcdserverpb.Lease", "LeaseRevoke" | "LeaseTimeToLive" | "LeaseLeases") => Gate::Somebody,
        ("etcdserverpb.Cluster", "MemberAdd" | "MemberRemove" | "MemberUpdate" | "MemberPromote") => {
            Gate::Root
        }
        // Once it is known to be up to date.
        ("etcdserverpb.Cluster", "MemberList") => Gate::Looked,
        // To raise or lower one takes more than to look.
        ("etcdserverpb.Maintenance", "Alarm") => Gate::Somebody,
        ("etcdserverpb.Maintenance", "Status") => Gate::Somebody,
        ("etcdserverpb.Maintenance", "Defragment" | "Hash" | "HashKV" | "Snapshot") => Gate::Root,
        ("etcdserverpb.Maintenance", "MoveLeader" | "Downgrade") => Gate::Root,
        ("etcdserverpb.Auth", "Authenticate") => Gate::Open,
        // Where they are applied.
        ("etcdserverpb.Auth", "AuthEnable" | "AuthDisable" | "AuthStatus") => Gate::Looked,
        ("etcdserverpb.Auth", "UserAdd" | "UserGet" | "UserList" | "UserDelete") => Gate::Looked,
        ("etcdserverpb.Auth", "UserChangePassword" | "UserGrantRole" | "UserRevokeRole") => Gate::Looked,
        ("etcdserverpb.Auth", "RoleAdd" | "RoleGet" | "RoleList" | "RoleDelete") => Gate::Looked,
        ("etcdserverpb.Auth", "RoleGrantPermission" | "RoleRevokePermission") => Gate::Looked,
        // They are made of calls of the KV and lease services in the caller's name.
        ("v3lockpb.Lock", "Lock" | "Unlock") => Gate::Looked,
        ("v3electionpb.Election", "Campaign" | "Proclaim" | "Leader" | "Observe" | "Resign") => Gate::Looked,
        ("grpc.health.v1.Health", "Check" | "List" | "Watch") => Gate::Open,
        // What this file says of the API is no secret.
        (service, _) if service.starts_with(crate::reflection::PREFIX) => Gate::Open,
        _ => return None,
    })
}

/// What a call shows of its client.
pub(crate) fn credentials(headers: &HeaderMap, extensions: &Extensions) -> Credentials {
    let token = TOKENS.iter().find_map(|name| headers.get(*name)).map(|value| {
        // What is no text is no token, but it was meant to be one.
        let token = value.to_str().unwrap_or_default();
        token.strip_prefix("Bearer ").unwrap_or(token).to_owned()
    });
    let certificate = extensions.get::<ClientCertificate>().filter(|_| !headers.contains_key(GATEWAY));
    Credentials { token, common_name: certificate.map(|certificate| certificate.common_name.clone()) }
}

/// Who makes a call, as of now.
pub(crate) fn caller(member: &Member, extensions: &Extensions) -> Result<Caller, Status> {
    let nobody = Credentials::default();
    member.caller(extensions.get::<Credentials>().unwrap_or(&nobody)).map_err(status::auth)
}

/// The caller of a call that reads beside the log. It is looked at twice: when everything is applied
/// that the read must see, and when it is read; in between users and roles may have changed.
pub(crate) struct Reader(Caller);

impl Reader {
    /// Whoever makes the call, if all of this is permitted.
    pub(crate) fn of(member: &Member, extensions: &Extensions, needs: &[Need<'_>]) -> Result<Self, Status> {
        let caller = caller(member, extensions)?;
        member.allow(&caller, needs).map_err(status::auth)?;
        Ok(Self(caller))
    }

    /// Whether the caller may read these keys, too.
    pub(crate) fn may_read(&self, member: &Member, keys: &[bytes::Bytes]) -> Result<(), Status> {
        let root = member.allow(&self.0, &[Need::Root]);
        if keys.is_empty() || root.is_ok() {
            return Ok(());
        }
        let needs: Vec<Need<'_>> = keys.iter().map(|key| Need::Keys(Access::Read, key, &[])).collect();
        member.allow(&self.0, &needs).map_err(status::auth)
    }

    /// Whether what was read since may be told.
    pub(crate) fn may_be_told(&self, member: &Member) -> Result<(), Status> {
        member.still(&self.0).map_err(status::auth)
    }
}

/// Looks at the caller of a call before it begins.
pub(crate) fn admit(member: &Member, gate: Gate, credentials: &Credentials) -> Result<(), Status> {
    if !member.auth().is_enabled() {
        return Ok(());
    }
    match gate {
        Gate::Open | Gate::Looked => Ok(()),
        Gate::Somebody => somebody(member, credentials).map_err(status::auth),
        Gate::Root => {
            let caller = member.caller(credentials).map_err(status::auth)?;
            member.allow(&caller, &[Need::Root]).map_err(status::auth)
        }
    }
}

fn somebody(member: &Member, credentials: &Credentials) -> Result<(), auth::Error> {
    member.require_somebody(&member.caller(credentials)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Of etcd 3.7.1's methods each has been thought of, and what is not known is not let in.
    #[test]
    fn every_method_has_its_gate() {
        for (service, method, _) in crate::metrics::METHODS {
            assert!(gate(service, method).is_some(), "{service}/{method}");
        }
        for (service, method) in [
            ("etcdserverpb.KV", "Drop"),
            ("etcdserverpb.Lease", ""),
            ("etcdserverpb.Auth", "UserPromote"),
            ("", ""),
        ] {
            assert_eq!(gate(service, method), None, "{service}/{method}");
        }
    }

    /// What takes the role `root` in etcd takes it here; of an advisory, some of it did not always.
    #[test]
    fn what_operators_do_takes_the_root_role() {
        let root: Vec<String> = crate::metrics::METHODS
            .iter()
            .filter(|(service, method, _)| gate(service, method) == Some(Gate::Root))
            .map(|(service, method, _)| format!("{}/{method}", service.split('.').nth(1).unwrap()))
            .collect();
        assert_eq!(
            root.join(" "),
            "KV/Compact Cluster/MemberAdd Cluster/MemberRemove Cluster/MemberUpdate Cluster/MemberPromote \
             Maintenance/Defragment Maintenance/Hash Maintenance/HashKV Maintenance/Snapshot \
             Maintenance/MoveLeader Maintenance/Downgrade"
        );
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_token_is_found_in_either_place() {
        let token = |pairs| credentials(&headers(pairs), &Extensions::new()).token;
        assert_eq!(token(&[("token", "a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("authorization", "a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("authorization", "Bearer a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("authorization", "b.2"), ("token", "a.1")]).as_deref(), Some("a.1"));
        assert_eq!(token(&[("token", "")]).as_deref(), Some(""), "it was meant to be one");
        assert_eq!(token(&[]), None);
    }

    #[test]
    fn the_gateways_certificate_is_not_its_clients() {
        let mut extensions = Extensions::new();
        extensions.insert(ClientCertificate { common_name: "ann".into() });
        let name = |pairs| credentials(&headers(pairs), &extensions).common_name;
        assert_eq!(name(&[]).as_deref(), Some("ann"));
        assert_eq!(name(&[("grpcgateway-accept", "*/*")]), None);
    }
}
