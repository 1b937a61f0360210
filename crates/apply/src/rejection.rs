//! Why a command, or a request before it becomes one, is refused; and what stops the member.

use std::fmt;

use raft::{Index, Term};

/// A refusal that every member decides alike, because it follows from the state and the command.
///
/// The one exception is [`Rejection::NoSpace`] by quota: it is about this member's file, but then
/// the command has taken effect all the same, here as everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// A request or comparison without a key.
    EmptyKey,
    /// `ignore_value` or `ignore_lease` for a key that does not exist; an empty operation in a
    /// transaction.
    KeyNotFound,
    /// `ignore_value` together with a value.
    ValueProvided,
    /// `ignore_lease` together with a lease.
    LeaseProvided,
    /// A list of a transaction is longer than allowed.
    TooManyOps,
    /// A transaction may write a key twice.
    DuplicateKey,
    /// An unknown sort order or target.
    InvalidSortOption,
    /// The revision has been compacted.
    Compacted,
    /// The revision has not happened yet.
    FutureRevision,
    /// The space quota is used up.
    NoSpace,
    /// The members' data was found to differ; nothing is changed or read any more.
    Corrupt,
    /// There is no such lease.
    LeaseNotFound,
    /// The lease id is taken.
    LeaseExists,
    /// The time to live is too long.
    LeaseTtlTooLarge,
    /// The member was removed earlier, and a removed member never comes back.
    MemberRemoved,
    /// There is no such member.
    MemberNotFound,
    /// The member id is taken.
    MemberExists,
    /// Another member has one of the peer URLs.
    PeerUrlExists,
    /// The member to promote votes already.
    MemberNotLearner,
    /// One learner more than allowed.
    TooManyLearners,
    /// The change would leave nobody to vote.
    NoVoters,
    /// A streamed range in another order than the keys'.
    StreamOrder,
    /// A streamed range that filters by revision.
    StreamFilter,
    /// A matter of users, roles and permissions.
    Auth(auth::Error),
    /// A command of etcd's that changes nothing, or nothing that is kept here, and that this version does
    /// not carry out; its name.
    Unsupported(&'static str),
}

/// How a rejection is told to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A row of etcd's error table.
    Error(api::error::Error),
    /// The gRPC code `Unimplemented` with this text.
    Unimplemented(&'static str),
    /// The gRPC code `Unknown` with this text: etcd's table has no row for it.
    Unknown(&'static str),
}

impl Rejection {
    /// etcd's word for it. The match has no wildcard: a new rejection must choose its code and
    /// text here.
    pub fn told(self) -> Told {
        use api::error::Error;
        Told::Error(match self {
            Rejection::EmptyKey => Error::EmptyKey,
            Rejection::KeyNotFound => Error::KeyNotFound,
            Rejection::ValueProvided => Error::ValueProvided,
            Rejection::LeaseProvided => Error::LeaseProvided,
            Rejection::TooManyOps => Error::TooManyOps,
            Rejection::DuplicateKey => Error::DuplicateKey,
            Rejection::InvalidSortOption => Error::InvalidSortOption,
            Rejection::Compacted => Error::Compacted,
            Rejection::FutureRevision => Error::FutureRev,
            Rejection::NoSpace => Error::NoSpace,
            Rejection::Corrupt => Error::Corrupt,
            Rejection::LeaseNotFound => Error::LeaseNotFound,
            Rejection::LeaseExists => Error::LeaseExist,
            Rejection::LeaseTtlTooLarge => Error::LeaseTtlTooLarge,
            Rejection::MemberRemoved | Rejection::MemberNotFound => Error::MemberNotFound,
            Rejection::MemberExists => Error::MemberExist,
            Rejection::PeerUrlExists => Error::PeerUrlExist,
            Rejection::MemberNotLearner => Error::MemberNotLearner,
            Rejection::TooManyLearners => Error::TooManyLearners,
            Rejection::NoVoters => Error::MemberNotEnoughStarted,
            Rejection::StreamOrder => {
                return Told::Unimplemented("RangeStream does not support custom sort orders");
            }
            Rejection::StreamFilter => {
                return Told::Unimplemented("RangeStream does not support revision filters");
            }
            Rejection::Auth(error) => match error.told() {
                Some(error) => error,
                None => return Told::Unknown(error.message()),
            },
            Rejection::Unsupported(_) => return Told::Unimplemented("not supported by this version"),
        })
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.told()) {
            (Rejection::Unsupported(what), _) => write!(f, "{what} is not supported by this version"),
            (_, Told::Error(error)) => f.write_str(error.message()),
            (_, Told::Unimplemented(text) | Told::Unknown(text)) => f.write_str(text),
        }
    }
}

impl std::error::Error for Rejection {}

/// What only this member's disk can say. It is no outcome: the member must stop, or it would part
/// ways with the others.
#[derive(Debug)]
pub enum Failure {
    /// The store of keys and values failed.
    Store(mvcc::ReadError),
    /// The tables failed.
    Backend(backend::Error),
    /// A stored row that no version of etcd or Cairn writes: the table and the key, in hex.
    Damaged {
        /// The table's name.
        table: &'static str,
        /// The row's key in hexadecimal.
        key: String,
    },
    /// The members' records contradict the raft configuration; how.
    Membership(String),
    /// A committed entry that this version cannot carry out as the members who wrote it do: to pass over it
    /// would be to part ways with them.
    NotUnderstood {
        /// Where it stands.
        index: Index,
        /// Whose it is.
        term: Term,
        /// What it holds.
        what: String,
    },
    /// The stored state is of a cluster that speaks a later version than this one; etcd's words.
    Version(String),
    /// A restore is to raise revisions beyond the last one there is.
    NoRevision,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Store(error) => write!(f, "the key-value store failed: {error}"),
            Failure::Backend(error) => write!(f, "the backend failed: {error}"),
            Failure::NotUnderstood { index: Index(index), term: Term(term), what } => write!(
                f,
                "entry {index} of term {term} is beyond this version, {}: {what}; nothing of it was applied, and \
                 a version that knows it can go on from here",
                api::ETCD_VERSION
            ),
            Failure::Version(words) => f.write_str(words),
            Failure::NoRevision => f.write_str("revisions cannot be raised by so much"),
            Failure::Membership(what) => write!(f, "the members contradict raft's configuration: {what}"),
            Failure::Damaged { table, key } => write!(f, "table {table} holds a damaged row under key {key}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<backend::Error> for Failure {
    fn from(error: backend::Error) -> Self {
        Failure::Backend(error)
    }
}

/// How a read goes wrong: by rule, or by disk.
#[derive(Debug)]
pub enum ReadFailure {
    /// To be told to the client.
    Rejected(Rejection),
    /// The member cannot read its own store.
    Failed(Failure),
}

impl From<Rejection> for ReadFailure {
    fn from(rejection: Rejection) -> Self {
        ReadFailure::Rejected(rejection)
    }
}

impl From<Failure> for ReadFailure {
    fn from(failure: Failure) -> Self {
        ReadFailure::Failed(failure)
    }
}

impl From<auth::Error> for Rejection {
    fn from(error: auth::Error) -> Self {
        Rejection::Auth(error)
    }
}

impl From<lease::Error> for Rejection {
    /// What applying a lease command can meet. The primary's own errors do not occur there: log
    /// entries ask nothing of clocks.
    fn from(error: lease::Error) -> Self {
        match error {
            lease::Error::NotFound | lease::Error::Expired | lease::Error::NotPrimary => {
                Rejection::LeaseNotFound
            }
            lease::Error::Exists => Rejection::LeaseExists,
            lease::Error::TtlTooLarge => Rejection::LeaseTtlTooLarge,
        }
    }
}
