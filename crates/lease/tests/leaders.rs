//! Three members under one log, and leaders that change: no lease ends before its time by what its
//! client was told, and none lives longer than the log and one allowance per leader permit.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lease::{Config, Epoch, Error, LeaseId, Lessor, Renewal};

const EXTEND: Duration = Duration::from_secs(1);
const CONFIG: Config = Config {
    min_ttl: 2,
    checkpoint_interval: Some(Duration::from_secs(20)),
    revoke_retry: Duration::from_secs(3),
    revoke_rate: usize::MAX,
};

#[derive(Clone, Copy, Debug)]
enum Entry {
    Grant(LeaseId, i64),
    Revoke(LeaseId),
    Checkpoint(LeaseId, i64),
}

struct Member {
    lessor: Lessor,
    applied: usize,
}

impl Member {
    fn apply(&mut self, log: &[Entry], upto: usize, now: Duration) {
        while self.applied < upto {
            match log[self.applied] {
                Entry::Grant(id, ttl) => _ = self.lessor.grant(id, ttl, now),
                Entry::Revoke(id) => _ = self.lessor.revoke(id),
                Entry::Checkpoint(id, left) => _ = self.lessor.checkpoint(id, left, now),
            }
            self.applied += 1;
        }
    }
}

/// What a lease's client may rely on, and what everybody else may.
struct Promise {
    /// It was told that the lease lives until then at least.
    until: Duration,
    /// Since the last renewal: the seconds that a leader which starts afresh may give it.
    left: i64,
    ttl: i64,
}

struct Run {
    members: Vec<Member>,
    log: Vec<Entry>,
    /// What the leader has proposed and the log does not hold yet, in its order. Lost with the leader.
    proposed: VecDeque<Entry>,
    leader: Option<usize>,
    now: Duration,
    promises: BTreeMap<LeaseId, Promise>,
    /// A look at a reign, taken at some time; it may be over by now.
    looked: Option<(usize, Epoch)>,
    changes: usize,
    ended: usize,
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

impl Run {
    fn new() -> Run {
        let member = || Member { lessor: Lessor::new(CONFIG), applied: 0 };
        Run {
            members: (0..3).map(|_| member()).collect(),
            log: Vec::new(),
            proposed: VecDeque::new(),
            leader: None,
            now: Duration::from_secs(1),
            promises: BTreeMap::new(),
            looked: None,
            changes: 0,
            ended: 0,
        }
    }

    fn lead(&mut self) -> Option<&mut Lessor> {
        let leader = self.leader?;
        let upto = self.log.len();
        self.members[leader].apply(&self.log, upto, self.now);
        Some(&mut self.members[leader].lessor)
    }

    /// So many proposals are agreed on.
    fn agree(&mut self, count: usize) {
        for _ in 0..count {
            let Some(entry) = self.proposed.pop_front() else { break };
            self.log.push(entry);
            match entry {
                Entry::Revoke(id) => self.ended += usize::from(self.promises.remove(&id).is_some()),
                Entry::Checkpoint(id, left) => {
                    if let Some(promise) = self.promises.get_mut(&id) {
                        promise.left = if left > 0 { left } else { promise.ttl };
                    }
                }
                Entry::Grant(..) => {}
            }
        }
        self.lead();
    }

    /// The old leader may go on believing; nothing that it proposes enters the log any more.
    fn elect(&mut self, at: usize, old_knows: bool) {
        self.proposed.clear();
        if let Some(old) = self.leader.replace(at).filter(|_| old_knows) {
            self.members[old].lessor.demote();
        }
        let now = self.now;
        self.lead().unwrap().promote(EXTEND, now);
        self.changes += 1;
        for (&id, promise) in &self.promises {
            let told = self.members[at].lessor.time_to_live(id, now).unwrap();
            let most = promise.left + EXTEND.as_secs() as i64;
            assert!(told.remaining <= most, "{id}: {told:?}, but the log says {} at most", promise.left);
        }
    }

    fn grant(&mut self, id: LeaseId, ttl: i64) {
        let now = self.now;
        // A second revocation on its way would end a new lease of the same name, as in etcd: names are
        // not to be used again at once.
        let ending = self.proposed.iter().any(|entry| matches!(entry, Entry::Revoke(of) if *of == id));
        if self.leader.is_none() || id == LeaseId::NONE || self.promises.contains_key(&id) || ending {
            return;
        }
        self.proposed.push_back(Entry::Grant(id, ttl));
        self.agree(usize::MAX);
        let granted = self.lead().unwrap().granted_ttl(id).unwrap();
        let until = now + Duration::from_secs(granted as u64);
        self.promises.insert(id, Promise { until, left: granted, ttl: granted });
    }

    fn renew(&mut self, id: LeaseId) {
        let now = self.now;
        let Some(lessor) = self.lead() else { return };
        // Between this look and the renewal, leadership is proved.
        let epoch = lessor.epoch().unwrap();
        let renewed = match lessor.renew(epoch, id, now) {
            Ok(Renewal::ClearCheckpoint) => {
                self.proposed.push_back(Entry::Checkpoint(id, 0));
                self.agree(usize::MAX);
                self.lead().unwrap().renew(epoch, id, now)
            }
            renewed => renewed,
        };
        let promise = self.promises.get_mut(&id);
        match renewed {
            Ok(Renewal::Renewed(ttl)) => {
                let promise = promise.unwrap();
                assert_eq!(ttl, promise.ttl);
                promise.until = promise.until.max(now + Duration::from_secs(ttl as u64));
                promise.left = promise.ttl;
            }
            Err(Error::NotFound) => assert!(promise.is_none()),
            Err(Error::Expired) => assert!(promise.unwrap().until <= now),
            other => panic!("{other:?}"),
        }
    }

    fn tick(&mut self, lost: bool) {
        let now = self.now;
        let Some(lessor) = self.lead() else { return };
        let (expired, due) = (lessor.expired(now, 100), lessor.checkpoints_due(now, 100));
        for id in expired {
            let promise = &self.promises[&id];
            assert!(promise.until <= now, "{id} ends at {now:?}, promised was {:?}", promise.until);
            if !lost {
                self.proposed.push_back(Entry::Revoke(id));
            }
        }
        for (id, left) in due {
            // A lease that a checkpoint is of never has less than its client was told.
            assert!(now + Duration::from_secs(left as u64) >= self.promises[&id].until, "{id}");
            if !lost {
                self.proposed.push_back(Entry::Checkpoint(id, left));
            }
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        let at = rng.below(3) as usize;
        let id = LeaseId(rng.below(8) as i64);
        let now = self.now;
        match rng.below(24) {
            0 | 1 => self.elect(at, rng.below(3) > 0),
            2 | 3 => self.grant(id, rng.below(120) as i64),
            4..8 => self.renew(id),
            8..11 => self.tick(rng.below(4) == 0),
            11 => self.agree(rng.below(4) as usize),
            12 => {
                // One that has not heard that it leads no more says what it likes.
                let stale = (self.leader != Some(at)).then(|| &mut self.members[at].lessor);
                if let Some(stale) = stale {
                    let _ = (stale.expired(now, 100), stale.checkpoints_due(now, 100));
                }
            }
            13 => self.looked = self.members[at].lessor.epoch().map(|epoch| (at, epoch)),
            14 => {
                // A proof of leadership that is of another reign by now.
                if let Some((at, epoch)) = self.looked
                    && self.members[at].lessor.epoch() != Some(epoch)
                {
                    assert_eq!(self.members[at].lessor.renew(epoch, id, now), Err(Error::NotPrimary));
                }
            }
            15..18 => {
                let upto = self.members[at].applied + rng.below(4) as usize;
                self.members[at].apply(&self.log, upto.min(self.log.len()), now);
            }
            18 if self.leader != Some(at) => {
                // A restart, from what is stored.
                let stored = self.members[at].lessor.stored();
                self.members[at].lessor = Lessor::restore(CONFIG, stored);
                self.looked = self.looked.filter(|(of, _)| *of != at);
            }
            19 if self.leader.is_some_and(|leader| leader != at) => {
                // A snapshot of the leader's.
                let stored = self.lead().unwrap().stored();
                self.members[at].lessor.replace(Lessor::restore(CONFIG, stored));
                self.members[at].applied = self.log.len();
            }
            _ => self.now += Duration::from_millis(rng.below(5_000)),
        }
    }
}

#[test]
fn leaders_change_and_no_promise_is_broken() {
    let (mut changes, mut ended) = (0, 0);
    for seed in 0..1_000 {
        let mut rng = Rng((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut run = Run::new();
        for _ in 0..600 {
            run.step(&mut rng);
        }
        // Left alone, everything ends, and at the leader that is there.
        run.elect(0, true);
        for _ in 0..200 {
            run.now += Duration::from_secs(1);
            run.tick(false);
            run.agree(usize::MAX);
        }
        assert!(run.promises.is_empty(), "seed {seed}: {} leases never end", run.promises.len());
        (changes, ended) = (changes + run.changes, ended + run.ended);
    }
    assert!(changes > 20_000 && ended > 5_000, "{changes} leader changes, {ended} leases ended");
}
