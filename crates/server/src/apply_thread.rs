//! The one writer of the replicated state: committed entries in log order, batch by batch.
//!
//! Store, publish, announce: the machine makes an entry's effects readable, then the answers and
//! the events of a run of entries leave together.

use std::sync::Arc;
use std::time::Instant;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmRequest, AlarmType};
use apply::Machine;
use raft::{Entry, EntryKind};
use watch::Batch;

use crate::leases;
use crate::mailbox::{EVENT_OVERHEAD, Mailbox};
use crate::member::Member;
use crate::proposal::{Answer, RequestId};
use crate::raft_driver::own_proposal;
use crate::tally;

/// Entries applied before their answers leave: enough to share the wake-ups, few enough that the
/// first of them is not kept waiting for the last.
const RUN: usize = 128;

/// Runs until the queue is closed and empty.
pub(crate) fn run(member: &Arc<Member>, mut machine: Machine) -> Result<(), apply::Failure> {
    let mut batches: Vec<Vec<Entry>> = Vec::new();
    let mut outgoing = Outgoing::new(member.shards());
    while member.apply_queue().take(&mut batches) {
        for entries in batches.drain(..) {
            for run in entries.chunks(RUN) {
                apply_run(member, &mut machine, run, &mut outgoing)?;
            }
        }
    }
    Ok(())
}

/// What a run of entries has to tell, sorted by who waits for it.
struct Outgoing {
    answers: Vec<Vec<(RequestId, Answer)>>,
    events: Vec<mvcc::Event>,
    configurations: Vec<raft::ConfChangeV2>,
    /// Answers to writes that went over the quota: they wait until the alarm is in force, so that
    /// a client that was told of it finds it (etcd does the same).
    over_quota: Vec<(RequestId, Answer)>,
}

impl Outgoing {
    fn new(shards: usize) -> Self {
        Self {
            answers: (0..shards).map(|_| Vec::new()).collect(),
            events: Vec::new(),
            configurations: Vec::new(),
            over_quota: Vec::new(),
        }
    }
}

impl Outgoing {
    fn answer(&mut self, id: RequestId, answer: Answer) {
        // Entries that the member proposed itself have no shard that waits.
        if let Some(answers) = self.answers.get_mut(id.shard()).filter(|_| id.0 != 0) {
            answers.push((id, answer));
        }
    }
}

/// Proposes the alarm that stops further writes in the whole cluster.
fn raise_no_space(member: &Arc<Member>) {
    let alarm = AlarmRequest {
        member_id: member.id(),
        action: AlarmAction::Activate.into(),
        alarm: AlarmType::Nospace.into(),
    };
    // Refused only where the member stops, or so much waits that the next write asks again.
    let _ = member.inbox().ask(&mut vec![own_proposal(&alarm, None)], None);
    member.drive();
}

fn apply_run(
    member: &Arc<Member>,
    machine: &mut Machine,
    run: &[Entry],
    outgoing: &mut Outgoing,
) -> Result<(), apply::Failure> {
    member.backend().wait_for_room().map_err(apply::Failure::Backend)?;
    let started = Instant::now();
    let now = member.now();
    let Some(last) = run.last().map(|entry| entry.index) else { return Ok(()) };
    for entry in run {
        let applied = machine.apply(entry, now)?;
        tally::applied(member.metrics(), &applied);
        if entry.kind == EntryKind::Normal && entry.data.is_empty() {
            // What a leader appends first (R2).
            leases::term_begun(member, entry.term);
        }
        if let Some(committed) = applied.events {
            outgoing.events.extend(committed.1);
        }
        outgoing.configurations.extend(applied.conf_change.map(raft::ConfChangeV2::from));
        let (id, answer) = (RequestId(applied.id), Answer::Applied(applied.outcome));
        if applied.raise_no_space {
            outgoing.over_quota.push((id, answer));
        } else {
            outgoing.answer(id, answer);
        }
    }
    if !outgoing.over_quota.is_empty() {
        if member.alarms().no_space() {
            for (id, answer) in std::mem::take(&mut outgoing.over_quota) {
                outgoing.answer(id, answer);
            }
        } else {
            raise_no_space(member);
        }
    }
    machine.seal();
    member.raft().set_applied(last.0);
    member.release_reads(last);
    let reconfigured = !outgoing.configurations.is_empty();
    member.inbox().applied(last, std::mem::take(&mut outgoing.configurations));
    if reconfigured {
        member.drive();
    }

    let bytes = outgoing.events.iter().map(|event| event.record.len() + EVENT_OVERHEAD).sum();
    let batch = Batch::new(std::mem::take(&mut outgoing.events)).map(Arc::new);
    for (mailbox, answers) in member.mailboxes().iter().zip(&mut outgoing.answers) {
        Mailbox::post_answers(mailbox, answers);
        if let Some(batch) = &batch {
            mailbox.post_events(batch, bytes);
        }
    }
    let took = started.elapsed();
    member.metrics().apply.observe(took.as_secs_f64() / run.len() as f64);
    if took > member.config().warning_apply * run.len() as u32 {
        member.metrics().slow_apply.inc();
        tracing::warn!(took = ?took, entries = run.len(), index = last.0, "apply request took too long");
    }
    Ok(())
}
