//! How things look in a trace.

use raft::*;
use std::fmt::Write as _;

/// What a member wants done, except messages, which show up when they arrive.
pub fn ready(out: &mut String, id: NodeId, ready: &Ready) {
    if let Some(state) = ready.soft_state {
        let leader = state.leader.map_or("nobody".to_string(), |l| l.to_string());
        writeln!(out, "{id} is {:?} in term {}, led by {leader}", state.role, state.term).unwrap();
    }
    if let Some(persist) = &ready.persist {
        write!(out, "{id} writes #{}", persist.id).unwrap();
        if let Some(snapshot) = &persist.snapshot {
            write!(out, " snapshot {}/{}", snapshot.meta.index, snapshot.meta.term).unwrap();
        }
        if let Some(HardState { term, vote, commit }) = persist.hard_state {
            let vote = vote.map_or("none".to_string(), |v| v.to_string());
            write!(out, " term={term} vote={vote} commit={commit}").unwrap();
        }
        let sync = if persist.must_sync { "" } else { " (no sync)" };
        writeln!(out, "{}{sync}", entries(&persist.entries)).unwrap();
    }
    if let Some(snapshot) = &ready.install {
        writeln!(out, "{id} installs snapshot {}/{}", snapshot.meta.index, snapshot.meta.term).unwrap();
    }
    if !ready.committed.is_empty() {
        writeln!(out, "{id} applies{}", entries(&ready.committed)).unwrap();
    }
    for read in &ready.reads {
        match read {
            ReadOutcome::Ready { id: read, index } => writeln!(out, "{id} may read r{read} at {index}"),
            ReadOutcome::Dropped { id: read } => writeln!(out, "{id} drops r{read}"),
        }
        .unwrap();
    }
    for (proposal, reason) in &ready.dropped {
        writeln!(out, "{id} drops proposal {proposal}: {reason:?}").unwrap();
    }
    for to in &ready.snapshots_wanted {
        writeln!(out, "{id} wants a snapshot for {to}").unwrap();
    }
}

pub fn entries(entries: &[Entry]) -> String {
    entries.iter().fold(String::new(), |mut out, entry| {
        let Entry { index, term, kind, data } = entry;
        write!(out, " {index}/{term}").unwrap();
        match kind {
            EntryKind::Normal if data.is_empty() => {}
            EntryKind::Normal if data.len() > 20 => write!(out, ":{} bytes", data.len()).unwrap(),
            EntryKind::Normal => write!(out, ":{}", String::from_utf8_lossy(data)).unwrap(),
            _ => write!(out, ":{}", change(*kind, data)).unwrap(),
        }
        out
    })
}

fn change(kind: EntryKind, data: &[u8]) -> String {
    let change = ConfChangeV2::decode(kind, data).unwrap();
    if change.leaves_joint() {
        return "leave".to_string();
    }
    let parts = change.changes.iter().map(|change| format!("{:?}({})", change.kind, change.node));
    parts.collect::<Vec<_>>().join("+")
}

pub fn message(message: &Message) -> String {
    let Message { to, from, term, body } = message;
    let mut out = format!("{from}->{to} {} t{term}", body.name());
    match body {
        Body::Propose { entries: list } => {
            let text = |e: &Entry| match e.kind {
                EntryKind::Normal => String::from_utf8_lossy(&e.data).into_owned(),
                kind => change(kind, &e.data),
            };
            write!(out, " {}", list.iter().map(text).collect::<Vec<_>>().join(" "))
        }
        Body::Append { prev_index, prev_term, entries: list, commit } => {
            write!(out, " after {prev_index}/{prev_term}{} commit={commit}", entries(list))
        }
        Body::AppendResponse { index, reject: None } => write!(out, " matched {index}"),
        Body::AppendResponse { index, reject: Some(Rejection { hint, hint_term }) } => {
            write!(out, " rejects {index}, try {hint}/{hint_term}")
        }
        Body::Vote(show) | Body::PreVote(show) => {
            let transfer = if show.transfer { " transfer" } else { "" };
            write!(out, " last {}/{}{transfer}", show.last_index, show.last_term)
        }
        Body::VoteResponse(answer) | Body::PreVoteResponse(answer) => match answer {
            Answer { reject: false, .. } => write!(out, " yes"),
            Answer { commit, commit_term, .. } => write!(out, " no, committed {commit}/{commit_term}"),
        },
        Body::Snapshot(snapshot) => {
            write!(out, " at {}/{}", snapshot.meta.index, snapshot.meta.term)
        }
        Body::Heartbeat { commit, context } => {
            write!(out, " commit={commit}{}", round(context))
        }
        Body::HeartbeatResponse { context } => write!(out, "{}", round(context)),
        Body::TransferLeader | Body::TimeoutNow => Ok(()),
        Body::ReadIndex { context } => write!(out, "{}", round(context)),
        Body::ReadIndexResponse { index, context } => write!(out, " {index}{}", round(context)),
    }
    .unwrap();
    out
}

fn round(context: &[u8]) -> String {
    match context.try_into() {
        Ok(bytes) => format!(" round={}", u64::from_be_bytes(bytes)),
        // Ours are numbers; what others say may be text.
        Err(_) if !context.is_empty() && context.iter().all(u8::is_ascii_graphic) => {
            format!(" context={}", String::from_utf8_lossy(context))
        }
        Err(_) => String::new(),
    }
}

pub fn log(out: &mut String, raft: &Raft) {
    let Status { id, begin, last, stable, hard_state, applied, .. } = raft.status();
    let commit = hard_state.commit;
    writeln!(out, "{id}: ({begin}, {last}] stable={stable} commit={commit} applied={applied}").unwrap();
}

pub fn peers(out: &mut String, raft: &Raft) {
    for peer in raft.status().peers {
        let PeerStatus { id, matched, next, flow, window, active, learner, .. } = peer;
        write!(out, "{id}: {flow:?} matched={matched} next={next}").unwrap();
        if window > 0 {
            write!(out, " window={window}").unwrap();
        }
        let active = if active { "" } else { " inactive" };
        let learner = if learner { " learner" } else { "" };
        writeln!(out, "{active}{learner}").unwrap();
    }
}

pub fn conf(conf: &ConfState) -> String {
    let list = |name: &str, ids: &[NodeId]| match ids {
        [] => String::new(),
        ids => {
            let ids: Vec<_> = ids.iter().map(NodeId::to_string).collect();
            format!(" {name}={}", ids.join(","))
        }
    };
    let auto = if conf.auto_leave { " auto-leave" } else { "" };
    let lists = [
        list("voters", &conf.voters),
        list("outgoing", &conf.voters_outgoing),
        list("learners", &conf.learners),
        list("learners-next", &conf.learners_next),
    ];
    (lists.concat() + auto).trim_start().to_string()
}
