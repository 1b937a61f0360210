//! What applying a command hands back.

use std::fmt;

use api::authpb::Permission;
use api::etcdserverpb::{
    AlarmResponse, CompactionResponse, DeleteRangeResponse, LeaseCheckpointResponse, LeaseGrantResponse,
    LeaseRevokeResponse, PutResponse, RangeResponse, TxnResponse,
};
use api::raft_request::Op;
use prost::Message as _;

use crate::member::Member;
use crate::rejection::Rejection;

/// The same on every member.
pub type Outcome = Result<Reply, Rejection>;

/// A command that took effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The revision for the header of the answer.
    pub revision: i64,
    /// The answer, its own header absent. (The answers inside of a transaction's do have headers,
    /// with nothing but the revision in them, as etcd sends them.)
    pub body: Body,
}

impl Body {
    /// How many bytes the answer takes, encoded.
    pub fn size(&self) -> usize {
        match self {
            Body::Range(answer) => answer.encoded_len(),
            Body::Put(answer) => answer.encoded_len(),
            Body::DeleteRange(answer) => answer.encoded_len(),
            Body::Txn(answer) => answer.encoded_len(),
            Body::Compaction(answer) => answer.encoded_len(),
            Body::LeaseGrant(answer) => answer.encoded_len(),
            Body::LeaseRevoke(answer) => answer.encoded_len(),
            Body::LeaseCheckpoint(answer) => answer.encoded_len(),
            Body::Alarm(answer) => answer.encoded_len(),
            // These are made into answers later.
            Body::Auth(_) | Body::Internal | Body::Members(_) | Body::Nothing => 0,
        }
    }
}

/// The answer, by command.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Body {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compaction(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    LeaseCheckpoint(LeaseCheckpointResponse),
    Alarm(AlarmResponse),
    Auth(AuthReply),
    /// A configuration change: all members after it.
    Members(Vec<Member>),
    /// Commands that only members send: the cluster's version, a member's attributes, a downgrade.
    Internal,
    /// An entry without a command, as a new leader writes it.
    Nothing,
}

/// The answer to a command about users and roles.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)]
pub enum AuthReply {
    /// The password was checked before; now the token counts.
    Authenticated {
        /// Whose token it is to be.
        user: String,
        /// The simple token; empty where none was asked for.
        token: String,
        /// The revision of users and roles, for a token that names it.
        revision: u64,
    },
    Status {
        enabled: bool,
        revision: u64,
    },
    UserRoles(Vec<String>),
    Permissions(Vec<Permission>),
    Users(Vec<String>),
    Roles(Vec<String>),
    /// It is done, or was so already.
    Done,
}

impl fmt::Debug for AuthReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // No token gets into a log.
            AuthReply::Authenticated { user, .. } => write!(f, "Authenticated {{ user: {user:?} }}"),
            AuthReply::Status { enabled, revision } => {
                write!(f, "Status {{ enabled: {enabled}, revision: {revision} }}")
            }
            AuthReply::UserRoles(names) => write!(f, "UserRoles({names:?})"),
            AuthReply::Permissions(permissions) => write!(f, "Permissions({permissions:?})"),
            AuthReply::Users(names) => write!(f, "Users({names:?})"),
            AuthReply::Roles(names) => write!(f, "Roles({names:?})"),
            AuthReply::Done => f.write_str("Done"),
        }
    }
}

/// One applied entry.
#[derive(Debug)]
pub struct Applied {
    /// The id of the request, by which the proposer knows its waiter; zero for an entry without.
    pub id: u64,
    /// What it asked for.
    pub op: Op,
    /// What to answer.
    pub outcome: Outcome,
    /// The new revision and what it changed, if the entry wrote keys.
    pub events: Option<(i64, Vec<mvcc::Event>)>,
    /// For a configuration entry: what raft has to do now. A refused change comes back as one of
    /// node zero, which changes nothing, so that raft lets the next one pass.
    pub conf_change: Option<raft::ConfChange>,
    /// The write took effect although it is above this member's quota (the outcome says
    /// [`Rejection::NoSpace`]), and there is no NOSPACE alarm yet: the member must raise one
    /// through the log, and answer after that.
    pub raise_no_space: bool,
}

impl Applied {
    /// An entry that wrote no keys and needs nothing else done.
    pub(crate) fn of(id: u64, outcome: Outcome) -> Self {
        Applied { id, op: Op::Unknown, outcome, events: None, conf_change: None, raise_no_space: false }
    }
}
