//! Users, roles and what they permit, where entries are applied.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use api::authpb::permission::Type;
use api::authpb::{Permission, UserAddOptions};
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest, AuthStatusRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest, CompactionRequest, Compare,
    DeleteRangeRequest, InternalAuthenticateRequest, InternalRaftRequest, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestHeader, RequestOp, TxnRequest,
};
use apply::{AuthReply, Body, Failure, Options};
use backend::{Table, TableOp};
use prost::Message;
use raft::EntryKind;
use support::{Stage, encode, show, snapshot};

type Entry = InternalRaftRequest;

/// Applies an entry in somebody's name, as found out at the present revision; what it comes to.
fn of(stage: &mut Stage, user: &str, request: Entry) -> String {
    let revision = stage.shared.auth.revision();
    at(stage, user, revision, request)
}

fn at(stage: &mut Stage, user: &str, auth_revision: u64, request: Entry) -> String {
    let header = RequestHeader { id: 7, username: user.into(), auth_revision };
    let entry = Entry { header: Some(header), ..request }.encode_to_vec();
    show::applied(&stage.apply(EntryKind::Normal, &entry)).trim_end().to_owned()
}

fn add_user(name: &str) -> Entry {
    let hashed_password = "c2VjcmV0".to_owned();
    let add = AuthUserAddRequest { name: name.into(), hashed_password, ..Default::default() };
    Entry { auth_user_add: Some(add), ..Default::default() }
}

fn add_role(name: &str) -> Entry {
    Entry { auth_role_add: Some(AuthRoleAddRequest { name: name.into() }), ..Default::default() }
}

fn give(user: &str, role: &str) -> Entry {
    let give = AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    Entry { auth_user_grant_role: Some(give), ..Default::default() }
}

fn permit(role: &str, kind: Type, key: &'static str, end: &'static str) -> Entry {
    let perm = Permission { perm_type: kind.into(), key: key.into(), range_end: end.into() };
    let permit = AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
    Entry { auth_role_grant_permission: Some(permit), ..Default::default() }
}

fn enable() -> Entry {
    Entry { auth_enable: Some(AuthEnableRequest {}), ..Default::default() }
}

/// `ann` may read [b, d), write [c, e), and both of `rw`; `eve` may nothing; `root` is root.
fn stage() -> Stage {
    let mut stage = Stage::new(Options::default());
    for request in [
        add_user("root"),
        give("root", "root"),
        add_user("ann"),
        add_user("eve"),
        add_role("r"),
        permit("r", Type::Read, "b", "d"),
        permit("r", Type::Write, "c", "e"),
        permit("r", Type::Readwrite, "rw", ""),
        give("ann", "r"),
        enable(),
    ] {
        assert!(stage.request(request.clone()).outcome.is_ok(), "{request:?}");
    }
    stage
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn range(key: &'static str, end: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: end.into(), ..Default::default() }
}

fn put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: "v".into(), ..Default::default() }
}

fn delete(key: &'static str, end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false }
}

fn exists(key: &'static str, end: &'static str) -> Compare {
    Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Create.into(),
        key: key.into(),
        range_end: end.into(),
        target_union: Some(TargetUnion::CreateRevision(0)),
    }
}

fn txn(compare: Vec<Compare>, success: Vec<Request>, failure: Vec<Request>) -> TxnRequest {
    let ops = |requests: Vec<Request>| requests.into_iter().map(op).collect();
    TxnRequest { compare, success: ops(success), failure: ops(failure) }
}

/// Every kind of operation, alone and in a transaction: once where `ann` may, and once where all but
/// one thing that it needs is permitted to her.
#[test]
fn each_operation_needs_what_it_touches() {
    let entries: Vec<(bool, Entry)> = {
        let put = |put| Entry { put: Some(put), ..Default::default() };
        let delete = |delete| Entry { delete_range: Some(delete), ..Default::default() };
        let range = |range| Entry { range: Some(range), ..Default::default() };
        vec![
            (true, range(self::range("b", "d"))),
            (true, range(self::range("c", ""))),
            (false, range(self::range("b", "d\0"))),
            (false, range(self::range("b", "\0"))),
            (false, range(self::range("d", ""))),
            (false, range(RangeRequest { count_only: true, ..self::range("a", "c") })),
            (true, put(self::put("d"))),
            (false, put(self::put("b"))),
            (true, put(PutRequest { prev_kv: true, ..self::put("c") })),
            (false, put(PutRequest { prev_kv: true, ..self::put("d") })),
            (true, delete(self::delete("c", "e"))),
            (false, delete(self::delete("c", "f"))),
            (true, delete(DeleteRangeRequest { prev_kv: true, ..self::delete("c", "d") })),
            (false, delete(DeleteRangeRequest { prev_kv: true, ..self::delete("c", "e") })),
        ]
    };
    let mut stage = stage();
    for (permitted, entry) in entries {
        let case = format!("{entry:?}");
        let nested = match (&entry.range, &entry.put, &entry.delete_range) {
            (Some(range), ..) => Request::RequestRange(range.clone()),
            (_, Some(put), _) => Request::RequestPut(put.clone()),
            (.., Some(delete)) => Request::RequestDeleteRange(delete.clone()),
            _ => unreachable!(),
        };
        let verdict = |said: String| {
            assert_eq!(!said.starts_with("error: "), permitted, "{said}: {case}");
            assert!(permitted || said == "error: etcdserver: permission denied", "{said}: {case}");
        };
        verdict(of(&mut stage, "ann", entry));
        // In either branch, whichever is taken, and at any depth.
        let inner = txn(vec![exists("c", "")], vec![], vec![nested.clone()]);
        let deep = txn(vec![], vec![], vec![Request::RequestTxn(inner)]);
        for request in [
            txn(vec![], vec![nested.clone()], vec![]),
            txn(vec![], vec![], vec![nested]),
            txn(vec![], vec![Request::RequestTxn(deep)], vec![]),
        ] {
            verdict(of(&mut stage, "ann", Entry { txn: Some(request), ..Default::default() }));
        }
    }
    for (key, end, permitted) in [("c", "", true), ("b", "d", true), ("b", "e", false), ("b", "\0", false)] {
        let inner = txn(vec![exists(key, end)], vec![], vec![]);
        for request in [inner.clone(), txn(vec![], vec![Request::RequestTxn(inner)], vec![])] {
            let said = of(&mut stage, "ann", Entry { txn: Some(request), ..Default::default() });
            assert_eq!(!said.starts_with("error: "), permitted, "compare [{key}, {end}): {said}");
        }
    }
}

#[test]
fn a_lease_is_as_good_as_its_keys() {
    let mut stage = stage();
    let grant = |id| Entry { lease_grant: Some(LeaseGrantRequest { id, ttl: 60 }), ..Default::default() };
    let leased = |key, lease| Entry { put: Some(PutRequest { lease, ..put(key) }), ..Default::default() };
    let revoke = |id| Entry { lease_revoke: Some(LeaseRevokeRequest { id }), ..Default::default() };
    let denied = "error: etcdserver: permission denied";
    for id in [1, 2] {
        of(&mut stage, "ann", grant(id));
    }
    assert!(!of(&mut stage, "ann", leased("c", 1)).starts_with("error"));
    assert!(!of(&mut stage, "root", leased("z", 2)).starts_with("error"));
    assert_eq!(of(&mut stage, "ann", leased("d", 2)), denied, "whose end would delete z");
    let within = txn(vec![], vec![], vec![Request::RequestPut(PutRequest { lease: 2, ..put("d") })]);
    assert_eq!(of(&mut stage, "ann", Entry { txn: Some(within), ..Default::default() }), denied);
    assert_eq!(of(&mut stage, "ann", revoke(2)), denied);
    assert_eq!(of(&mut stage, "eve", revoke(1)), denied);
    assert_eq!(of(&mut stage, "", revoke(1)), denied, "an entry that says a revision but no name");
    assert_eq!(at(&mut stage, "", 0, revoke(1)), "error: etcdserver: user name is empty");
    assert!(of(&mut stage, "ann", revoke(1)).contains("revoked"));
    // As a leader has leases end: the permissions of root count whatever the revision.
    assert!(at(&mut stage, "root", 1, revoke(2)).contains("revoked"));
    assert_eq!(of(&mut stage, "eve", revoke(3)), "error: etcdserver: requested lease not found");
}

/// Every command of the log, by nobody, by somebody and by root.
#[test]
fn every_command_has_its_place() {
    let none = Entry::default;
    let name = || "ann".to_owned();
    let everyone = "ok ok ok";
    let looked_at = "etcdserver: user name is empty | etcdserver: permission denied | ok";
    let cases: Vec<(&str, Entry)> = vec![
        (looked_at, Entry { range: Some(range("a", "")), ..none() }),
        (looked_at, Entry { put: Some(put("a")), ..none() }),
        (looked_at, Entry { delete_range: Some(delete("a", "")), ..none() }),
        (looked_at, Entry { txn: Some(txn(vec![exists("a", "")], vec![], vec![])), ..none() }),
        // Looked at where they are proposed.
        (everyone, Entry { compaction: Some(CompactionRequest { revision: -1, physical: false }), ..none() }),
        (everyone, Entry { lease_grant: Some(LeaseGrantRequest { id: 9, ttl: 9 }), ..none() }),
        (everyone, Entry { alarm: Some(Default::default()), ..none() }),
        (everyone, Entry { lease_checkpoint: Some(Default::default()), ..none() }),
        (everyone, Entry { auth_status: Some(AuthStatusRequest {}), ..none() }),
        (
            everyone,
            Entry {
                authenticate: Some(InternalAuthenticateRequest { name: name(), ..Default::default() }),
                ..none()
            },
        ),
        // Whoever asks for itself may.
        (
            "etcdserver: user name is empty | ok | ok",
            Entry { auth_user_get: Some(AuthUserGetRequest { name: "eve".into() }), ..none() },
        ),
        (looked_at, Entry { auth_user_get: Some(AuthUserGetRequest { name: name() }), ..none() }),
        (looked_at, Entry { auth_role_get: Some(AuthRoleGetRequest { role: "r".into() }), ..none() }),
        (looked_at, enable()),
        (looked_at, Entry { auth_user_list: Some(AuthUserListRequest {}), ..none() }),
        (looked_at, Entry { auth_role_list: Some(AuthRoleListRequest {}), ..none() }),
        (looked_at, add_role("q")),
        (looked_at, permit("q", Type::Read, "q", "")),
        (
            looked_at,
            Entry {
                auth_role_revoke_permission: Some(AuthRoleRevokePermissionRequest {
                    role: "q".into(),
                    key: "q".into(),
                    range_end: "".into(),
                }),
                ..none()
            },
        ),
        (looked_at, Entry { auth_role_delete: Some(AuthRoleDeleteRequest { role: "q".into() }), ..none() }),
        (looked_at, add_user("bob")),
        (looked_at, give("bob", "r")),
        (
            looked_at,
            Entry {
                auth_user_revoke_role: Some(AuthUserRevokeRoleRequest {
                    name: "bob".into(),
                    role: "r".into(),
                }),
                ..none()
            },
        ),
        (
            looked_at,
            Entry {
                auth_user_change_password: Some(AuthUserChangePasswordRequest {
                    name: "bob".into(),
                    ..Default::default()
                }),
                ..none()
            },
        ),
        (looked_at, Entry { auth_user_delete: Some(AuthUserDeleteRequest { name: "bob".into() }), ..none() }),
        (looked_at, Entry { auth_disable: Some(AuthDisableRequest {}), ..none() }),
    ];
    let mut stage = stage();
    for (expected, entry) in cases {
        let mut said = Vec::new();
        for user in ["", "eve", "root"] {
            let revision = if user.is_empty() { 0 } else { stage.shared.auth.revision() };
            let word = at(&mut stage, user, revision, entry.clone());
            said.push(match word.strip_prefix("error: ") {
                // Somebody else's word: that of the compaction, or of the lease that is there already.
                Some(error) if error.contains("mvcc") || error.contains("already") => "ok".to_owned(),
                Some(error) => error.to_owned(),
                None => "ok".to_owned(),
            });
        }
        let said = if said.iter().all(|word| word == "ok") { said.join(" ") } else { said.join(" | ") };
        assert_eq!(said, expected, "{entry:?}");
    }
    assert!(!stage.shared.auth.is_enabled(), "root has switched it off");
}

/// What was known of a user when its request was taken in may be wrong by now: all members refuse it.
#[test]
fn a_caller_of_an_older_revision_is_refused() {
    let mut stage = stage();
    let before = stage.shared.auth.revision();
    let write = || Entry { put: Some(put("c")), ..Default::default() };
    assert!(!at(&mut stage, "ann", before, write()).starts_with("error"));
    assert!(!of(&mut stage, "root", add_user("bob")).starts_with("error"));
    for user in ["ann", "root"] {
        assert_eq!(at(&mut stage, user, before, write()), "error: etcdserver: revision of auth store is old");
    }
    assert!(!of(&mut stage, "ann", write()).starts_with("error"));
    let index = stage.machine.applied().0;
    of(&mut stage, "", write());
    assert_eq!(stage.machine.applied().0, index.next(), "a refusal moves the index like anything else");
}

/// A restart and a snapshot bring everything along, from the first request on (U1).
#[test]
fn users_survive_a_restart_and_come_with_a_snapshot() {
    let write = |key| Entry { put: Some(put(key)), ..Default::default() };
    let check = |stage: &mut Stage, revision| {
        assert_eq!((stage.shared.auth.is_enabled(), stage.shared.auth.revision()), (true, revision));
        assert!(!of(stage, "ann", write("c")).starts_with("error"));
        assert_eq!(of(stage, "ann", write("b")), "error: etcdserver: permission denied");
        assert_eq!(at(stage, "", 0, write("c")), "error: etcdserver: user name is empty");
    };
    let mut stage = stage();
    let revision = stage.shared.auth.revision();
    check(&mut stage, revision);
    let mut stage = stage.restart();
    check(&mut stage, revision);
    let mut other = Stage::new(Options::default());
    let _ = other.request(add_user("forgotten"));
    let mut other = stage.moved_to(other);
    check(&mut other, revision);
    let said =
        of(&mut other, "root", Entry { auth_user_list: Some(AuthUserListRequest {}), ..Default::default() });
    assert!(said.contains(r#"Users(["ann", "eve", "root"])"#), "{said}");
    assert_eq!(other.restart().tables(), stage.restart().tables());
}

/// A store that nobody has touched is at revision 1, and says so to whoever is sent it.
#[test]
fn the_first_revision_is_stored() {
    let mut stage = Stage::new(Options::default());
    assert_eq!(stage.shared.auth.revision(), 1);
    let _ = stage.apply(EntryKind::Normal, b"");
    stage.machine.seal();
    let row = (Table::Auth, b"authRevision".to_vec(), 1u64.to_be_bytes().to_vec());
    assert!(stage.tables().contains(&row));
}

#[test]
fn a_token_goes_with_its_user() {
    let mut stage = stage();
    let login = |stage: &mut Stage, letters: &str| {
        let authenticate = InternalAuthenticateRequest {
            name: "ann".into(),
            simple_token: letters.into(),
            ..Default::default()
        };
        let applied = stage.request(Entry { authenticate: Some(authenticate), ..Default::default() });
        match applied.outcome.unwrap().body {
            Body::Auth(AuthReply::Authenticated { token, .. }) => token,
            other => panic!("{other:?}"),
        }
    };
    let whose = |stage: &Stage, token: &str, seconds| {
        let caller = stage.shared.auth.caller_of_token(token, Duration::from_secs(seconds));
        caller.map(|caller| caller.user)
    };
    let token = login(&mut stage, "first");
    assert_eq!(token, format!("first.{}", stage.machine.applied().0.0 - 1));
    assert_eq!(whose(&stage, &token, 0).as_deref(), Some("ann"));
    assert_eq!(whose(&stage, &token, 301), None);
    let change = AuthUserChangePasswordRequest { name: "ann".into(), ..Default::default() };
    let token = login(&mut stage, "second");
    of(&mut stage, "root", Entry { auth_user_change_password: Some(change), ..Default::default() });
    assert_eq!(whose(&stage, &token, 0), None, "a new password");
    let token = login(&mut stage, "third");
    of(&mut stage, "root", Entry { auth_disable: Some(AuthDisableRequest {}), ..Default::default() });
    assert_eq!(whose(&stage, &token, 0), None, "authentication is off");
}

/// To hash a password here would come to another hash on every member.
#[test]
fn a_password_that_is_not_hashed_stops_the_member() {
    let mut stage = Stage::new(Options::default());
    let _ = stage.request(add_user("ann"));
    let before = stage.machine.applied();
    let password = || "secret".to_owned();
    let add = AuthUserAddRequest { name: "bob".into(), password: password(), ..Default::default() };
    let change =
        AuthUserChangePasswordRequest { name: "ann".into(), password: password(), ..Default::default() };
    for request in [
        Entry { auth_user_add: Some(add.clone()), ..Default::default() },
        Entry { auth_user_change_password: Some(change), ..Default::default() },
    ] {
        let entry = stage.entry(EntryKind::Normal, &encode(request));
        let failure = stage.machine.apply(&entry, Duration::ZERO).unwrap_err();
        assert!(matches!(failure, Failure::NotUnderstood { .. }), "{failure}");
        assert!(!failure.to_string().contains("secret"), "{failure}");
        assert_eq!(stage.machine.applied(), before);
    }
    let options = Some(UserAddOptions { no_password: true });
    let applied = stage
        .request(Entry { auth_user_add: Some(AuthUserAddRequest { options, ..add }), ..Default::default() });
    assert!(applied.outcome.is_ok(), "a user that has none needs no hash");
}

#[test]
fn a_damaged_row_is_found_before_it_counts() {
    let mut stage = Stage::new(Options::default());
    let _ = stage.request(add_user("ann"));
    stage.machine.seal();
    stage.backend.write_ops(vec![TableOp::put(Table::AuthUsers, b"bob".to_vec(), b"\xff".to_vec())]);
    let (body, meta) = snapshot(&stage.backend);
    let checked = apply::snapshot::check(std::io::Cursor::new(&body), &meta);
    assert!(matches!(checked, Err(Failure::Damaged { table: "authUsers", .. })), "{checked:?}");
    assert!(matches!(
        apply::Machine::open(stage.backend.clone(), stage.options),
        Err(Failure::Damaged { table: "authUsers", .. })
    ));
}
