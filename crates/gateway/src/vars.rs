//! `/debug/vars`: what Go programs tell of themselves under that path.
//!
//! Names and shapes are etcd's. `memstats` is not there: it tells of Go's memory, and there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use server::Member;

/// The variables of this process.
#[derive(Serialize)]
pub(crate) struct Vars {
    cmdline: Vec<String>,
    file_descriptor_limit: u64,
    #[serde(rename = "raft.status")]
    raft: Raft,
}

/// Raft's position, ids in hexadecimal.
#[derive(Serialize)]
struct Raft {
    id: String,
    term: u64,
    vote: String,
    commit: u64,
    lead: String,
    #[serde(rename = "raftState")]
    role: String,
    applied: u64,
    /// What a leader knows of the others.
    progress: BTreeMap<String, Progress>,
    leadtransferee: String,
}

#[derive(Serialize)]
struct Progress {
    #[serde(rename = "match")]
    matched: u64,
    next: u64,
    state: String,
}

impl Vars {
    /// What they are now.
    pub(crate) fn of(member: &Arc<Member>) -> Self {
        let raft = member.raft_picture();
        let hex = |id: Option<u64>| format!("{:x}", id.unwrap_or(0));
        // Go's names for these are `State` and a word, which happens to be the one that is used here.
        let state = |word: &dyn std::fmt::Debug| format!("State{word:?}");
        let progress = raft.peers.iter().map(|peer| {
            let (matched, next) = (peer.matched.0, peer.next.0);
            (hex(Some(peer.id.0)), Progress { matched, next, state: state(&peer.flow) })
        });
        Self {
            cmdline: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            file_descriptor_limit: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            raft: Raft {
                id: hex(Some(raft.id.0)),
                term: raft.hard_state.term.0,
                vote: hex(raft.hard_state.vote.map(|id| id.0)),
                commit: raft.hard_state.commit.0,
                lead: hex(raft.leader.map(|id| id.0)),
                role: state(&raft.role),
                applied: raft.applied.0,
                progress: progress.collect(),
                leadtransferee: hex(raft.transferee.map(|id| id.0)),
            },
        }
    }
}
