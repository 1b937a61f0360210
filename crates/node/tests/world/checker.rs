//! What must stay true, watched from outside.

use super::server::Server;
use node::*;
use std::collections::BTreeMap;

/// The digest after one more entry.
pub fn digest(before: u64, entry: &Entry) -> u64 {
    let mut hash = before ^ entry.index.0.rotate_left(17) ^ entry.term.0.rotate_left(40);
    for byte in entry.data.iter().chain(&[entry.kind as u8]) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

pub struct Checker {
    /// Whoever led a term.
    leaders: BTreeMap<Term, NodeId>,
    /// Term and bytes of everything that was ever handed out to be applied.
    pub committed: BTreeMap<Index, Entry>,
    /// The term, or a later one, in which each was committed.
    committed_in: BTreeMap<Index, Term>,
    /// The machine's digest after each index.
    digests: BTreeMap<Index, u64>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Open questions, with what was committed when they were asked.
    reads: BTreeMap<(NodeId, ReadId), Index>,
    pub reads_answered: u64,
    voters: u64,
    fixed: bool,
}

impl Checker {
    pub fn new(voters: u64, fixed: bool) -> Checker {
        Checker {
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            committed_in: BTreeMap::new(),
            digests: BTreeMap::new(),
            votes: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_answered: 0,
            voters,
            fixed,
        }
    }

    /// Election safety and leader completeness.
    pub fn soft_state(&mut self, server: &Server, leader: Option<NodeId>, role: RoleKind, term: Term) {
        let id = server.id;
        if let Some(leader) = leader {
            let known = *self.leaders.entry(term).or_insert(leader);
            assert_eq!(known, leader, "member {id} sees another leader of term {term}");
        }
        if role != RoleKind::Leader {
            return;
        }
        let HardState { term: voted_in, vote, .. } = server.disk.hard_state;
        assert_eq!((voted_in, vote), (term, Some(id)), "elected by a vote that can be forgotten");
        let log = server.believed();
        for (index, entry) in self.committed.range(log.snapshot.index.next()..) {
            // One elected late may lack what a later leader has committed since.
            if self.committed_in[index] > term {
                continue;
            }
            let own = log.entries.iter().find(|own| own.index == *index);
            assert_eq!(own, Some(entry), "leader {id} of term {term} lacks committed entry {index}");
        }
    }

    /// State machine safety; and nothing is applied that this member could still forget.
    pub fn handed(&mut self, server: &Server, entries: &[Entry]) {
        let term = server.node.as_ref().map_or(Term(0), |node| node.hard_state().term);
        for entry in entries {
            let since = self.committed_in.entry(entry.index).or_insert(term);
            *since = term.min(*since);
            let known = self.committed.entry(entry.index).or_insert_with(|| entry.clone());
            assert_eq!(known, entry, "member {} applies something else", server.id);
            assert!(entry.index <= server.disk.last(), "{} applied before durable", entry.index);
        }
    }

    /// Committed means durable on a quorum, as long as it is clear which quorum.
    pub fn durable_on_quorum(&self, servers: &BTreeMap<NodeId, Server>, entry: &Entry) {
        let holds = |server: &&Server| {
            server.disk.snapshot.index >= entry.index || server.disk.entries.iter().any(|e| e == entry)
        };
        if self.fixed && entry.index.0 > self.voters {
            let holders = servers.values().filter(holds).count() as u64;
            assert!(holders * 2 > self.voters, "entry {} is durable on {holders} only", entry.index);
        }
    }

    /// Promises rest on what is durable.
    pub fn sent(&mut self, server: &Server, message: &Message) {
        let disk = &server.disk;
        match &message.body {
            Body::VoteResponse(Answer { reject: false, .. }) => {
                let HardState { term, vote, .. } = disk.hard_state;
                assert_eq!((term, vote), (message.term, Some(message.to)), "a vote that can be forgotten");
                let known = *self.votes.entry((server.id, message.term)).or_insert(message.to);
                assert_eq!(known, message.to, "member {} votes twice in {}", server.id, message.term);
            }
            Body::Vote(show) => {
                assert_eq!(disk.hard_state.vote, Some(server.id));
                assert_eq!(disk.last(), show.last_index, "a candidate shows what it can lose");
            }
            Body::AppendResponse { index, reject: None } => {
                assert!(*index <= disk.last(), "{} acknowledges {index} too early", server.id);
                assert!(message.term <= disk.hard_state.term, "a term that can be forgotten");
            }
            _ => {}
        }
    }

    pub fn asked(&mut self, id: NodeId, read: ReadId) {
        let committed = self.committed.last_key_value().map_or(Index(0), |(index, _)| *index);
        self.reads.insert((id, read), committed);
    }

    /// Linearizable: a read sees at least all that anybody may have been told of before it began.
    pub fn read_ready(&mut self, id: NodeId, read: ReadId, index: Index) {
        let needed = self.reads.remove(&(id, read)).expect("answered once, and only if asked");
        assert!(index >= needed, "read {read} at {index} misses {needed}");
        self.reads_answered += 1;
    }

    pub fn read_dropped(&mut self, id: NodeId, read: ReadId) {
        self.reads.remove(&(id, read)).expect("answered once, and only if asked");
    }

    pub fn crashed(&mut self, id: NodeId) {
        self.reads.retain(|(asker, _), _| *asker != id);
    }

    pub fn open_reads(&self) -> usize {
        self.reads.len()
    }

    /// Machines that have applied the same are the same, however they got there.
    pub fn machines(&mut self, servers: &mut BTreeMap<NodeId, Server>) {
        for server in servers.values_mut() {
            for (index, _, digest) in server.applied_log.drain(..) {
                let known = *self.digests.entry(index).or_insert(digest);
                assert_eq!(known, digest, "member {} differs at {index}", server.id);
            }
        }
    }

    /// Log matching: two logs with the same term at some index are the same up to there.
    pub fn logs(&self, servers: &BTreeMap<NodeId, Server>) {
        let logs: Vec<_> = servers.values().map(Server::believed).collect();
        for (at, a) in logs.iter().enumerate() {
            for b in &logs[at + 1..] {
                let begin = a.snapshot.index.max(b.snapshot.index);
                let after = |entry: &&Entry| entry.index > begin;
                let pairs: Vec<_> =
                    std::iter::zip(a.entries.iter().filter(after), b.entries.iter().filter(after)).collect();
                let same = pairs.iter().rposition(|(a, b)| a.term == b.term).map_or(0, |at| at + 1);
                for (a, b) in &pairs[..same] {
                    assert_eq!(a, b, "logs agree at a later entry but not here");
                }
            }
        }
    }
}
