//! Why a member could not do what it was asked.

/// Failures of the member itself, as against rejections, which every member answers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No member leads at the moment; nothing entered the log.
    NoLeader,
    /// The leader changed while the request was on its way, and it came to nothing in the time allowed.
    LeaderChanged,
    /// The request was not applied within the time allowed: its outcome is not known.
    Timeout,
    /// The same, and a leader has failed meanwhile.
    TimeoutLeaderFail,
    /// The same, and the connection to the leader or to a quorum was lost meanwhile.
    TimeoutConnectionLost,
    /// Leadership was not handed over within the time allowed.
    TimeoutLeaderTransfer,
    /// This member does not lead.
    NotLeader,
    /// Leadership cannot be handed to that member: it has no vote, or there is no such member.
    BadTransferee,
    /// More is committed than applied than a member may fall behind, or too much waits to enter the log.
    TooManyRequests,
    /// The encoded request is larger than `--max-request-bytes`.
    RequestTooLarge,
    /// The member is shutting down.
    Stopped,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoLeader => "no leader",
            Self::LeaderChanged => "leader changed",
            Self::Timeout => "request timed out",
            Self::TimeoutLeaderFail => "request timed out, possibly due to previous leader failure",
            Self::TimeoutConnectionLost => "request timed out, possibly due to connection lost",
            Self::TimeoutLeaderTransfer => "request timed out, leader transfer took too long",
            Self::NotLeader => "not leader",
            Self::BadTransferee => "bad leader transferee",
            Self::TooManyRequests => "too many requests",
            Self::RequestTooLarge => "request is too large",
            Self::Stopped => "server stopped",
        })
    }
}

impl std::error::Error for Error {}
