//! What the answer to a POST means.

use http::StatusCode;

/// The peer's word on what was posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has it.
    Taken,
    /// It says that this member is of the cluster no more.
    RemovedHere,
    /// It did not take it; why.
    Declined(String),
}

/// etcd answers 403 both to members that were removed and to messages that are for another member;
/// only the text tells which.
pub(crate) fn verdict(status: StatusCode, text: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(text);
    match status {
        StatusCode::NO_CONTENT => Verdict::Taken,
        StatusCode::GONE => Verdict::RemovedHere,
        StatusCode::FORBIDDEN if !text.contains("mismatch") => Verdict::RemovedHere,
        _ => Verdict::Declined(format!("the peer answered {status}: {}", text.trim_end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_removed_member_is_told_that_it_is_removed() {
        assert_eq!(verdict(StatusCode::NO_CONTENT, b""), Verdict::Taken);
        let removed = b"{\"message\":\"cannot process message from removed member\"}";
        assert_eq!(verdict(StatusCode::FORBIDDEN, removed), Verdict::RemovedHere);
        let other = b"{\"message\":\"cannot process message to mismatch member\"}";
        assert!(matches!(verdict(StatusCode::FORBIDDEN, other), Verdict::Declined(_)));
        assert!(matches!(verdict(StatusCode::PRECONDITION_FAILED, b"x"), Verdict::Declined(_)));
    }
}
