//! The one writer of the replicated state: committed entries in log order, batch by batch.
//!
//! Store, publish, announce: the machine makes an entry's effects readable, then the answers and
//! the events of a run of entries leave together.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmRequest, AlarmType};
use apply::{Applied, Body, Failure, Machine, Rejection};
use auth::Caller;
use backend::Target;
use raft::{Entry, EntryKind, Snapshot};
use watch::Batch;

use crate::auth_log;
use crate::leases;
use crate::mailbox::{EVENT_OVERHEAD, Mailbox};
use crate::member::Member;
use crate::proposal::{Answer, RequestId};
use crate::raft_driver::own_proposal;
use crate::roads;
use crate::slow::{self, Applying};
use crate::snapshots::{incoming_path, remove_incoming};
use crate::tally;

/// Entries applied before their answers leave: enough to share the wake-ups, few enough that the
/// first of them is not kept waiting for the last.
const RUN: usize = 128;

/// What the apply thread is asked to do.
pub(crate) enum ApplyJob {
    /// Apply these, which are committed.
    Entries(Vec<Entry>),
    /// Replace the state by this one, which another member has sent and which is in the WAL.
    Install(Snapshot),
}

/// Runs until the queue is closed and empty.
pub(crate) fn run(member: &Arc<Member>, mut machine: Machine) -> Result<(), Failure> {
    let mut jobs: Vec<ApplyJob> = Vec::new();
    let mut outgoing = Outgoing::new(member);
    while member.apply_queue().take(&mut jobs) {
        for job in jobs.drain(..) {
            match job {
                ApplyJob::Entries(entries) => {
                    for run in entries.chunks(RUN) {
                        apply_run(member, &mut machine, run, &mut outgoing)?;
                    }
                }
                ApplyJob::Install(snapshot) => {
                    install(member, &mut machine, &snapshot)?;
                    outgoing.auth_was_on = member.auth().is_enabled();
                }
            }
        }
    }
    Ok(())
}

/// Takes in another member's state: on disk, then in memory, then for whoever watches.
fn install(member: &Arc<Member>, machine: &mut Machine, snapshot: &Snapshot) -> Result<(), Failure> {
    let index = snapshot.meta.index;
    tracing::info!(
        "local-member-id" = format!("{:x}", member.id()),
        "current-applied-index" = machine.applied().0.0,
        "incoming-leader-snapshot-index" = index.0,
        "incoming-leader-snapshot-term" = snapshot.meta.term.0,
        "applying snapshot"
    );
    member.metrics().snapshot_installs.inc();
    let began = Instant::now();
    let path = incoming_path(member.snapshots().dir(), index);
    let body = File::open(&path)
        .map_err(|error| Failure::Backend(backend::Error::Storage(format!("{}: {error}", path.display()))))?;
    let before = member.cluster();
    let installed = {
        // Nobody takes rows away meanwhile.
        let _quiet = member.compaction().exclude();
        machine.install(BufReader::new(body), snapshot, Target::Beside)?
    };
    // What it was made from is of no use any more, nor is what came before it.
    remove_incoming(member.snapshots().dir(), index);
    roads::start_anew(member, &before, &member.cluster());
    member.raft().set_applied(index.0);
    member.inbox().installed(index);
    for mailbox in member.mailboxes() {
        mailbox.post_skip(installed.revision);
    }
    member.release_reads(index);
    member.drive();
    member.metrics().snapshot_installs.dec();
    tracing::info!(
        "local-member-id" = format!("{:x}", member.id()),
        "incoming-leader-snapshot-index" = index.0,
        "current-rev" = installed.revision,
        took = ?began.elapsed(),
        "applied snapshot"
    );
    Ok(())
}

/// What a run of entries has to tell, sorted by who waits for it.
struct Outgoing {
    member: u64,
    answers: Vec<Vec<(RequestId, Answer)>>,
    events: Vec<mvcc::Event>,
    configurations: Vec<raft::ConfChangeV2>,
    /// Answers to writes that went over the quota: they wait until the alarm is in force, so that
    /// a client that was told of it finds it (etcd does the same).
    over_quota: Vec<(RequestId, Answer)>,
    /// Whether authentication was on when users or roles were changed last.
    auth_was_on: bool,
}

impl Outgoing {
    fn new(member: &Member) -> Self {
        Self {
            member: member.id(),
            answers: (0..member.shards()).map(|_| Vec::new()).collect(),
            events: Vec::new(),
            configurations: Vec::new(),
            over_quota: Vec::new(),
            auth_was_on: member.auth().is_enabled(),
        }
    }
}

impl Outgoing {
    fn answer(&mut self, id: RequestId, answer: Answer) {
        // Nobody here waits for what other members have asked for, or this one by itself.
        if id.0 == 0 || !id.may_be_of(self.member) {
            return;
        }
        if let Some(answers) = self.answers.get_mut(id.shard()) {
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
    let _ = member.inbox().ask(&mut vec![own_proposal(&alarm, None, Caller::default())], None);
    member.drive();
}

fn apply_run(
    member: &Arc<Member>,
    machine: &mut Machine,
    run: &[Entry],
    outgoing: &mut Outgoing,
) -> Result<(), Failure> {
    member.backend().wait_for_room().map_err(Failure::Backend)?;
    // What one entry takes is the time since the one before it: the clock is read once for each.
    let mut clock = Instant::now();
    let now = member.now();
    let Some(last) = run.last().map(|entry| entry.index) else { return Ok(()) };
    let mut compacts = false;
    for entry in run {
        let before = entry.is_conf_change().then(|| member.cluster());
        let applied = machine.apply(entry, now)?;
        let began = std::mem::replace(&mut clock, Instant::now());
        let applying = Applying { began, took: clock - began };
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            told(member, entry, &applied, applying.took);
        }
        if auth_log::concerns(applied.op) && applied.outcome.is_ok() {
            auth_log::changed(member, applied.op, &entry.data, outgoing.auth_was_on);
            outgoing.auth_was_on = member.auth().is_enabled();
        }
        if let Some(before) = before {
            roads::follow(member, &before, &member.cluster());
        }
        tally::applied(member.metrics(), &applied);
        if entry.kind == EntryKind::Normal && entry.data.is_empty() {
            // What a leader appends first (R2).
            leases::term_begun(member, entry.term);
        }
        compacts |= matches!(&applied.outcome, Ok(reply) if matches!(reply.body, Body::Compaction(_)));
        if let Some(committed) = applied.events {
            outgoing.events.extend(committed.1);
        }
        outgoing.configurations.extend(applied.conf_change.map(raft::ConfChangeV2::from));
        let (id, answer) = (RequestId(applied.id), Answer::Applied(applied.outcome, Some(applying)));
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
    if compacts {
        // On every member, and at once: the leader will ask what was there before.
        member.wake_compactor();
    }
    member.raft().set_applied(last.0);
    member.release_reads(last);
    let reconfigured = !outgoing.configurations.is_empty();
    member.inbox().applied(last, &mut outgoing.configurations);
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
    Ok(())
}

/// Counts and times a request that was applied, and warns of one that took long.
fn told(member: &Member, entry: &Entry, applied: &Applied, took: Duration) {
    let success = match &applied.outcome {
        Ok(_) | Err(Rejection::Compacted) => true,
        Err(_) => false,
    };
    member.metrics().applied(applied.op, success, took);
    if took > member.config().warning_apply {
        slow::applied(member, &entry.data, &applied.outcome, took);
    }
}
