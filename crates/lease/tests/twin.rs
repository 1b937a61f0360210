//! The lessor against a twin that keeps no queues: every question walks all leases.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lease::{Config, Error, LeaseId, Lessor, Renewal, Stored};

const INTERVAL: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_secs(3);
const CONFIG: Config =
    Config { min_ttl: 2, checkpoint_interval: Some(INTERVAL), revoke_retry: RETRY, revoke_rate: usize::MAX };

#[derive(Clone, Default)]
struct TwinLease {
    ttl: i64,
    left: i64,
    keys: BTreeSet<Vec<u8>>,
    deadline: Duration,
    /// Not offered before this.
    offer: Duration,
    checkpoint: Option<Duration>,
    /// Checkpoints and clearings on their way through the log.
    sent: u32,
    clearing: u32,
}

impl TwinLease {
    fn span(&self) -> Duration {
        Duration::from_secs(if self.left > 0 { self.left } else { self.ttl } as u64)
    }

    fn line_up(&mut self, now: Duration) {
        if self.checkpoint.is_none() && self.span() > INTERVAL {
            self.checkpoint = Some(now + INTERVAL);
        }
    }
}

#[derive(Default)]
struct Twin {
    leases: BTreeMap<LeaseId, TwinLease>,
    primary: bool,
}

impl Twin {
    fn grant(&mut self, id: LeaseId, ttl: i64, now: Duration) -> bool {
        if id.0 == 0 || self.leases.contains_key(&id) {
            return false;
        }
        let mut lease = TwinLease { ttl: ttl.max(2), ..TwinLease::default() };
        lease.deadline = now + lease.span();
        lease.offer = lease.deadline;
        if self.primary {
            lease.line_up(now);
        }
        self.leases.insert(id, lease);
        true
    }

    fn promote(&mut self, extend: Duration, now: Duration) {
        self.primary = true;
        for lease in self.leases.values_mut() {
            lease.deadline = now + extend + lease.span();
            lease.offer = lease.deadline;
            lease.checkpoint = None;
            (lease.sent, lease.clearing) = (0, 0);
            lease.line_up(now);
        }
    }

    fn renew(&mut self, id: LeaseId, now: Duration) -> Result<Renewal, Error> {
        if !self.primary {
            return Err(Error::NotPrimary);
        }
        let lease = self.leases.get_mut(&id).ok_or(Error::NotFound)?;
        if lease.deadline <= now {
            return Err(Error::Expired);
        }
        if lease.left > 0 || lease.sent > 0 {
            lease.clearing += 1;
            return Ok(Renewal::ClearCheckpoint);
        }
        lease.deadline = lease.deadline.max(now + lease.span());
        lease.offer = lease.deadline;
        lease.line_up(now);
        Ok(Renewal::Renewed(lease.ttl))
    }

    fn expired(&mut self, now: Duration) -> BTreeSet<LeaseId> {
        let due = |lease: &TwinLease| lease.deadline <= now && lease.offer <= now;
        self.leases.iter().filter(|(_, lease)| self.primary && due(lease)).map(|(&id, _)| id).collect()
    }

    fn checkpoints_due(&mut self, now: Duration) -> BTreeMap<LeaseId, i64> {
        let mut due = BTreeMap::new();
        for (&id, lease) in self.leases.iter_mut().filter(|_| self.primary) {
            if lease.checkpoint.take_if(|at| *at <= now).is_none() {
                continue;
            }
            let left = lease.deadline.saturating_sub(now);
            let seconds = left.as_nanos().div_ceil(1_000_000_000) as i64;
            if seconds > 0 && seconds < lease.ttl && lease.clearing == 0 {
                lease.sent += 1;
                due.insert(id, seconds);
            }
            if left > INTERVAL {
                lease.checkpoint = Some(now + INTERVAL);
            }
        }
        due
    }
}

/// A small generator (xorshift64*), so that a seed names a run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

fn run(seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut real, mut twin, mut now) = (Lessor::new(CONFIG), Twin::default(), Duration::ZERO);
    let mut attached: BTreeMap<Vec<u8>, LeaseId> = BTreeMap::new();
    for step in 0..400 {
        let context = format!("seed {seed}, step {step}");
        let id = LeaseId(rng.below(12) as i64);
        match rng.below(16) {
            0 | 1 => {
                let ttl = rng.below(90) as i64;
                assert_eq!(real.grant(id, ttl, now).is_ok(), twin.grant(id, ttl, now), "{context}");
            }
            2 => {
                let keys = real.revoke(id).map(lease::Keys::into_sorted).ok();
                let expected = twin.leases.remove(&id).map(|lease| lease.keys);
                let expected =
                    expected.map(|keys| keys.into_iter().map(Vec::into_boxed_slice).collect::<Vec<_>>());
                assert_eq!(keys, expected, "{context}");
                attached.retain(|_, lease| *lease != id);
            }
            3..=6 => {
                let renewed = match real.epoch() {
                    Some(epoch) => real.renew(epoch, id, now),
                    None => Err(Error::NotPrimary),
                };
                assert_eq!(renewed, twin.renew(id, now), "{context}");
            }
            7 | 8 => {
                let key = vec![b'a' + rng.below(6) as u8];
                let from = attached.get(&key).copied().unwrap_or_default();
                let exists = id == LeaseId::NONE || twin.leases.contains_key(&id);
                assert_eq!(real.move_key(&key, from, id).is_ok(), exists || from == id, "{context}");
                if exists {
                    twin.leases.values_mut().for_each(|lease| _ = lease.keys.remove(&key));
                    twin.leases.entry(id).and_modify(|lease| _ = lease.keys.insert(key.clone()));
                    attached.insert(key, id);
                }
            }
            9 | 10 => {
                let limit = 1 + rng.below(4) as usize;
                let (offered, expected) = (real.expired(now, limit), twin.expired(now));
                assert_eq!(offered.len(), limit.min(expected.len()), "{context}");
                for id in offered {
                    assert!(expected.contains(&id), "{context}: {id}");
                    let lease = twin.leases.get_mut(&id).unwrap();
                    assert!(lease.offer <= now, "{context}: {id} twice");
                    lease.offer = now + RETRY;
                }
            }
            11 => {
                let due = real.checkpoints_due(now, usize::MAX);
                let expected = twin.checkpoints_due(now);
                assert_eq!(due.into_iter().collect::<BTreeMap<_, _>>(), expected, "{context}");
                for (id, left) in expected {
                    // Some get lost on their way through the log.
                    if rng.below(3) > 0 {
                        checkpoint(&mut real, &mut twin, id, left, now);
                    }
                }
            }
            12 => checkpoint(&mut real, &mut twin, id, 0, now),
            13 if rng.below(4) == 0 => {
                let extend = Duration::from_millis(rng.below(2_000));
                real.promote(extend, now);
                twin.promote(extend, now);
            }
            13 if rng.below(4) == 0 => {
                real.demote();
                twin.primary = false;
            }
            _ => now += Duration::from_millis(rng.below(4_000)),
        }
        compare(&real, &twin, now, &context);
    }
}

fn checkpoint(real: &mut Lessor, twin: &mut Twin, id: LeaseId, left: i64, now: Duration) {
    let stored = real.checkpoint(id, left, now);
    let Some(lease) = twin.leases.get_mut(&id) else { return assert_eq!(stored, None) };
    lease.left = left;
    if left > 0 {
        lease.sent = lease.sent.saturating_sub(1);
    } else {
        (lease.sent, lease.clearing) = (0, lease.clearing.saturating_sub(1));
    }
    if twin.primary {
        lease.line_up(now);
    }
    assert_eq!(stored, Some(Stored { id, ttl: lease.ttl, remaining_ttl: left }));
}

fn compare(real: &Lessor, twin: &Twin, now: Duration, context: &str) {
    let stored: Vec<_> =
        twin.leases.iter().map(|(&id, l)| Stored { id, ttl: l.ttl, remaining_ttl: l.left }).collect();
    assert_eq!(real.stored(), stored, "{context}");
    assert_eq!(real.is_primary(), twin.primary, "{context}");
    for (&id, lease) in &twin.leases {
        let keys: Vec<&[u8]> = lease.keys.iter().map(Vec::as_slice).collect();
        assert_eq!(real.keys(id), Some(keys), "{context}");
        let left = lease.deadline.saturating_sub(now).as_secs() as i64;
        let expected = if twin.primary { Ok(left) } else { Err(Error::NotPrimary) };
        assert_eq!(real.time_to_live(id, now).map(|ttl| ttl.remaining), expected, "{context}");
    }
    if let Some(next) = real.next_event() {
        let soonest =
            twin.leases.values().flat_map(|l| [Some(l.offer.max(l.deadline)), l.checkpoint]).flatten().min();
        assert!(soonest.is_none_or(|soonest| next <= soonest), "{context}: {next:?} is after {soonest:?}");
    }
}

#[test]
fn the_lessor_agrees_with_its_twin() {
    for seed in 0..2_000 {
        run(seed);
    }
}
