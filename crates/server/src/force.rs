//! `--force-new-cluster`: a member goes on alone with what it knows to be committed.
//!
//! For a cluster that has lost its quorum for good. What is not committed is dropped, and entries
//! that make this member the only one are written behind the rest, as etcd does, and taken for
//! committed: nobody else is asked. Whoever uses this must see to it that the other members never
//! run again.

use std::time::Duration;

use api::raftpb::{ConfChange, ConfChangeType};
use apply::{ChangeContext, Machine, Member as Other, Shared};
use backend::Backend;
use bytes::Bytes;
use prost::Message as _;
use raft::{Entry, EntryKind, HardState, Index};
use wal::{Recovered, Wal};

use crate::bootstrap::StartError;
use crate::config::Config;
use crate::flusher::FLUSH_BYTES;

/// Leaves `recovered` with committed entries only, the last of which make the member `id` the only
/// one; all but these are applied.
pub(crate) fn alone(
    config: &Config,
    id: u64,
    backend: &Backend,
    (machine, shared): (&mut Machine, &Shared),
    wal: &mut Wal,
    recovered: &mut Recovered,
) -> Result<(), StartError> {
    let noted = recovered.hard_state.commit;
    let committed = noted.max(machine.applied().0);
    let before = recovered.entries.len();
    recovered.entries.retain(|entry| entry.index <= committed);
    let dropped = before - recovered.entries.len();
    // Who is a member now follows from all of the log, not only from what the store held.
    let applied = machine.applied().0;
    for entry in recovered.entries.iter().filter(|entry| entry.index > applied) {
        machine.apply(entry, Duration::ZERO).map_err(StartError::Machine)?;
        if backend.buffered_bytes() > FLUSH_BYTES {
            machine.seal();
            backend.flush_all().map_err(StartError::Backend)?;
        }
    }
    machine.seal();
    let cluster = shared.cluster.get();
    let members: Vec<Other> = cluster.members.values().cloned().collect();
    if cluster.removed.contains(&id) {
        return Err(StartError::Removed(id));
    }
    let term = recovered
        .entries
        .last()
        .map_or(recovered.hard_state.term, |last| last.term.max(recovered.hard_state.term));
    let changes = changes(config, id, &members);
    let entries: Vec<Entry> = (committed.0 + 1..)
        .zip(&changes)
        .map(|(index, change)| Entry {
            term,
            index: Index(index),
            kind: EntryKind::ConfChange,
            data: change.encode_to_vec().into(),
        })
        .collect();
    let last = entries.last().map_or(committed, |entry| entry.index);
    let hard_state = HardState { term, commit: last, ..recovered.hard_state };
    wal.append(Some(&hard_state), &entries).and_then(|()| wal.sync()).map_err(StartError::Wal)?;
    recovered.entries.extend(entries);
    recovered.hard_state = hard_state;
    tracing::info!(
        "local-member-id" = format!("{id:x}"),
        "wal-commit-index" = noted.0,
        "commit-index" = last.0,
        "discarded-uncommitted-entries" = dropped,
        "removed-members" = members.iter().filter(|other| other.id != id).count(),
        "forcing restart member"
    );
    Ok(())
}

/// First this member gets its vote, if it has none, because the last voter cannot go; then all others
/// go.
fn changes(config: &Config, id: u64, members: &[Other]) -> Vec<ConfChange> {
    let change = |kind: ConfChangeType, node_id, context: Option<Bytes>| ConfChange {
        id: None,
        r#type: Some(kind.into()),
        node_id: Some(node_id),
        context,
    };
    let own = members.iter().find(|member| member.id == id);
    let vote = match own {
        None => {
            let (name, peer_urls) = (config.name.clone(), config.peer_urls.clone());
            Some(apply::to_json(&Other { id, name, peer_urls, ..Other::default() }))
        }
        Some(own) if own.is_learner => {
            let member = Other { id, ..Other::default() };
            Some(apply::to_json(&ChangeContext { member, is_promote: true }))
        }
        Some(_) => None,
    };
    let added = vote.map(|context| change(ConfChangeType::ConfChangeAddNode, id, Some(context)));
    let others = members.iter().filter(|member| member.id != id);
    let removed = others.map(|other| change(ConfChangeType::ConfChangeRemoveNode, other.id, None));
    added.into_iter().chain(removed).collect()
}
