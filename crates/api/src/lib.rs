//! What travels between Cairn and everyone else: etcd's messages and services, its errors, its key ranges.
//!
//! Everything a client or another member may send is fixed by etcd 3.7.1: packages, message names, field
//! numbers, the method paths of the services, and the code and text of every error. This crate holds those
//! facts and nothing that acts on them, so that every room may depend on it without depending on another.
//!
//! | what                                  | where it is written               | what checks it             |
//! | ------------------------------------- | --------------------------------- | -------------------------- |
//! | messages, enums, services             | `proto/`, with our own comments   | `tests/descriptors.rs`     |
//! | error codes and texts                 | the table in [`error`]            | `tests/errors.rs`          |
//! | the meaning of `key` and `range_end`  | [`key_range`]                     | a naive twin, beside it    |
//!
//! The tests compare with lists taken from etcd (`tests/data`), so a slip of a field number fails here and
//! not in some client.
//!
//! # How the messages come to be
//!
//! `build.rs` compiles `proto/` with protox and prost, in process: no protoc is needed. One module stands
//! for one protobuf package, with clients and servers for its services. Two choices matter to users of the
//! types:
//!
//! - `bytes` fields are [`bytes::Bytes`]. What is decoded from a request is a slice of the connection's read
//!   buffer; keeping it keeps that whole buffer alive. Copy what is stored.
//! - `raftpb`, `walpb` and `snappb` are proto2, as in etcd, and their fields are `Option`s. That is on
//!   purpose: etcd writes such fields even when they are zero, so whether a field is present is part of the
//!   bytes that go into its log.
//!
//! # What is left out
//!
//! The HTTP paths of the JSON gateway, the `google.api` and version annotations that etcd's files carry for
//! its own tools, and the v2 API. Rooms that agree, store or simulate (`raft`, `node`, `backend`) do not see
//! this crate at all: they have types of their own.

pub mod error;
pub mod key_range;
pub mod loggable;
pub mod raft_request;

/// The version of etcd whose API this is, and whose log, peer protocol and files.
pub const ETCD_VERSION: &str = "3.7.1";

/// All of `proto/` as an encoded `google.protobuf.FileDescriptorSet`, for whoever reads messages by
/// reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use error::{Code, Error};
pub use key_range::KeyRange;

/// Users, roles and permissions as they are stored.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// The client API, and the commands that travel in raft's log.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Leases as they are stored, and the calls that members forward to each other.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod leasepb {
    tonic::include_proto!("leasepb");
}

/// Members and the cluster version as they travel in the log.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod membershippb {
    tonic::include_proto!("membershippb");
}

/// Keys at a revision, and events.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// What raft keeps and sends: entries, messages, hard state, configurations.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod raftpb {
    tonic::include_proto!("raftpb");
}

/// The frame around a snapshot's metadata on disk.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod snappb {
    tonic::include_proto!("snappb");
}

/// The election service.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The lock service.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// Records of the write-ahead log.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod walpb {
    tonic::include_proto!("walpb");
}
