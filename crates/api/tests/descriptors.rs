//! `proto/` says what etcd 3.7.1 says: same packages, messages, numbers, types and method signatures.
//!
//! The lists in `tests/data` were taken from etcd's own files. Every row must be found, and nothing may be
//! there that has no row. A message without fields has no row to show, so those are named here.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;

const MESSAGES: &str = include_str!("data/messages.tsv");
const RPCS: &str = include_str!("data/rpcs.tsv");

/// The messages of etcd 3.7.1 that have no fields.
const FIELDLESS: [&str; 12] = [
    "etcdserverpb AuthDisableRequest",
    "etcdserverpb AuthEnableRequest",
    "etcdserverpb AuthRoleListRequest",
    "etcdserverpb AuthStatusRequest",
    "etcdserverpb AuthUserListRequest",
    "etcdserverpb DefragmentRequest",
    "etcdserverpb EmptyResponse",
    "etcdserverpb HashRequest",
    "etcdserverpb LeaseLeasesRequest",
    "etcdserverpb SnapshotRequest",
    "etcdserverpb StatusRequest",
    "etcdserverpb WatchProgressRequest",
];

/// What the descriptors hold, in the columns of the lists.
#[derive(Default)]
struct Found {
    /// package, message, number, label, type, field; the type as a full name when it is one of ours.
    fields: BTreeSet<[String; 6]>,
    /// package, service, rpc, request, response.
    rpcs: BTreeSet<[String; 5]>,
    fieldless: BTreeSet<String>,
}

fn found() -> Found {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let mut files = Vec::new();
    for package in std::fs::read_dir(&root).unwrap() {
        for file in std::fs::read_dir(package.unwrap().path()).unwrap() {
            files.push(file.unwrap().path());
        }
    }
    assert!(files.iter().all(|file| file.extension().is_some_and(|ending| ending == "proto")), "{files:?}");
    let set = protox::compile(&files, [&root]).unwrap();

    let mut found = Found::default();
    for file in &set.file {
        let package = file.package();
        let proto2 = file.syntax() != "proto3";
        let mut messages: Vec<(String, _)> =
            file.message_type.iter().map(|message| (message.name().to_owned(), message)).collect();
        let mut enums: Vec<(String, _)> =
            file.enum_type.iter().map(|of| (of.name().to_owned(), of)).collect();
        while let Some((name, message)) = messages.pop() {
            let nested = |inner: &str| format!("{name}.{inner}");
            messages.extend(message.nested_type.iter().map(|message| (nested(message.name()), message)));
            enums.extend(message.enum_type.iter().map(|of| (nested(of.name()), of)));
            if message.field.is_empty() {
                found.fieldless.insert(format!("{package} {name}"));
            }
            for field in &message.field {
                let label = match (field.oneof_index, format!("{:?}", field.label()).as_str()) {
                    (Some(at), _) => format!("oneof {}", message.oneof_decl[at as usize].name()),
                    (None, "Optional") if !proto2 => "singular".to_owned(),
                    (None, label) => label.to_lowercase(),
                };
                let of = match field.type_name() {
                    "" => format!("{:?}", field.r#type()).to_lowercase(),
                    full => full.to_owned(),
                };
                let number = field.number().to_string();
                found.fields.insert([
                    package.to_owned(),
                    name.clone(),
                    number,
                    label,
                    of,
                    field.name().to_owned(),
                ]);
            }
        }
        for (name, of) in enums {
            for value in &of.value {
                found.fields.insert([
                    package.to_owned(),
                    name.clone(),
                    value.number().to_string(),
                    "enum".to_owned(),
                    "-".to_owned(),
                    value.name().to_owned(),
                ]);
            }
        }
        for service in &file.service {
            for method in &service.method {
                let local = |full: &str, stream: bool| {
                    let name = full.strip_prefix(&format!(".{package}.")).unwrap();
                    if stream { format!("stream {name}") } else { name.to_owned() }
                };
                found.rpcs.insert([
                    package.to_owned(),
                    service.name().to_owned(),
                    method.name().to_owned(),
                    local(method.input_type(), method.client_streaming()),
                    local(method.output_type(), method.server_streaming()),
                ]);
            }
        }
    }
    found
}

/// Whether a type as etcd's file spells it (from within `package`) is the one the descriptor names in full.
fn same_type(package: &str, spelled: &str, full: &str) -> bool {
    if !full.starts_with('.') {
        return spelled == full;
    }
    let home = if spelled.contains('.') { String::new() } else { format!(".{package}.") };
    full.starts_with(&home) && full.ends_with(&format!(".{spelled}"))
}

fn rows<const N: usize>(table: &str) -> Vec<[String; N]> {
    table
        .lines()
        .skip(1)
        .map(|row| {
            let columns: Vec<String> = row.split('\t').take(N).map(str::to_owned).collect();
            columns.try_into().unwrap_or_else(|short| panic!("row {short:?} has too few columns"))
        })
        .collect()
}

/// What members up to etcd 3.5 write into the log of a cluster that they share, and etcd's newest protos
/// have no longer.
fn is_of_older_members(message: &str, field: &str) -> bool {
    message == "Request" || (message, field) == ("InternalRaftRequest", "v2")
}

#[test]
fn every_field_and_enum_value_is_etcds_and_no_other_exists() {
    let mut left = found().fields;
    for row in rows::<6>(MESSAGES) {
        let [package, message, number, label, of, field] = &row;
        let matching = left
            .iter()
            .find(|[p, m, n, l, t, f]| {
                (p, m, n, l, f) == (package, message, number, label, field) && same_type(package, of, t)
            })
            .cloned();
        assert!(matching.is_some_and(|found| left.remove(&found)), "not in proto/: {row:?}");
    }
    left.retain(|[_, message, _, _, _, field]| !is_of_older_members(message, field));
    assert!(left.is_empty(), "not in etcd: {left:?}");
}

#[test]
fn messages_without_fields_are_there_too() {
    let expected: BTreeSet<String> = FIELDLESS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found().fieldless, expected);
}

#[test]
fn every_method_has_etcds_name_and_signature() {
    let expected: BTreeSet<[String; 5]> = rows::<5>(RPCS).into_iter().collect();
    assert_eq!(found().rpcs, expected);
}
