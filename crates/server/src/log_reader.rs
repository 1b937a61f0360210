//! The thread that reads the log back from the disk for members that are behind what memory holds.
//!
//! A slow follower costs the leader a look into a file, and nobody else anything.

use std::sync::Arc;

use node::Input;
use wal::{LogReader, WalError};

use crate::member::Member;

/// Runs until the queue is closed.
pub(crate) fn run(member: &Arc<Member>, reader: &LogReader) -> Result<(), WalError> {
    let mut questions = Vec::new();
    while member.log_reads().take(&mut questions) {
        for read in questions.drain(..) {
            let (after_term, entries) = reader.read(read.after, read.upto, read.bytes)?.unwrap_or_default();
            member.inbox().of_peer(Input::LogRead { to: read.to, after: read.after, after_term, entries });
            member.drive();
        }
    }
    Ok(())
}
