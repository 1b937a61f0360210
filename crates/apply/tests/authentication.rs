//! A cluster with members that have authentication, which this version does not: it stops, rather than
//! part ways with them or let in whom they keep out.
#![allow(clippy::unwrap_used)]

mod support;

use api::etcdserverpb::{AuthEnableRequest, AuthStatusRequest, InternalRaftRequest};
use apply::{Failure, Options};
use backend::{Table, TableOp};
use raft::EntryKind;
use std::io::Cursor;
use std::time::Duration;
use support::{Stage, encode, snapshot};

#[test]
fn a_change_of_authentication_stops_the_member() {
    let mut stage = Stage::new(Options::default());
    let asks = InternalRaftRequest { auth_status: Some(AuthStatusRequest {}), ..Default::default() };
    assert!(stage.request(asks).outcome.is_err());
    let before = stage.machine.applied();
    let enable = InternalRaftRequest { auth_enable: Some(AuthEnableRequest {}), ..Default::default() };
    let entry = stage.entry(EntryKind::Normal, &encode(enable));
    let failure = stage.machine.apply(&entry, Duration::ZERO).unwrap_err();
    assert!(matches!(failure, Failure::Authentication("AuthEnable")), "{failure}");
    assert_eq!(stage.machine.applied(), before);
}

#[test]
fn a_state_with_authentication_is_refused() {
    let mut stage = Stage::new(Options::default());
    let asks = InternalRaftRequest { auth_status: Some(AuthStatusRequest {}), ..Default::default() };
    let _ = stage.request(asks);
    let off = TableOp::put(Table::Auth, b"authEnabled".to_vec(), vec![0]);
    let on = TableOp::put(Table::Auth, b"authEnabled".to_vec(), vec![1]);
    for (op, refused) in [(off, false), (on, true)] {
        stage.machine.seal();
        stage.backend.write_ops(vec![op]);
        let (body, meta) = snapshot(&stage.backend);
        let checked = apply::snapshot::check(Cursor::new(&body), &meta);
        assert_eq!(matches!(checked, Err(Failure::Authentication(_))), refused);
        assert_eq!(apply::Machine::open(stage.backend.clone(), stage.options).is_err(), refused);
    }
}
