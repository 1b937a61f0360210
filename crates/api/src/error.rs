//! Every error that a client of etcd's API can be told, with the code and the text it is told in.
//!
//! Client libraries and scripts compare both, the text byte for byte, so the table below is part of the
//! wire format. It is written once: the enum, the code, the text and the list of all variants come out of
//! the same rows. `tests/errors.rs` compares them with a copy of etcd 3.7.1's own list.

use std::fmt;

/// A gRPC status code. The number is what travels in the `grpc-status` trailer.
///
/// It is an enum of our own so that rooms which know nothing of gRPC can name a code; `grpc` turns it into
/// tonic's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The caller gave up, or the server ended the call on purpose.
    Canceled = 1,
    /// The request is wrong in itself, whatever the state of the store.
    InvalidArgument = 3,
    /// The caller's time ran out; a write may still have happened.
    DeadlineExceeded = 4,
    /// The thing named in the request does not exist.
    NotFound = 5,
    /// The caller is known but not allowed.
    PermissionDenied = 7,
    /// A quota or a bounded queue is full.
    ResourceExhausted = 8,
    /// The request makes sense, but not in the present state.
    FailedPrecondition = 9,
    /// A revision, or a TTL, outside what exists.
    OutOfRange = 11,
    /// The member cannot serve now; trying again, here or elsewhere, may help.
    Unavailable = 14,
    /// Members were found to disagree about the data.
    DataLoss = 15,
    /// The token is missing, unknown or too old.
    Unauthenticated = 16,
}

impl Code {
    /// The number of the code in the `grpc-status` trailer.
    pub fn number(self) -> i32 {
        i32::from(self as u8)
    }
}

macro_rules! errors {
    ($($(#[$doc:meta])+ $name:ident, $code:ident, $text:literal;)+) => {
        /// An error of etcd's v3 API.
        ///
        /// The variants carry nothing: what a client sees is [`Error::code`] and [`Error::message`], both
        /// fixed, and clients compare them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Error {
            $($(#[$doc])+ $name,)+
        }

        impl Error {
            /// Every variant once, in the order of etcd's list.
            pub const ALL: &'static [Error] = &[$(Error::$name,)+];

            /// The gRPC code the error is sent with.
            pub const fn code(self) -> Code {
                match self {
                    $(Error::$name => Code::$code,)+
                }
            }

            /// The text the error is sent with, `etcdserver: ` prefix included.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Error::$name => $text,)+
                }
            }
        }
    };
}

errors! {
    /// A request for a key, or a range, whose `key` field is empty.
    EmptyKey, InvalidArgument, "etcdserver: key is not provided";
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    KeyNotFound, InvalidArgument, "etcdserver: key not found";
    /// `ignore_value` together with a value.
    ValueProvided, InvalidArgument, "etcdserver: value is provided";
    /// `ignore_lease` together with a lease.
    LeaseProvided, InvalidArgument, "etcdserver: lease is provided";
    /// A transaction with more operations in one list than `--max-txn-ops`.
    TooManyOps, InvalidArgument, "etcdserver: too many operations in txn request";
    /// A transaction that would write one key twice.
    DuplicateKey, InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// The client announced an API version that no one speaks.
    InvalidClientApiVersion, InvalidArgument, "etcdserver: invalid client api version";
    /// A sort order or a sort target outside its enum.
    InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option";
    /// A read below, or a compaction at or below, the compacted revision.
    Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// A read or a compaction above the current revision.
    FutureRev, OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// A write that would grow the store while it is over its quota.
    NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// A lease id that was never granted, was revoked, or has expired.
    LeaseNotFound, NotFound, "etcdserver: requested lease not found";
    /// A grant with the id of a live lease.
    LeaseExist, FailedPrecondition, "etcdserver: lease already exists";
    /// A TTL above nine billion seconds.
    LeaseTtlTooLarge, OutOfRange, "etcdserver: too large lease TTL";
    /// A watch stream that was ended by the server.
    WatchCanceled, Canceled, "etcdserver: watch canceled";
    /// A member is added under an id that is taken.
    MemberExist, FailedPrecondition, "etcdserver: member ID already exist";
    /// A member is added, or moved, to peer URLs that another member has.
    PeerUrlExist, FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// A membership change that could leave the cluster without a started quorum.
    MemberNotEnoughStarted, FailedPrecondition, "etcdserver: re-configuration failed due to not enough started members";
    /// Peer URLs that do not parse.
    MemberBadUrls, InvalidArgument, "etcdserver: given member URLs are invalid";
    /// A member id that is not in the cluster.
    MemberNotFound, NotFound, "etcdserver: member not found";
    /// A promotion of a member that votes already.
    MemberNotLearner, FailedPrecondition, "etcdserver: can only promote a learner member";
    /// A promotion of a learner whose log is still behind.
    LearnerNotReady, FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    /// More learners than `--max-learners`.
    TooManyLearners, FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// A request that names another cluster.
    ClusterIdMismatch, FailedPrecondition, "etcdserver: cluster ID mismatch";
    /// A request longer than `--max-request-bytes`.
    RequestTooLarge, InvalidArgument, "etcdserver: request is too large";
    /// Too many entries wait between commit and apply.
    RequestTooManyRequests, ResourceExhausted, "etcdserver: too many requests";
    /// Authentication is switched on before there is a user `root`.
    RootUserNotExist, FailedPrecondition, "etcdserver: root user does not exist";
    /// Authentication is switched on while user `root` lacks role `root`.
    RootRoleNotExist, FailedPrecondition, "etcdserver: root user does not have root role";
    /// A user is added under a name that is taken.
    UserAlreadyExist, FailedPrecondition, "etcdserver: user name already exists";
    /// A user without a name.
    UserEmpty, InvalidArgument, "etcdserver: user name is empty";
    /// A user name that does not exist.
    UserNotFound, FailedPrecondition, "etcdserver: user name not found";
    /// A role is added under a name that is taken.
    RoleAlreadyExist, FailedPrecondition, "etcdserver: role name already exists";
    /// A role name that does not exist.
    RoleNotFound, FailedPrecondition, "etcdserver: role name not found";
    /// A role without a name.
    RoleEmpty, InvalidArgument, "etcdserver: role name is empty";
    /// A wrong user or password; which of the two is not said.
    AuthFailed, InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    /// A grant without a permission in it.
    PermissionNotGiven, InvalidArgument, "etcdserver: permission not given";
    /// A user who lacks the permission for this key range or this call.
    PermissionDenied, PermissionDenied, "etcdserver: permission denied";
    /// A role is taken from a user who does not have it.
    RoleNotGranted, FailedPrecondition, "etcdserver: role is not granted to the user";
    /// A permission is taken from a role that does not have it.
    PermissionNotGranted, FailedPrecondition, "etcdserver: permission is not granted to the role";
    /// A call for a token while authentication is off.
    AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled";
    /// A token that is unknown, expired or malformed.
    InvalidAuthToken, Unauthenticated, "etcdserver: invalid auth token";
    /// A change that authentication itself could not survive, such as dropping `root`.
    InvalidAuthMgmt, InvalidArgument, "etcdserver: invalid auth management";
    /// The rules changed between the check of a request and its application.
    AuthOldRevision, InvalidArgument, "etcdserver: revision of auth store is old";
    /// The member knows no leader.
    NoLeader, Unavailable, "etcdserver: no leader";
    /// A call that only the leader answers reached another member.
    NotLeader, FailedPrecondition, "etcdserver: not leader";
    /// The leader changed while the request was under way.
    LeaderChanged, Unavailable, "etcdserver: leader changed";
    /// A call that the cluster, at its present version, does not offer.
    NotCapable, FailedPrecondition, "etcdserver: not capable";
    /// The member is shutting down.
    Stopped, Unavailable, "etcdserver: server stopped";
    /// No answer in time; whether a write happened is unknown.
    Timeout, Unavailable, "etcdserver: request timed out";
    /// No answer in time, and a leader was lost shortly before.
    TimeoutDueToLeaderFail, Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    /// No answer in time, and the connection to a quorum was lost.
    TimeoutDueToConnectionLost, Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    /// A linearizable read whose index was not applied in time.
    TimeoutWaitAppliedIndex, Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    /// A membership change while members are unreachable.
    Unhealthy, Unavailable, "etcdserver: unhealthy cluster";
    /// Writes are stopped because members disagree about the data.
    Corrupt, DataLoss, "etcdserver: corrupt cluster";
    /// A learner does not answer this call.
    NotSupportedForLearner, FailedPrecondition, "etcdserver: rpc not supported for learner";
    /// Leadership cannot move to that member.
    BadLeaderTransferee, FailedPrecondition, "etcdserver: bad leader transferee";
    /// A downgrade target that is not a version.
    WrongDowngradeVersionFormat, InvalidArgument, "etcdserver: wrong downgrade target version format";
    /// A downgrade target other than one minor version below.
    InvalidDowngradeTargetVersion, InvalidArgument, "etcdserver: invalid downgrade target version";
    /// A downgrade before the cluster has agreed on its version.
    ClusterVersionUnavailable, FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    /// A second downgrade while one runs.
    DowngradeInProcess, FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    /// A downgrade is cancelled while none runs.
    NoInflightDowngrade, FailedPrecondition, "etcdserver: no inflight downgrade job";
    /// The caller cancelled the request.
    Canceled, Canceled, "etcdserver: request canceled";
    /// The caller's deadline passed.
    DeadlineExceeded, DeadlineExceeded, "etcdserver: context deadline exceeded";
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}
