//! What a request needs to be permitted: one list for all that is in it, and one place where the list
//! is gone through.
//!
//! Where a request is applied, and where it is read beside the log, the same lists decide. A
//! transaction's list is that of its comparisons and of both its branches, those of transactions
//! inside of it included, whichever way it will go: who may not do one of them is told nothing by the
//! others. The order is etcd's, since the first refusal is the one that is told.
//!
//! Etcd's published mistakes, each a way to be told of keys without a permission to read them, are
//! lines of this list: a put or a deletion that asks for the pair before it also reads; a comparison
//! reads its whole range; a nested transaction is looked into; a put that names a lease binds its key
//! to those that are attached already, and whoever ends a lease deletes them.

use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use auth::{Access, Auth, Caller, Error};
use lease::{LeaseId, Lessor};
use parking_lot::Mutex;

use crate::command::{Authentication, Command};

/// Keys of a lease that are looked at while its lock is held.
const PAGE: usize = 1_000;

/// One thing that must be permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// Keys, in the form of a request: a key and a range end.
    Keys(Access, &'a [u8], &'a [u8]),
    /// All keys of a lease, if there is such a lease. Whoever has the role `root` needs no more.
    Lease(Access, LeaseId),
    /// The role `root`.
    Root,
    /// To be this user, or the role `root`.
    User(&'a str),
    /// To have this role, or `root`.
    Role(&'a str),
}

/// What a command of the log needs where it is applied. What is not in it has been looked at where it
/// was proposed, by its member alone (as in etcd), or is proposed by members.
pub(crate) fn of_command(command: &Command) -> Vec<Need<'_>> {
    match command {
        Command::Range(request) => vec![range(request)],
        Command::Put(request) => put(request),
        Command::DeleteRange(request) => {
            // Alone, etcd looks at the deletion first; in a transaction, at the reading.
            let mut needs = delete_range(request);
            needs.reverse();
            needs
        }
        Command::Txn(request) => txn(request),
        Command::LeaseRevoke(request) => vec![Need::Lease(Access::Write, LeaseId(request.id))],
        Command::Authentication(command) => of_authentication(command),
        Command::Compaction(_)
        | Command::LeaseGrant(_)
        | Command::LeaseCheckpoint(_)
        | Command::Alarm(_)
        | Command::ClusterVersionSet(_)
        | Command::ClusterMemberAttrSet(_)
        | Command::DowngradeInfoSet(_)
        | Command::DowngradeVersionTest
        | Command::Unsupported(_) => Vec::new(),
    }
}

fn of_authentication(command: &Authentication) -> Vec<Need<'_>> {
    match command {
        // Whoever asks has no token yet, or wants to know whether one is needed.
        Authentication::Authenticate(_) | Authentication::Status => Vec::new(),
        Authentication::UserGet(request) => vec![Need::User(&request.name)],
        Authentication::RoleGet(request) => vec![Need::Role(&request.role)],
        Authentication::Enable
        | Authentication::Disable
        | Authentication::UserAdd(_)
        | Authentication::UserDelete(_)
        | Authentication::UserChangePassword(_)
        | Authentication::UserGrantRole(_)
        | Authentication::UserRevokeRole(_)
        | Authentication::RoleAdd(_)
        | Authentication::RoleGrantPermission(_)
        | Authentication::RoleRevokePermission(_)
        | Authentication::RoleDelete(_)
        | Authentication::UserList
        | Authentication::RoleList => vec![Need::Root],
    }
}

/// What a range needs.
pub fn range(request: &RangeRequest) -> Need<'_> {
    Need::Keys(Access::Read, &request.key, &request.range_end)
}

/// What a put needs.
pub fn put(request: &PutRequest) -> Vec<Need<'_>> {
    let mut needs = vec![Need::Keys(Access::Write, &request.key, &[])];
    // Of lease 0 there is none.
    if request.lease != 0 {
        needs.push(Need::Lease(Access::Write, LeaseId(request.lease)));
    }
    if request.prev_kv {
        needs.push(Need::Keys(Access::Read, &request.key, &[]));
    }
    needs
}

/// What a deletion needs.
pub fn delete_range(request: &DeleteRangeRequest) -> Vec<Need<'_>> {
    let keys = |access| Need::Keys(access, &request.key, &request.range_end);
    let read = request.prev_kv.then(|| keys(Access::Read));
    read.into_iter().chain([keys(Access::Write)]).collect()
}

/// What a transaction needs, with all that is in it.
pub fn txn(request: &TxnRequest) -> Vec<Need<'_>> {
    let mut needs = Vec::new();
    flatten(request, &mut needs);
    needs
}

fn flatten<'a>(request: &'a TxnRequest, needs: &mut Vec<Need<'a>>) {
    let read =
        |compare: &'a api::etcdserverpb::Compare| Need::Keys(Access::Read, &compare.key, &compare.range_end);
    needs.extend(request.compare.iter().map(read));
    for RequestOp { request: op } in request.success.iter().chain(&request.failure) {
        match op {
            Some(Request::RequestRange(request)) => needs.push(range(request)),
            Some(Request::RequestPut(request)) => needs.extend(put(request)),
            Some(Request::RequestDeleteRange(request)) => needs.extend(delete_range(request)),
            Some(Request::RequestTxn(request)) => flatten(request, needs),
            None => {}
        }
    }
}

/// Whether all of this is permitted to the caller.
///
/// # Errors
/// The first refusal.
pub fn check(auth: &Auth, lessor: &Mutex<Lessor>, caller: &Caller, needs: &[Need<'_>]) -> Result<(), Error> {
    if !auth.is_enabled() {
        return Ok(());
    }
    needs.iter().try_for_each(|need| match *need {
        Need::Keys(access, key, end) => auth.read(|store| store.check(caller, access, key, end)),
        Need::Lease(access, id) => lease(auth, lessor, caller, access, id),
        Need::Root => auth.read(|store| store.check_root(caller)),
        Need::User(name) => auth.read(|store| match store.check_root(caller) {
            Err(_) if name == caller.user => Ok(()),
            verdict => verdict,
        }),
        Need::Role(name) => auth.read(|store| match store.check_root(caller) {
            Err(_) if store.has_role(&caller.user, name) => Ok(()),
            verdict => verdict,
        }),
    })
}

/// A lease may have very many keys: they are gone through in pages, so that nobody waits long for the
/// lease's lock or the store's.
fn lease(
    auth: &Auth,
    lessor: &Mutex<Lessor>,
    caller: &Caller,
    access: Access,
    id: LeaseId,
) -> Result<(), Error> {
    if auth.read(|store| store.check_root(caller)).is_ok() {
        return Ok(());
    }
    let mut last: Option<Box<[u8]>> = None;
    loop {
        let mut page = lessor.lock().keys_after(id, last.as_deref(), PAGE);
        auth.read(|store| page.iter().try_for_each(|key| store.check(caller, access, key, &[])))?;
        if page.len() < PAGE {
            return Ok(());
        }
        last = page.pop();
    }
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::Compare;

    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    /// Every operation in every place of a transaction is in its list.
    #[test]
    fn a_transaction_needs_what_all_its_parts_need() {
        let range =
            |key: &'static str| RangeRequest { key: key.into(), range_end: "z".into(), ..Default::default() };
        let put =
            |key: &'static str| PutRequest { key: key.into(), prev_kv: true, lease: 7, ..Default::default() };
        let delete =
            |key: &'static str| DeleteRangeRequest { key: key.into(), range_end: "y".into(), prev_kv: true };
        let compare =
            |key: &'static str| Compare { key: key.into(), range_end: "x".into(), ..Default::default() };
        let inner = TxnRequest {
            compare: vec![compare("e")],
            success: vec![op(Request::RequestRange(range("f")))],
            failure: vec![op(Request::RequestPut(put("g"))), RequestOp { request: None }],
        };
        let middle = TxnRequest {
            compare: vec![compare("d")],
            success: Vec::new(),
            failure: vec![op(Request::RequestTxn(inner))],
        };
        let request = TxnRequest {
            compare: vec![compare("a"), compare("b")],
            success: vec![op(Request::RequestDeleteRange(delete("c"))), op(Request::RequestTxn(middle))],
            failure: vec![op(Request::RequestRange(range("h")))],
        };
        use Access::{Read, Write};
        let keys =
            |access, key: &'static str, end: &'static str| Need::Keys(access, key.as_bytes(), end.as_bytes());
        assert_eq!(
            txn(&request),
            [
                keys(Read, "a", "x"),
                keys(Read, "b", "x"),
                keys(Read, "c", "y"),
                keys(Write, "c", "y"),
                keys(Read, "d", "x"),
                keys(Read, "e", "x"),
                keys(Read, "f", "z"),
                keys(Write, "g", ""),
                Need::Lease(Write, LeaseId(7)),
                keys(Read, "g", ""),
                keys(Read, "h", "z"),
            ]
        );
    }
}
