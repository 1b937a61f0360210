//! The one place where errors become gRPC statuses.

use api::error::Error as Etcd;
use apply::{ReadFailure, Rejection, Told};
use server::Error;
use tonic::{Code, Status};

/// A row of etcd's error table.
pub(crate) fn etcd(error: Etcd) -> Status {
    Status::new(Code::from_i32(error.code().number()), error.message())
}

/// A refusal that every member decides alike.
pub(crate) fn rejection(rejection: Rejection) -> Status {
    match rejection.told() {
        Told::Error(error) => etcd(error),
        Told::Unimplemented(text) => Status::unimplemented(text),
    }
}

/// A failure of this member.
pub(crate) fn server(error: Error) -> Status {
    etcd(match error {
        Error::NoLeader => Etcd::NoLeader,
        Error::LeaderChanged => Etcd::LeaderChanged,
        Error::Timeout => Etcd::Timeout,
        Error::TooManyRequests => Etcd::RequestTooManyRequests,
        Error::RequestTooLarge => Etcd::RequestTooLarge,
        Error::Stopped => Etcd::Stopped,
    })
}

/// A read that was refused, or that this member's disk could not serve.
pub(crate) fn read(failure: ReadFailure) -> Status {
    match failure {
        ReadFailure::Rejected(refusal) => rejection(refusal),
        ReadFailure::Failed(failure) => Status::internal(failure.to_string()),
    }
}

/// A read of the store that went wrong.
pub(crate) fn store(error: mvcc::ReadError) -> Status {
    match error {
        mvcc::ReadError::Compacted { .. } => etcd(Etcd::Compacted),
        mvcc::ReadError::Future { .. } => etcd(Etcd::FutureRev),
        mvcc::ReadError::Storage(error) => Status::internal(error.to_string()),
    }
}
