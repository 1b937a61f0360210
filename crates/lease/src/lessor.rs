//! The one who grants, watches and ends leases.
//!
//! What holds at all times:
//! - only a primary has deadlines, and every deadline is at least the granted (or checkpointed)
//!   time after the last renewal;
//! - a primary has exactly one live slot per lease in its expiry queue, never later than the
//!   deadline;
//! - a key is attached to at most one lease, as long as the caller moves it ([`Lessor::move_key`]).

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use crate::lease::{Error, Lease, LeaseId, Stored, TimeToLive};
use crate::schedule::{Schedule, Slot};

/// The longest time to live that is granted, in seconds: about 285 years, so that a deadline in
/// nanoseconds still fits etcd's clock.
pub const MAX_TTL: i64 = 9_000_000_000;

/// How a [`Lessor`] behaves. The minimum must be the same on all members, as it is part of what a
/// grant does; the rest matters on the primary alone.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Shorter wishes are raised to this, in seconds. A lease must outlive an election, or a
    /// leader change would end it unrenewed: see [`Config::min_ttl_for`].
    pub min_ttl: i64,
    /// How often the remaining time of a long lease is written to the log. `None`: never.
    pub checkpoint_interval: Option<Duration>,
    /// After this, an expired lease that is still here is offered for revocation again.
    pub revoke_retry: Duration,
    /// Revocations a second that the cluster is trusted to carry. A new primary spreads the
    /// deadlines of its leases so that three quarters of it suffice.
    pub revoke_rate: usize,
}

impl Config {
    /// etcd's rule for the minimum: one and a half elections, rounded up to seconds.
    pub fn min_ttl_for(election_ticks: u64, tick: Duration) -> i64 {
        let span = tick.saturating_mul(u32::try_from(3 * election_ticks / 2).unwrap_or(u32::MAX));
        i64::try_from(ceil_seconds(span)).unwrap_or(i64::MAX)
    }
}

impl Default for Config {
    /// etcd's numbers for its default election of ten ticks of 100 ms. The revoke rate is ours:
    /// revocations share log writes here, so ten times etcd's does no harm.
    fn default() -> Self {
        Config {
            min_ttl: Self::min_ttl_for(10, Duration::from_millis(100)),
            checkpoint_interval: Some(Duration::from_secs(300)),
            revoke_retry: Duration::from_secs(3),
            revoke_rate: 10_000,
        }
    }
}

/// What a renewal comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Done; the lease has its full time to live again, in seconds.
    Renewed(i64),
    /// Nothing is done yet: the log holds a checkpoint of this lease. Propose one with zero
    /// seconds, wait until it is applied, then renew again. Answering earlier would promise a
    /// time that the next primary does not know of.
    ClearCheckpoint,
}

/// One reign of a primary, by number: whoever learnt it before proving leadership and shows it with
/// the renewal can be sure that the proof was of the reign that renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

/// The keys that have to go with a lease.
#[derive(Debug)]
pub struct Keys(BTreeSet<Box<[u8]>>);

impl Keys {
    /// The keys in byte order: the order of their deletion, the same on every member.
    pub fn into_sorted(self) -> Vec<Box<[u8]>> {
        self.0.into_iter().collect()
    }
}

/// What only a primary has.
#[derive(Debug, Default)]
struct Primary {
    expiries: Schedule,
    checkpoints: Schedule,
}

/// All leases of a cluster, as one member sees them. The crate's essay tells the story.
#[derive(Debug)]
pub struct Lessor {
    config: Config,
    leases: HashMap<LeaseId, Lease>,
    primary: Option<Primary>,
    generations: u64,
    /// Reigns so far; the present one's number, where there is one.
    epochs: u64,
}

impl Lessor {
    /// A lessor without leases that measures no time.
    pub fn new(config: Config) -> Self {
        Lessor { config, leases: HashMap::new(), primary: None, generations: 0, epochs: 0 }
    }

    /// A lessor with the leases of a stored state. The keys follow by [`Lessor::attach`].
    pub fn restore(config: Config, stored: impl IntoIterator<Item = Stored>) -> Self {
        let mut lessor = Self::new(config);
        for Stored { id, ttl, remaining_ttl } in stored {
            lessor.insert(id, ttl, remaining_ttl, Duration::ZERO);
        }
        lessor
    }

    /// Forgets everything for the leases of another state, restored with the same configuration, and
    /// measures no time until it is promoted again. Epochs go on: none comes twice.
    pub fn replace(&mut self, restored: Lessor) -> Lessor {
        let epochs = self.epochs.max(restored.epochs);
        let generations = self.generations.max(restored.generations);
        std::mem::replace(self, Lessor { primary: None, generations, epochs, ..restored })
    }

    // ---- what log entries do, the same on every member --------------------------------------

    /// Grants a lease and says what to persist.
    ///
    /// # Errors
    /// In etcd's order: [`Error::NotFound`] for id zero, [`Error::TtlTooLarge`], [`Error::Exists`].
    pub fn grant(&mut self, id: LeaseId, ttl: i64, now: Duration) -> Result<Stored, Error> {
        if id == LeaseId::NONE {
            return Err(Error::NotFound);
        }
        if ttl > MAX_TTL {
            return Err(Error::TtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Error::Exists);
        }
        self.insert(id, ttl, 0, now);
        if let (Some(primary), Some(lease)) = (&mut self.primary, self.leases.get_mut(&id)) {
            let generation = lease.generation;
            primary.expiries.push(Slot { at: lease.deadline, id, generation });
            queue_checkpoint(&self.config, primary, id, lease, now);
        }
        Ok(Stored { id, ttl: ttl.max(self.config.min_ttl), remaining_ttl: 0 })
    }

    /// Detaches all keys of a lease, to be deleted before it is revoked: who asks meanwhile still
    /// finds the lease, and who does not find it will not find its keys either.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn take_keys(&mut self, id: LeaseId) -> Result<Keys, Error> {
        let lease = self.leases.get_mut(&id).ok_or(Error::NotFound)?;
        Ok(Keys(std::mem::take(&mut lease.keys)))
    }

    /// Ends a lease, whether or not its time is up, and hands back the keys it still had.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn revoke(&mut self, id: LeaseId) -> Result<Keys, Error> {
        let lease = self.leases.remove(&id).ok_or(Error::NotFound)?;
        if let Some(primary) = &mut self.primary {
            let leases = &self.leases;
            let alive = |slot: &Slot| leases.get(&slot.id).is_some_and(|l| l.generation == slot.generation);
            primary.expiries.sweep(leases.len(), alive);
            primary.checkpoints.sweep(leases.len(), alive);
        }
        Ok(Keys(lease.keys))
    }

    /// Notes how much of a lease was left when the primary looked (zero: forget that, it was
    /// renewed) and says what to persist. A lease that is gone meanwhile is no error.
    ///
    /// The deadline does not move: the primary knows it better.
    pub fn checkpoint(&mut self, id: LeaseId, remaining_ttl: i64, now: Duration) -> Option<Stored> {
        let lease = self.leases.get_mut(&id)?;
        lease.checkpoint = remaining_ttl;
        if remaining_ttl > 0 {
            lease.checkpoints_sent = lease.checkpoints_sent.saturating_sub(1);
        } else {
            // Whoever wished for this did so after every checkpoint that was handed out.
            lease.checkpoints_sent = 0;
            lease.clearings_sent = lease.clearings_sent.saturating_sub(1);
        }
        let stored = Stored { id, ttl: lease.ttl, remaining_ttl };
        if let Some(primary) = &mut self.primary {
            queue_checkpoint(&self.config, primary, id, lease, now);
        }
        Some(stored)
    }

    /// Attaches a key, which the caller knows to have no other lease.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn attach(&mut self, id: LeaseId, key: &[u8]) -> Result<(), Error> {
        let lease = self.leases.get_mut(&id).ok_or(Error::NotFound)?;
        if !lease.keys.contains(key) {
            lease.keys.insert(key.into());
        }
        Ok(())
    }

    /// Detaches a key. Not being attached, or there being no such lease, is no error.
    pub fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// What a put does to a key's lease: from the one its previous version had to the new one,
    /// either of which may be none.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the new lease does not exist; then nothing has changed.
    pub fn move_key(&mut self, key: &[u8], from: LeaseId, to: LeaseId) -> Result<(), Error> {
        if from == to {
            return Ok(());
        }
        if to != LeaseId::NONE {
            self.attach(to, key)?;
        }
        if from != LeaseId::NONE {
            self.detach(from, key);
        }
        Ok(())
    }

    // ---- what the primary does --------------------------------------------------------------

    /// Starts measuring time. Every lease gets what is left of it by its last checkpoint, or all
    /// of it, plus `extend`, which should cover an election.
    ///
    /// Leases that would run out in the same second are spread, later ones moving further away,
    /// so that a storm of revocations does not follow every leader change.
    ///
    /// To be called once everything is applied that earlier terms wrote: before that, a lease whose
    /// renewal cleared its checkpoint would be cut short.
    pub fn promote(&mut self, extend: Duration, now: Duration) -> Epoch {
        let mut order: Vec<(Duration, LeaseId)> = self
            .leases
            .iter()
            .map(|(&id, lease)| (now.saturating_add(extend).saturating_add(lease.span()), id))
            .collect();
        order.sort_unstable();
        let each_second = (self.config.revoke_rate / 4 * 3).max(1);
        if order.len() >= self.config.revoke_rate {
            for i in each_second..order.len() {
                let earliest = order[i - each_second].0.saturating_add(Duration::from_secs(1));
                order[i].0 = order[i].0.max(earliest);
            }
        }

        let mut primary = Primary::default();
        let mut slots = Vec::with_capacity(order.len());
        for (deadline, id) in order {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.deadline = deadline;
                lease.checkpoint_queued = false;
                (lease.checkpoints_sent, lease.clearings_sent) = (0, 0);
                slots.push(Slot { at: deadline, id, generation: lease.generation });
                queue_checkpoint(&self.config, &mut primary, id, lease, now);
            }
        }
        primary.expiries = Schedule::from_slots(slots);
        self.primary = Some(primary);
        self.epochs += 1;
        Epoch(self.epochs)
    }

    /// Stops measuring time.
    pub fn demote(&mut self) {
        self.primary = None;
    }

    /// The present reign, if this member measures time.
    pub fn epoch(&self) -> Option<Epoch> {
        self.primary.is_some().then_some(Epoch(self.epochs))
    }

    /// Whether this member measures time.
    pub fn is_primary(&self) -> bool {
        self.primary.is_some()
    }

    /// Gives a lease its full time to live again: one lookup, no allocation, no queue.
    ///
    /// The caller must hold proof of leadership that is younger than the request and than its look at
    /// `epoch`: a reign that ended meanwhile may have been followed by another member's, which knows
    /// nothing of this renewal, and by one of this member's own, which the proof is not of. And it
    /// must call again after every wait: the lease may have been revoked.
    ///
    /// # Errors
    /// [`Error::NotPrimary`], also in another reign; [`Error::NotFound`], [`Error::Expired`].
    pub fn renew(&mut self, epoch: Epoch, id: LeaseId, now: Duration) -> Result<Renewal, Error> {
        // Planted: L3, L6, a renewal counts whoever's reign its proof of leadership was of.
        let same = epoch.0 == self.epochs || planted::is("renew-in-any-reign");
        let primary = self.primary.as_mut().filter(|_| same).ok_or(Error::NotPrimary)?;
        let lease = self.leases.get_mut(&id).ok_or(Error::NotFound)?;
        if lease.deadline <= now {
            return Err(Error::Expired);
        }
        // One that is on its way to the log would say less than what is promised here, too: the next primary
        // would take it for the time that is left after this renewal.
        // Planted: L5, a checkpoint that was handed out before cuts the renewed lease short.
        let sent = lease.checkpoints_sent > 0 && !planted::is("checkpoint-after-renewal");
        if lease.checkpoint > 0 || sent {
            lease.clearings_sent += 1;
            return Ok(Renewal::ClearCheckpoint);
        }
        // Leases that a promotion spread may sit beyond a full span from now: never pull one in,
        // its slot must stay a lower bound.
        lease.deadline = lease.deadline.max(now.saturating_add(lease.span()));
        queue_checkpoint(&self.config, primary, id, lease, now);
        Ok(Renewal::Renewed(lease.ttl))
    }

    /// Up to `limit` leases whose time is up, to be revoked through the log. Each is offered again
    /// after the retry interval, in case the revocation is lost on its way.
    ///
    /// Empty on a member that is not the primary.
    pub fn expired(&mut self, now: Duration, limit: usize) -> Vec<LeaseId> {
        let mut expired = Vec::new();
        let Some(primary) = &mut self.primary else { return expired };
        while expired.len() < limit {
            let Some(Slot { id, generation, .. }) = primary.expiries.pop_due(now) else { break };
            let Some(lease) = self.leases.get(&id).filter(|lease| lease.generation == generation) else {
                continue; // Revoked since; the slot was left behind.
            };
            let at = if lease.deadline > now {
                lease.deadline // Renewed since.
            } else {
                expired.push(id);
                now.saturating_add(self.config.revoke_retry)
            };
            primary.expiries.push(Slot { at, id, generation });
        }
        expired
    }

    /// Up to `limit` checkpoints whose time has come, to be written to the log: a lease and the
    /// seconds left of it, rounded up, so that a checkpoint never shortens a lease.
    ///
    /// Empty on a member that is not the primary.
    pub fn checkpoints_due(&mut self, now: Duration, limit: usize) -> Vec<(LeaseId, i64)> {
        let mut due = Vec::new();
        let (Some(primary), Some(interval)) = (&mut self.primary, self.config.checkpoint_interval) else {
            return due;
        };
        while due.len() < limit {
            let Some(Slot { id, generation, .. }) = primary.checkpoints.pop_due(now) else { break };
            let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.generation == generation) else {
                continue;
            };
            lease.checkpoint_queued = false;
            let left = lease.deadline.saturating_sub(now);
            if left.is_zero() {
                continue; // To be revoked, not checkpointed.
            }
            let remaining_ttl = i64::try_from(ceil_seconds(left)).unwrap_or(i64::MAX);
            // While a clearing is on its way, nothing may come behind it that it does not clear.
            if remaining_ttl < lease.ttl && lease.clearings_sent == 0 {
                lease.checkpoints_sent += 1;
                due.push((id, remaining_ttl));
            }
            // Queued again at once: should this one be lost, or the lease be renewed just before,
            // the next interval makes up for it.
            if left > interval {
                lease.checkpoint_queued = true;
                primary.checkpoints.push(Slot { at: now.saturating_add(interval), id, generation });
            }
        }
        due
    }

    /// No call of [`Lessor::expired`] or [`Lessor::checkpoints_due`] before this time has anything to
    /// say. `None`: not the primary, or no leases.
    pub fn next_event(&self) -> Option<Duration> {
        let primary = self.primary.as_ref()?;
        let times = [primary.expiries.first(), primary.checkpoints.first()];
        times.into_iter().flatten().min()
    }

    // ---- questions --------------------------------------------------------------------------

    /// Whether there is such a lease.
    pub fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// How long a lease still has.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotPrimary`] on a member that cannot know.
    pub fn time_to_live(&self, id: LeaseId, now: Duration) -> Result<TimeToLive, Error> {
        let lease = self.leases.get(&id).ok_or(Error::NotFound)?;
        if self.primary.is_none() {
            return Err(Error::NotPrimary);
        }
        let remaining = lease.deadline.saturating_sub(now).as_secs();
        Ok(TimeToLive { remaining: i64::try_from(remaining).unwrap_or(i64::MAX), granted: lease.ttl })
    }

    /// The granted time to live of a lease, in seconds.
    pub fn granted_ttl(&self, id: LeaseId) -> Option<i64> {
        self.leases.get(&id).map(|lease| lease.ttl)
    }

    /// The keys of a lease in byte order, or nothing if there is no such lease.
    pub fn keys(&self, id: LeaseId) -> Option<Vec<&[u8]>> {
        Some(self.leases.get(&id)?.keys.iter().map(AsRef::as_ref).collect())
    }

    /// Up to `limit` keys of a lease in byte order, those behind `after`: a page of a list that may be
    /// long, so that nobody holds the lessor's lock for all of it. What is attached or detached
    /// between two pages may be in the list or not. Empty where there is no such lease.
    pub fn keys_after(&self, id: LeaseId, after: Option<&[u8]>, limit: usize) -> Vec<Box<[u8]>> {
        let Some(lease) = self.leases.get(&id) else { return Vec::new() };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        lease.keys.range::<[u8], _>((start, Bound::Unbounded)).take(limit).cloned().collect()
    }

    /// All leases, the one that runs out first at the head; by id where nobody measures time.
    pub fn list(&self) -> Vec<LeaseId> {
        let deadline = |lease: &Lease| if self.is_primary() { lease.deadline } else { Duration::ZERO };
        let mut all: Vec<_> = self.leases.iter().map(|(&id, lease)| (deadline(lease), id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// What has to be in the lease table now, by id. For checks; the table itself is kept by the
    /// return values of the calls that change it.
    pub fn stored(&self) -> Vec<Stored> {
        let record =
            |(&id, lease): (&LeaseId, &Lease)| Stored { id, ttl: lease.ttl, remaining_ttl: lease.checkpoint };
        let mut all: Vec<_> = self.leases.iter().map(record).collect();
        all.sort_unstable_by_key(|stored| stored.id);
        all
    }

    /// Slots in both queues, the stale ones included: what bounds the memory beyond the leases.
    pub fn queued(&self) -> usize {
        self.primary.as_ref().map_or(0, |primary| primary.expiries.len() + primary.checkpoints.len())
    }

    fn insert(&mut self, id: LeaseId, ttl: i64, checkpoint: i64, now: Duration) {
        self.generations += 1;
        let mut lease = Lease {
            ttl: ttl.max(self.config.min_ttl),
            checkpoint,
            deadline: Duration::ZERO,
            generation: self.generations,
            checkpoints_sent: 0,
            clearings_sent: 0,
            checkpoint_queued: false,
            keys: BTreeSet::new(),
        };
        lease.deadline = now.saturating_add(lease.span());
        self.leases.insert(id, lease);
    }
}

/// Puts a lease that lasts longer than the interval in line for its next checkpoint, if it does
/// not stand there already.
fn queue_checkpoint(config: &Config, primary: &mut Primary, id: LeaseId, lease: &mut Lease, now: Duration) {
    let Some(interval) = config.checkpoint_interval else { return };
    if !lease.checkpoint_queued && lease.span() > interval {
        lease.checkpoint_queued = true;
        let at = now.saturating_add(interval);
        primary.checkpoints.push(Slot { at, id, generation: lease.generation });
    }
}

fn ceil_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
