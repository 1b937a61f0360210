//! What clients ask of a member, and what becomes of it there.

use api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest,
    LeaseRevokeRequest, PutRequest, TxnRequest,
};
use api::mvccpb::KeyValue;
use api::raft_request::{self, Command};
use apply::{Outcome, Reply};
use lease::{Epoch, LeaseId, Renewal};
use mvcc::{KeyRange, RangeQuery};
use node::Proposal;
use prost::Message as _;
use raft::{EntryKind, Index, NodeId, ReadId};

use super::checks::ensure;
use super::member::{Context, Done, Local, Member};
use super::plan::MILLISECOND;

/// Which request of which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) client: usize,
    pub(crate) step: u64,
}

/// A question or a wish.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    Range(KeyRange),
    Serializable(KeyRange),
    Renew(i64),
    /// Who may be a member: kind, id, what goes with it.
    Change(api::raftpb::ConfChange),
    /// A learner gets its vote, if it keeps up; asked of the leader.
    Promote(u64),
    Transfer(u64),
}

/// What a client is told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Done(Reply),
    /// Every member refuses it alike; why is of no interest here.
    Rejected,
    Read {
        revision: i64,
        found: Vec<KeyValue>,
    },
    Renewed(i64),
    LeaseGone,
    /// Somebody else leads: ask there.
    NotLeader(u64),
    /// It had no effect and never will.
    Refused,
}

/// Who waits for a proposal.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) token: Token,
    pub(crate) proposal: Proposal,
    /// A renewal that first has a checkpoint forgotten.
    renews: Option<i64>,
}

/// Who waits for a round of reads.
#[derive(Debug)]
pub(crate) enum AfterRead {
    Range(Token, KeyRange),
    Renew(Token, i64, Epoch),
    Promote(Token, u64),
}

impl Member {
    pub(crate) fn ask(&mut self, token: Token, ask: Ask, cx: &mut Context<'_>) -> Done {
        match ask {
            Ask::Put(request) => self.propose(token, None, &request),
            Ask::Delete(request) => self.propose(token, None, &request),
            Ask::Txn(request) => self.propose(token, None, &request),
            Ask::Compact(request) => self.propose(token, None, &request),
            Ask::Grant(request) => self.propose(token, None, &request),
            Ask::Revoke(request) => self.propose(token, None, &request),
            Ask::Range(range) => self.join(AfterRead::Range(token, range), cx),
            Ask::Serializable(range) => return self.read_locally(token, range, cx),
            Ask::Renew(id) => self.renew(token, id, cx),
            Ask::Change(change) => self.propose_change(token, change),
            Ask::Promote(id) => match self.leading {
                true => self.join(AfterRead::Promote(token, id), cx),
                false => self.answer(token, Told::NotLeader(self.leader), cx),
            },
            Ask::Transfer(to) => {
                self.letters.transfer(NodeId(to));
                self.answer(token, Told::Refused, cx);
            }
        }
        self.drive(cx)
    }

    fn propose(&mut self, token: Token, renews: Option<i64>, command: &impl Command) {
        let id = self.next_request;
        self.next_request += 1;
        let data = raft_request::encode(id, command).into();
        let proposal = Proposal { id, kind: EntryKind::Normal, data, only_in: None };
        self.outbox.push(proposal.clone());
        self.waiters.insert(id, Waiter { token, proposal, renews });
    }

    fn propose_change(&mut self, token: Token, change: api::raftpb::ConfChange) {
        let id = self.next_request;
        self.next_request += 1;
        let data = api::raftpb::ConfChange { id: Some(id), ..change }.encode_to_vec().into();
        let proposal = Proposal { id, kind: EntryKind::ConfChange, data, only_in: None };
        self.outbox.push(proposal.clone());
        self.waiters.insert(id, Waiter { token, proposal, renews: None });
    }

    /// A proposal of this member's clients has been applied here.
    pub(crate) fn applied_for(&mut self, waiter: Waiter, outcome: Outcome, cx: &mut Context<'_>) -> Done {
        if let Some(id) = waiter.renews {
            // A refusal is that of a lease which is gone, and is found out by looking again.
            self.renew(waiter.token, id, cx);
            return self.drive(cx);
        }
        let told = match outcome {
            Ok(reply) => Told::Done(reply),
            Err(_) => Told::Rejected,
        };
        self.answer(waiter.token, told, cx);
        Ok(())
    }

    /// Waits for the next round of reads.
    fn join(&mut self, reader: AfterRead, cx: &Context<'_>) {
        let now = self.now(cx);
        self.reads.join(reader, now);
    }

    /// A quorum has confirmed a read round: it may go on once `index` is applied.
    pub(crate) fn confirm_read(&mut self, id: ReadId, index: Index, cx: &mut Context<'_>) -> Done {
        if self.machine.applied().0 >= index {
            return self.read_all(id, cx);
        }
        self.waiting_reads.push((index, id));
        Ok(())
    }

    /// Lets the rounds go that waited for `applied`.
    pub(crate) fn release_reads(&mut self, applied: Index, cx: &mut Context<'_>) -> Done {
        let ready: Vec<ReadId> =
            self.waiting_reads.extract_if(.., |(index, _)| *index <= applied).map(|(_, id)| id).collect();
        ready.into_iter().try_for_each(|id| self.read_all(id, cx))
    }

    fn read_all(&mut self, id: ReadId, cx: &mut Context<'_>) -> Done {
        for reader in self.reads.finish(id, true) {
            match reader {
                AfterRead::Range(token, range) => {
                    let told = self.range(range)?;
                    self.answer(token, told, cx);
                }
                AfterRead::Renew(token, id, epoch) => self.renew_now(token, id, epoch, cx),
                AfterRead::Promote(token, id) => self.promote(token, id, cx),
            }
        }
        Ok(())
    }

    fn range(&self, range: KeyRange) -> Result<Told, super::member::Halt> {
        let result = self.shared.store.range(&RangeQuery::new(range))?;
        let found = result.records.iter().map(mvcc::Record::decode).collect();
        Ok(Told::Read { revision: result.revision, found })
    }

    /// What one member tells by itself may lag behind, but never goes back (P5).
    fn read_locally(&mut self, token: Token, range: KeyRange, cx: &mut Context<'_>) -> Done {
        let told = self.range(range)?;
        if let Told::Read { revision, .. } = &told {
            ensure!(*revision >= self.read_revision, "member {} went back to revision {revision}", self.id);
            self.read_revision = *revision;
        }
        self.answer(token, told, cx);
        Ok(())
    }

    /// Gives a lease its full time again, after a round of its own moment (L1, L2).
    pub(crate) fn renew(&mut self, token: Token, id: i64, cx: &mut Context<'_>) {
        let epoch = self.shared.lessor.lock().epoch();
        match epoch {
            // L2, planted: renew-without-round.
            Some(epoch) if planted::is("renew-without-round") => self.renew_now(token, id, epoch, cx),
            Some(epoch) => self.join(AfterRead::Renew(token, id, epoch), cx),
            None => self.answer(token, Told::NotLeader(self.leader), cx),
        }
    }

    fn renew_now(&mut self, token: Token, id: i64, epoch: Epoch, cx: &mut Context<'_>) {
        let now = self.now(cx);
        let renewal = self.shared.lessor.lock().renew(epoch, LeaseId(id), now);
        match renewal {
            Ok(Renewal::Renewed(ttl)) => self.answer(token, Told::Renewed(ttl), cx),
            Ok(Renewal::ClearCheckpoint) => {
                let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl: 0 }];
                self.propose(token, Some(id), &LeaseCheckpointRequest { checkpoints });
            }
            Err(lease::Error::Expired) => {
                self.after(cx, 50 * MILLISECOND, Local::RenewAgain(token, id));
            }
            Err(lease::Error::NotPrimary) => self.answer(token, Told::NotLeader(self.leader), cx),
            Err(_) => self.answer(token, Told::LeaseGone, cx),
        }
    }

    /// Gives a learner its vote if it has nearly all of this leader's log (E2).
    fn promote(&mut self, token: Token, id: u64, cx: &mut Context<'_>) {
        let status = self.pump.status();
        let keeps_up = status.peers.iter().any(|peer| {
            peer.id.0 == id && peer.learner && peer.active && peer.matched.0 * 10 >= status.stable.0 * 9
        });
        if !keeps_up {
            return self.answer(token, Told::Refused, cx);
        }
        let member = apply::Member { id, ..apply::Member::default() };
        let context = apply::ChangeContext { member, is_promote: true };
        let change = api::raftpb::ConfChange {
            id: None,
            r#type: Some(api::raftpb::ConfChangeType::ConfChangeAddNode.into()),
            node_id: Some(id),
            context: Some(apply::to_json(&context)),
        };
        self.propose_change(token, change);
    }
}
