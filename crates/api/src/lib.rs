//! Messages and services of the etcd v3 API, generated from `proto/`.

pub mod error;
pub mod key_range;

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
