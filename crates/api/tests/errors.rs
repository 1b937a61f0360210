//! The error table is etcd's, row for row: code and text are what clients compare.
#![allow(clippy::unwrap_used)]

use api::Error;

/// etcd 3.7.1's list: the code's name and the text, in its order.
const TABLE: &str = include_str!("data/errors.tsv");

#[test]
fn every_error_has_etcds_code_and_text() {
    let mut rows = TABLE.lines();
    assert_eq!(rows.next(), Some("grpc_code\tmessage"));
    let theirs: Vec<String> = rows.map(str::to_owned).collect();
    let ours: Vec<String> =
        Error::ALL.iter().map(|error| format!("{:?}\t{}", error.code(), error.message())).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn an_error_prints_as_the_text_clients_see() {
    assert_eq!(Error::Compacted.to_string(), "etcdserver: mvcc: required revision has been compacted");
}

#[test]
fn codes_carry_the_numbers_of_grpc() {
    let named = |name: &str| {
        let error = Error::ALL.iter().find(|error| format!("{:?}", error.code()) == name).unwrap();
        error.code().number()
    };
    let numbers = [
        ("Canceled", 1),
        ("InvalidArgument", 3),
        ("DeadlineExceeded", 4),
        ("NotFound", 5),
        ("PermissionDenied", 7),
        ("ResourceExhausted", 8),
        ("FailedPrecondition", 9),
        ("OutOfRange", 11),
        ("Unavailable", 14),
        ("DataLoss", 15),
        ("Unauthenticated", 16),
    ];
    for (name, number) in numbers {
        assert_eq!(named(name), number, "{name}");
    }
}
