//! Clients that hold a lease, and hold the cluster to its promise.

use std::collections::BTreeMap;

use api::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, PutRequest};
use apply::Body;

use super::checks::{Checks, Violation, ensure};
use super::plan::{MILLISECOND, SECOND, Time};
use super::requests::{Ask, Told};
use crate::random::Random;

/// What a lessee does next: asks a machine something, and looks again after a while.
#[derive(Default)]
pub(crate) struct Next {
    pub(crate) ask: Option<(usize, Ask)>,
    pub(crate) after: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Without,
    Asked,
    Holding,
    Renewing,
    Putting,
    /// Renews no more: the lease is to end by itself, or was revoked.
    Leaving,
}

/// One client with at most one lease.
pub(crate) struct Lessee {
    number: usize,
    step: u64,
    state: State,
    machine: usize,
    lease: i64,
    count: i64,
    ttl: i64,
    asked: Time,
    granted: bool,
    renewals: u64,
    /// One in so many times it goes, instead of renewing.
    loyalty: u64,
    left: Time,
}

impl Lessee {
    pub(crate) fn new(number: usize) -> Lessee {
        Lessee {
            number,
            step: 0,
            state: State::Without,
            machine: 0,
            lease: 0,
            count: 0,
            ttl: 0,
            asked: 0,
            granted: false,
            renewals: 0,
            loyalty: 1,
            left: 0,
        }
    }

    pub(crate) fn at_step(&self) -> u64 {
        self.step
    }

    fn ask(&mut self, state: State, ask: Ask, random: &mut Random, now: Time) -> Next {
        (self.state, self.asked) = (state, now);
        let after = Some(SECOND + random.below(2 * SECOND));
        Next { ask: Some((self.machine, ask)), after }
    }

    /// Time has passed since the last step.
    pub(crate) fn step(
        &mut self,
        step: u64,
        now: Time,
        up: &[usize],
        closed: bool,
        random: &mut Random,
        checks: &Checks,
    ) -> Result<Next, Violation> {
        if step != self.step {
            return Ok(Next::default());
        }
        self.step += 1;
        // Who was not answered asks elsewhere, perhaps.
        let unanswered = matches!(self.state, State::Asked | State::Renewing | State::Putting);
        let moves = random.one_in(8) || unanswered && random.one_in(2);
        if !up.is_empty() && (!up.contains(&self.machine) || moves) {
            self.machine = up[random.below(up.len() as u64) as usize];
        }
        let soon = |random: &mut Random| Next { ask: None, after: Some(random.below(SECOND)) };
        Ok(match self.state {
            State::Without if closed => Next::default(),
            State::Without => {
                self.count += 1;
                self.lease = (self.number as i64) << 32 | self.count;
                self.ttl = 2 + random.below(12) as i64;
                // Those who go soon rest on what they were told last.
                self.loyalty = if random.one_in(2) { 3 } else { 14 };
                (self.granted, self.renewals) = (false, 0);
                let request = LeaseGrantRequest { id: self.lease, ttl: self.ttl };
                self.ask(State::Asked, Ask::Grant(request), random, now)
            }
            // Nobody answered: whether there is such a lease is not known.
            State::Asked => {
                self.state = State::Without;
                soon(random)
            }
            State::Holding if closed || random.one_in(self.loyalty) => {
                (self.state, self.left) = (State::Leaving, now);
                if !closed && random.one_in(3) {
                    let request = LeaseRevokeRequest { id: self.lease };
                    return Ok(self.ask(State::Leaving, Ask::Revoke(request), random, now));
                }
                soon(random)
            }
            State::Holding if random.one_in(4) => {
                let key = format!("l{}", random.below(5)).into();
                let value = format!("{}", self.lease).into();
                let put = PutRequest { key, value, lease: self.lease, ..PutRequest::default() };
                self.ask(State::Putting, Ask::Put(put), random, now)
            }
            State::Holding | State::Renewing | State::Putting => {
                self.ask(State::Renewing, Ask::Renew(self.lease), random, now)
            }
            State::Leaving => {
                if checks.ended.contains_key(&self.lease) || now > self.left + 60 * SECOND {
                    self.state = State::Without;
                }
                Next { ask: None, after: Some(SECOND) }
            }
        })
    }

    /// An answer has come.
    pub(crate) fn answered(
        &mut self,
        step: u64,
        told: &Told,
        now: Time,
        machines: &BTreeMap<u64, usize>,
        random: &mut Random,
        checks: &mut Checks,
    ) -> Result<Next, Violation> {
        if step != self.step {
            return Ok(Next::default());
        }
        self.step += 1;
        let third = self.ttl as u64 * SECOND / 3;
        let mut next = Next { ask: None, after: Some(third / 2 + random.below(third)) };
        match (self.state, told) {
            (State::Asked, Told::Done(reply)) => {
                if let Body::LeaseGrant(grant) = &reply.body {
                    self.ttl = grant.ttl;
                    checks.promise(self.lease, self.asked, grant.ttl)?;
                }
                self.granted = true;
                self.state = State::Holding;
            }
            (State::Asked, _) => self.state = State::Without,
            (State::Renewing, Told::Renewed(ttl)) => {
                ensure!(*ttl == self.ttl, "lease {} of {} s is renewed for {ttl}", self.lease, self.ttl);
                checks.promise(self.lease, self.asked, *ttl)?;
                self.renewals += 1;
                self.state = State::Holding;
            }
            (State::Renewing, Told::LeaseGone) => {
                ensure!(
                    checks.ended.contains_key(&self.lease),
                    "lease {} is said to be gone, and was never revoked",
                    self.lease
                );
                self.state = State::Without;
            }
            (State::Renewing, Told::NotLeader(leader)) => {
                if let Some(&machine) = machines.get(leader) {
                    self.machine = machine;
                }
                next.after = Some(50 * MILLISECOND);
            }
            (State::Renewing, _) => next.after = Some(100 * MILLISECOND),
            (State::Putting, _) => self.state = State::Holding,
            (State::Leaving, _) => next.after = Some(SECOND),
            (State::Holding | State::Without, _) => {}
        }
        let _ = now;
        Ok(next)
    }
}
