//! What must stay true, watched from outside.

use std::collections::BTreeMap;

use node::{Answer, Body, Entry, HardState, Index, Message, NodeId, ReadId, RoleKind, Term};

use super::member::Member;
use super::world::ELECTION;

/// The digest after one more entry.
pub(crate) fn digest(before: u64, entry: &Entry) -> u64 {
    let mut hash = before ^ entry.index.0.rotate_left(17) ^ entry.term.0.rotate_left(40);
    for byte in entry.data.iter().chain(&[entry.kind.number()]) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

/// An entry that somebody was told to apply.
struct Committed {
    entry: Entry,
    /// The lowest term in which anybody was told so.
    told_in: Term,
    /// The digest of every machine that has applied it.
    digest: Option<u64>,
}

pub(crate) struct Checker {
    /// Whoever led a term, and when that was first heard of.
    leaders: BTreeMap<Term, (NodeId, u64)>,
    /// By index, from 1 on.
    committed: Vec<Committed>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Open questions, with what was committed when they were asked.
    reads: BTreeMap<(NodeId, ReadId), Index>,
    /// Payloads of proposals that were for one term only.
    bound: BTreeMap<u64, Term>,
    pub(crate) reads_answered: u64,
    pub(crate) elections: u64,
    voters: u64,
    /// Nobody comes or goes, so it is clear what a quorum is.
    fixed: bool,
}

impl Checker {
    pub(crate) fn new(voters: u64, fixed: bool) -> Checker {
        Checker {
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            votes: BTreeMap::new(),
            reads: BTreeMap::new(),
            bound: BTreeMap::new(),
            reads_answered: 0,
            elections: 0,
            voters,
            fixed,
        }
    }

    /// How many entries anybody was told to apply.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// Election safety and leader completeness.
    pub(crate) fn soft_state(
        &mut self,
        member: &Member,
        now: u64,
        leader: Option<NodeId>,
        role: RoleKind,
        term: Term,
    ) {
        let id = member.id;
        if let Some(leader) = leader {
            let (known, _) = *self.leaders.entry(term).or_insert((leader, now));
            assert_eq!(known, leader, "member {id} sees another leader of term {term}");
        }
        if role != RoleKind::Leader {
            return;
        }
        self.elections += 1;
        let HardState { term: voted_in, vote, .. } = member.disk.hard_state;
        assert_eq!((voted_in, vote), (term, Some(id)), "elected by a vote that can be forgotten");
        let may_lead = member.node.as_ref().is_some_and(|node| node.conf_state().is_voter(id));
        assert!(may_lead, "member {id} leads without being a voter");
        let log = member.believed();
        for committed in self.committed.iter().skip(log.snapshot.index.0 as usize) {
            // One elected late may lack what a later leader has committed since.
            if committed.told_in <= term {
                let index = committed.entry.index;
                let own = log.entry(index);
                assert_eq!(own, Some(&committed.entry), "leader {id} of term {term} lacks entry {index}");
            }
        }
    }

    /// State machine safety; and nothing is applied that this member could still forget.
    pub(crate) fn handed(&mut self, members: &[Member], at: usize, entries: &[Entry]) {
        let member = &members[at];
        let term = member.term();
        for entry in entries {
            assert!(entry.index <= member.disk.last(), "{} is applied before it is durable", entry.index);
            match self.committed.get_mut(entry.index.0 as usize - 1) {
                Some(known) => {
                    assert_eq!(&known.entry, entry, "member {} applies something else", member.id);
                    known.told_in = term.min(known.told_in);
                }
                None => {
                    assert_eq!(entry.index.0, self.committed() + 1, "entries are committed in order");
                    self.check_new(members, entry);
                    self.committed.push(Committed { entry: entry.clone(), told_in: term, digest: None });
                }
            }
        }
    }

    /// Committed means durable on a quorum; and a proposal for one term is in no other.
    fn check_new(&self, members: &[Member], entry: &Entry) {
        let holds = |member: &&Member| {
            let disk = &member.disk;
            disk.snapshot.index >= entry.index || disk.entry(entry.index) == Some(entry)
        };
        if self.fixed && entry.index.0 > self.voters {
            let holders = members.iter().filter(holds).count() as u64;
            assert!(holders * 2 > self.voters, "entry {} is durable on {holders} only", entry.index);
        }
        if let Some(payload) = entry.data.first_chunk()
            && let Some(term) = self.bound.get(&u64::from_be_bytes(*payload))
        {
            assert_eq!(entry.term, *term, "entry {} was for term {term} only", entry.index);
        }
    }

    /// Promises rest on what is durable. One sync can make several writes durable, so a promise may leave
    /// when the disk has moved on to a later term: then it cannot be forgotten either.
    pub(crate) fn sent(&mut self, member: &Member, message: &Message) {
        let disk = &member.disk;
        let HardState { term, vote, .. } = disk.hard_state;
        match &message.body {
            Body::VoteResponse(Answer { reject: false, .. }) => {
                assert!(term >= message.term, "a term that can be forgotten");
                assert!(term > message.term || vote == Some(message.to), "a vote that can be forgotten");
                let known = *self.votes.entry((member.id, message.term)).or_insert(message.to);
                assert_eq!(known, message.to, "member {} votes twice in {}", member.id, message.term);
            }
            Body::Vote(_) => {
                assert!(term >= message.term, "a term that can be forgotten");
                let own = term > message.term || vote == Some(member.id);
                assert!(own, "a candidate votes for itself, durably");
            }
            Body::AppendResponse { index, reject: None } => {
                assert!(term >= message.term, "a term that can be forgotten");
                let there = *index <= disk.last() || term > message.term;
                assert!(there, "{} acknowledges {index} too early", member.id);
            }
            _ => {}
        }
    }

    pub(crate) fn bind(&mut self, payload: u64, term: Term) {
        self.bound.insert(payload, term);
    }

    pub(crate) fn asked(&mut self, id: NodeId, read: ReadId) {
        self.reads.insert((id, read), Index(self.committed()));
    }

    /// Linearizable: a read sees at least all that anybody may have been told of before it began.
    pub(crate) fn read_ready(&mut self, id: NodeId, read: ReadId, index: Index) {
        let needed = self.reads.remove(&(id, read)).expect("answered once, and only if asked");
        assert!(index >= needed, "read {read} at {index} misses {needed}");
        self.reads_answered += 1;
    }

    pub(crate) fn read_dropped(&mut self, id: NodeId, read: ReadId) {
        self.reads.remove(&(id, read)).expect("answered once, and only if asked");
    }

    pub(crate) fn crashed(&mut self, id: NodeId) {
        self.reads.retain(|(asker, _), _| *asker != id);
    }

    pub(crate) fn open_reads(&self) -> usize {
        self.reads.len()
    }

    /// Machines that have applied the same are the same, however they got there.
    pub(crate) fn machine(&mut self, member: &mut Member) {
        for (index, digest) in member.applied_log.drain(..) {
            let known = self.committed.get_mut(index.0 as usize - 1).expect("applied, so it was handed out");
            let known = *known.digest.get_or_insert(digest);
            assert_eq!(known, digest, "member {} differs at {index}", member.id);
        }
    }

    /// A leader whose followers have long followed another one knows that it leads no more.
    pub(crate) fn reigns(&self, members: &[Member], now: u64) {
        let Some((newest, _)) = self.leaders.iter().rfind(|(_, (_, since))| since + 5 * ELECTION < now)
        else {
            return;
        };
        for member in members.iter().filter(|member| self.fixed && member.leads()) {
            let awake = member.paused_until <= now && member.runs_since + 5 * ELECTION < now;
            let (id, term) = (member.id, member.term());
            assert!(
                !awake || term >= *newest,
                "{id} still leads term {term}, long after term {newest} began"
            );
        }
    }

    /// Log matching: two logs with the same term at some index are the same up to there.
    pub(crate) fn logs(&self, members: &[Member]) {
        let logs: Vec<_> = members.iter().map(Member::believed).collect();
        for (at, a) in logs.iter().enumerate() {
            for b in &logs[at + 1..] {
                let begin = a.snapshot.index.max(b.snapshot.index);
                let end = a.last().min(b.last());
                let mut same = false;
                for index in (begin.0 + 1..=end.0).rev().map(Index) {
                    let (Some(a), Some(b)) = (a.entry(index), b.entry(index)) else { break };
                    same |= a.term == b.term;
                    assert!(!same || a == b, "logs agree at a later entry but not at {index}");
                }
            }
        }
    }
}
