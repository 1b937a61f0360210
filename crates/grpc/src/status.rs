//! The one place where errors become gRPC statuses.

use api::error::Error as Etcd;
use apply::{ReadFailure, Rejection, Told};
use server::{BackupError, ChangeError, DowngradeError, Error, LeaseError};
use tonic::body::Body;
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
        Told::Unknown(text) => Status::unknown(text),
    }
}

/// A caller who may not.
pub(crate) fn auth(error: auth::Error) -> Status {
    rejection(error.into())
}

/// A failure of this member.
pub(crate) fn server(error: Error) -> Status {
    etcd(match error {
        Error::NoLeader => Etcd::NoLeader,
        Error::NotLeader => Etcd::NotLeader,
        Error::LeaderChanged => Etcd::LeaderChanged,
        Error::Timeout => Etcd::Timeout,
        Error::TimeoutLeaderFail => Etcd::TimeoutDueToLeaderFail,
        Error::TimeoutConnectionLost => Etcd::TimeoutDueToConnectionLost,
        // etcd's table has no row for it.
        Error::TimeoutLeaderTransfer => {
            return Status::unknown("etcdserver: request timed out, leader transfer took too long");
        }
        Error::BadTransferee => Etcd::BadLeaderTransferee,
        Error::TooManyRequests => Etcd::RequestTooManyRequests,
        Error::RequestTooLarge => Etcd::RequestTooLarge,
        Error::Stopped => Etcd::Stopped,
    })
}

/// A change of members that did not come about.
pub(crate) fn change(error: ChangeError) -> Status {
    match error {
        ChangeError::Failed(error) => server(error),
        ChangeError::Rejected(refusal) => rejection(refusal),
        ChangeError::BadUrls => etcd(Etcd::MemberBadUrls),
        ChangeError::NotEnoughStarted => etcd(Etcd::MemberNotEnoughStarted),
        ChangeError::Unhealthy => etcd(Etcd::Unhealthy),
        ChangeError::LearnerNotReady => etcd(Etcd::LearnerNotReady),
        ChangeError::Unforeseen(words) => Status::unknown(words),
    }
}

/// A lease that could not be renewed or looked at. That there is none is told by its time left.
pub(crate) fn lease(error: LeaseError) -> Status {
    match error {
        LeaseError::NotFound => etcd(Etcd::LeaseNotFound),
        LeaseError::NotPrimary => etcd(Etcd::LeaderChanged),
        LeaseError::Failed(error) => server(error),
    }
}

/// A downgrade that does not begin, or does not end.
pub(crate) fn downgrade(error: DowngradeError) -> Status {
    etcd(match error {
        DowngradeError::Format => Etcd::WrongDowngradeVersionFormat,
        DowngradeError::Target => Etcd::InvalidDowngradeTargetVersion,
        DowngradeError::NoVersion => Etcd::ClusterVersionUnavailable,
        DowngradeError::UnderWay => Etcd::DowngradeInProcess,
        DowngradeError::NotUnderWay => Etcd::NoInflightDowngrade,
        DowngradeError::Failed(error) => return server(error),
        DowngradeError::Rejected(refusal) => return rejection(refusal),
    })
}

/// A backup that did not come about, or not as a whole.
pub(crate) fn backup(error: BackupError) -> Status {
    match error {
        BackupError::TooMany => etcd(Etcd::RequestTooManyRequests),
        BackupError::Failed(words) => Status::unknown(words),
    }
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

/// A message that could not be received. Where it is too large, etcd's gRPC library has a code and a
/// text of its own, by which clients know it; the numbers in it are the same.
pub(crate) fn received(status: Status) -> Status {
    too_large(status.code(), status.message()).unwrap_or(status)
}

/// The same for a call that was refused before its service saw it.
pub(crate) fn refused(response: http::Response<Body>) -> http::Response<Body> {
    let is_candidate =
        response.headers().get(Status::GRPC_STATUS).is_some_and(|code| code.as_bytes() == OUT_OF_RANGE);
    if !is_candidate {
        return response;
    }
    let status = Status::from_header_map(response.headers());
    match status.and_then(|status| too_large(status.code(), status.message())) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// [`Code::OutOfRange`] as it is written.
const OUT_OF_RANGE: &[u8] = b"11";

fn too_large(code: Code, text: &str) -> Option<Status> {
    let text = text.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, limit) = text.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    (code == Code::OutOfRange).then(|| {
        Status::resource_exhausted(format!("grpc: received message larger than max ({found} vs. {limit})"))
    })
}
