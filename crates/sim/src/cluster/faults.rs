//! Misfortunes: what goes wrong next, and for how long.

use api::etcdserverpb::CompactionRequest;
use api::raftpb::{ConfChange, ConfChangeType};

use super::checks::Checked;
use super::disk::Trouble;
use super::member::{Identity, What};
use super::plan::{Fault, MILLISECOND, SECOND, Time};
use super::requests::{Ask, Token, Told};
use super::world::{ADMIN, MACHINES, World};

/// How long clients ask all the more when links or members fail.
const FLURRY: Time = 3 * SECOND;

/// What ends a misfortune, or comes after it.
#[derive(Clone, Debug)]
pub(crate) enum Relief {
    /// These links work again.
    Links(Vec<(usize, usize)>),
    /// They get worse: nothing passes any more, for a while. What is on its way still arrives.
    Cut(Vec<(usize, usize)>, Time),
    SlowDisk(usize),
    SlowApply(usize),
    Full(usize),
    Answers,
    /// Nothing gets better: the process ends, and starts again soon.
    Kill(usize),
}

impl World {
    /// Something goes wrong, and the next thing will in a while.
    pub(crate) fn misfortune(&mut self) -> Checked {
        if self.mended {
            return Ok(());
        }
        // They do not come singly: two at a time do what neither can.
        let calm = if self.random.one_in(4) { SECOND } else { self.plan.calm };
        let next = MILLISECOND + self.random.below(2 * calm);
        self.queue.after(next, What::Misfortune);
        let fault = self.plan.faults[self.random.below(self.plan.faults.len() as u64) as usize];
        let lasts = 100 * MILLISECOND + self.random.below(8 * SECOND);
        self.befall(fault, lasts)
    }

    fn befall(&mut self, fault: Fault, lasts: Time) -> Checked {
        let up = self.up();
        let Some(&any) = up.get(self.random.below(up.len().max(1) as u64) as usize) else {
            return Ok(());
        };
        // Nobody is missed more than a leader that does not know yet that it is gone.
        let machine = match self.random.below(3) {
            0 => self.leader().unwrap_or(any),
            1 if up.contains(&self.struck) => self.struck,
            _ => any,
        };
        self.struck = machine;
        let parts = [Fault::Delay, Fault::Partition, Fault::OneWayPartition, Fault::Pause].contains(&fault);
        if parts && self.random.one_in(2) {
            // Clients that get no answers ask all the more.
            self.flurry_until = self.queue.now + FLURRY;
        }
        match fault {
            Fault::Loss | Fault::Duplication | Fault::Delay | Fault::Reordering => {
                self.tally.count(fault);
                self.bad_weather(fault, machine, lasts);
            }
            Fault::Partition | Fault::OneWayPartition => {
                self.tally.count(fault);
                self.part(fault == Fault::OneWayPartition, machine, lasts);
            }
            Fault::ProcessKill | Fault::PowerLoss => {
                self.tally.count(fault);
                // Now and then several at once, or all.
                let more = if self.random.one_in(4) { self.random.below(up.len() as u64) } else { 0 };
                for at in 0..=more as usize {
                    let machine = if at == 0 { machine } else { up[at - 1] };
                    self.power_off(machine, fault == Fault::PowerLoss);
                    let away = match self.random.below(3) {
                        0 => self.random.below(SECOND),
                        _ => self.random.below(2 * lasts),
                    };
                    self.queue.after(away, What::Start(machine));
                }
            }
            Fault::TornFlush
            | Fault::Snapshot
            | Fault::WatchLoss
            | Fault::WatchLag
            | Fault::LeaseExpiry
            | Fault::LateReturn => {
                // Of these the others take care, or they come by themselves.
            }
            Fault::ClockDrift => {}
            Fault::FsyncError => {
                self.tally.count(fault);
                let skip = self.random.below(3);
                self.slots[machine].disk.set_trouble(Trouble::Sync(skip));
            }
            Fault::WriteError => {
                self.tally.count(fault);
                let skip = self.random.below(3);
                self.slots[machine].disk.set_trouble(Trouble::Write(skip));
            }
            Fault::FullDisk => {
                self.tally.count(fault);
                self.slots[machine].disk.set_trouble(Trouble::Full);
                self.relieve_after(lasts, Relief::Full(machine));
            }
            Fault::SlowDisk => {
                self.tally.count(fault);
                let slow = 20 * MILLISECOND + self.random.below(2 * SECOND);
                let all = self.random.one_in(4);
                for one in if all { up.clone() } else { vec![machine] } {
                    self.slots[one].slow_disk = slow;
                    self.relieve_after(2 * lasts, Relief::SlowDisk(one));
                }
            }
            Fault::SlowApply => {
                self.tally.count(fault);
                self.slots[machine].slow_apply = 5 * MILLISECOND + self.random.below(SECOND / 2);
                self.relieve_after(2 * lasts, Relief::SlowApply(machine));
            }
            Fault::Pause => {
                self.tally.count(fault);
                let until = self.queue.now + lasts;
                self.slots[machine].paused_until = until;
                // What has come meanwhile is seen in one piece.
                let woken = super::member::Local::Woken;
                self.queue.at(until, What::At((machine, self.starts[machine]), woken));
            }
            Fault::ClockJump => {
                self.tally.count(fault);
                let ahead = self.random.below(10 * SECOND);
                let now = self.queue.now;
                if let Some(member) = &mut self.slots[machine].member {
                    member.clock.ahead += ahead;
                    self.checks.jumps.push((now, ahead));
                }
            }
            Fault::FalseGone => {
                self.tally.count(fault);
                let id = up[self.random.below(up.len() as u64) as usize];
                if let Some(id) = self.slots[id].identity.as_ref().map(|identity| identity.id) {
                    let local = super::member::Local::Gone(node::NodeId(id));
                    self.queue.after(1, What::At((machine, self.starts[machine]), local));
                }
            }
            Fault::Transfer => {
                self.tally.count(fault);
                let to = up[self.random.below(up.len() as u64) as usize];
                if let Some(id) = self.slots[to].identity.as_ref().map(|identity| identity.id) {
                    self.administer(machine, Ask::Transfer(id));
                }
            }
            Fault::Compaction => {
                self.tally.count(fault);
                let back = if self.random.one_in(3) { 0 } else { self.random.below(40) as i64 };
                let revision = self.checks.revision() - back;
                if self.random.one_in(3) {
                    // A start soon after it finds what it has taken away.
                    let soon = SECOND + self.random.below(6 * SECOND);
                    self.relieve_after(soon, Relief::Kill(machine));
                }
                let request = CompactionRequest { revision, ..CompactionRequest::default() };
                self.administer(machine, Ask::Compact(request));
            }
            Fault::LostAnswer => {
                self.lost_answers = 100 + self.random.below(500);
                self.relieve_after(lasts, Relief::Answers);
            }
            Fault::AddMember => self.add_member(machine),
            Fault::RemoveMember => self.remove_member(machine),
            Fault::PromoteMember => self.promote_member(),
            Fault::ReplaceMember => {
                self.tally.count(fault);
                self.remove_member(machine);
                self.add_member(machine);
            }
        }
        Ok(())
    }

    fn relieve_after(&mut self, lasts: Time, relief: Relief) {
        self.reliefs.push(relief);
        self.queue.after(lasts, What::Relief(self.reliefs.len() as u64 - 1));
    }

    pub(crate) fn relieve(&mut self, number: usize) -> Checked {
        if self.mended {
            return Ok(());
        }
        match self.reliefs[number].clone() {
            Relief::Links(links) => {
                for (from, to) in links {
                    *self.network.link(from, to) = super::network::Link::default();
                }
            }
            Relief::Cut(links, lasts) => {
                for (from, to) in &links {
                    self.network.link(*from, *to).cut = true;
                }
                self.flurry_until = self.queue.now + FLURRY;
                self.relieve_after(lasts, Relief::Links(links));
            }
            Relief::SlowDisk(machine) => self.slots[machine].slow_disk = 0,
            Relief::SlowApply(machine) => self.slots[machine].slow_apply = 0,
            Relief::Full(machine) => self.slots[machine].disk.set_trouble(Trouble::None),
            Relief::Answers => self.lost_answers = 0,
            Relief::Kill(machine) => {
                self.power_off(machine, false);
                self.queue.after(SECOND, What::Start(machine));
            }
        }
        Ok(())
    }

    /// Who leads, or believes to; of several the newest.
    fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.slots[*at].member.as_ref().is_some_and(|member| member.leading);
        (0..MACHINES).filter(leads).max_by_key(|at| self.slots[*at].member.as_ref().map(|member| member.term))
    }

    /// Some links are bad for a while: all, some, or those of one machine, which is far away then.
    fn bad_weather(&mut self, fault: Fault, machine: usize, lasts: Time) {
        let everywhere = self.random.one_in(3);
        let far = !everywhere && self.random.one_in(2);
        // What it says, what it hears, or both.
        let way = self.random.below(3);
        let mut links = Vec::new();
        for from in 0..MACHINES {
            for to in 0..MACHINES {
                let of_machine = from == machine && way != 0 || to == machine && way != 1;
                let hit = everywhere || if far { of_machine } else { self.random.one_in(3) };
                if from == to || !hit {
                    continue;
                }
                let (much, slow) = (20 + self.random.below(400), self.random.below(SECOND));
                let link = self.network.link(from, to);
                match fault {
                    Fault::Loss => link.loss = much,
                    Fault::Duplication => link.duplication = much,
                    Fault::Delay => link.delay = if far { 4 * slow } else { slow / 4 },
                    _ => link.jitter = 1 + if far { 4 * slow } else { slow },
                }
                links.push((from, to));
            }
        }
        self.relieve_after(lasts, Relief::Links(links));
    }

    /// The machines fall into two parts; or some are not heard; or one is not heard by anybody, and what it
    /// hears is old, perhaps.
    fn part(&mut self, one_way: bool, machine: usize, lasts: Time) {
        let alone = self.random.one_in(3);
        if alone && !one_way && self.random.one_in(2) {
            return self.fade(machine, lasts);
        }
        let sides: Vec<bool> =
            (0..MACHINES).map(|at| if alone { at == machine } else { self.random.one_in(2) }).collect();
        let mask = one_way && self.random.one_in(2);
        let old = if self.random.one_in(2) { self.random.below(2 * SECOND) } else { 0 };
        let mut links = Vec::new();
        for from in 0..MACHINES {
            for to in 0..MACHINES {
                let cut = match (one_way, mask) {
                    (false, _) => sides[from] != sides[to],
                    (true, true) => self.random.one_in(3),
                    (true, false) => from == machine,
                };
                if from != to && cut {
                    self.network.link(from, to).cut = true;
                    links.push((from, to));
                } else if from != to && one_way && !mask && to == machine && old > 0 {
                    self.network.link(from, to).delay = old;
                    links.push((from, to));
                }
            }
        }
        self.relieve_after(lasts, Relief::Links(links));
    }

    /// A machine loses touch with all others by and by: first what it says or hears comes late, some of it
    /// very late, then nothing is sent any more.
    fn fade(&mut self, machine: usize, lasts: Time) {
        let (says, hears) = (self.random.below(SECOND), self.random.below(4 * SECOND));
        let mut links = Vec::new();
        for other in (0..MACHINES).filter(|other| *other != machine) {
            self.network.link(machine, other).jitter = 1 + says;
            self.network.link(other, machine).jitter = 1 + hears;
            links.extend([(machine, other), (other, machine)]);
        }
        let soon = SECOND / 2 + self.random.below(2 * SECOND);
        self.relieve_after(soon, Relief::Cut(links, lasts));
    }

    // ---- members that come and go -----------------------------------------------------------

    fn administer(&mut self, machine: usize, ask: Ask) -> u64 {
        self.admin_step += 1;
        let token = Token { client: ADMIN, step: self.admin_step };
        self.send(machine, token, ask);
        self.admin_step
    }

    pub(crate) fn admin_answered(&mut self, step: u64, told: &Told) -> Checked {
        let Some(machine) = self.additions.remove(&step) else { return Ok(()) };
        match told {
            Told::Done(_) => self.queue.after(self.plan.tick, What::Start(machine)),
            _ => return Ok(()),
        }
        Ok(())
    }

    fn add_member(&mut self, at: usize) {
        let conf = self.checks.conf_at(self.checks.last());
        let size = conf.voters.len() + conf.learners.len();
        let learner = self.random.one_in(2);
        let free = (0..MACHINES).find(|machine| self.slots[*machine].identity.is_none());
        let Some(machine) = free.filter(|_| size < 7) else { return };
        let runs =
            |id: &&node::NodeId| self.machines.get(&id.0).is_some_and(|at| self.slots[*at].member.is_some());
        if !learner
            && conf.voters.len() > 1
            && conf.voters.iter().filter(runs).count() <= conf.voters.len().div_ceil(2)
        {
            return;
        }
        self.tally.count(Fault::AddMember);
        let id = machine as u64 + 1;
        self.slots[machine].identity = Some(Identity { id, founders: Vec::new() });
        self.machines.insert(id, machine);
        let member = apply::Member {
            id,
            peer_urls: vec![format!("http://{id}")],
            is_learner: learner,
            ..apply::Member::default()
        };
        let kind = if learner {
            ConfChangeType::ConfChangeAddLearnerNode
        } else {
            ConfChangeType::ConfChangeAddNode
        };
        let change = ConfChange {
            id: None,
            r#type: Some(kind.into()),
            node_id: Some(id),
            context: Some(apply::to_json(&member)),
        };
        let step = self.administer(at, Ask::Change(change));
        self.additions.insert(step, machine);
    }

    fn remove_member(&mut self, at: usize) {
        let conf = self.checks.conf_at(self.checks.last());
        let all: Vec<u64> = conf.voters.iter().chain(&conf.learners).map(|id| id.0).collect();
        let id = all[self.random.below(all.len() as u64) as usize];
        // As `--strict-reconfig-check` has it: those who would be left have a quorum that runs (E3).
        let left: Vec<u64> = conf.voters.iter().map(|voter| voter.0).filter(|voter| *voter != id).collect();
        let runs = |id: &&u64| self.machines.get(id).is_some_and(|at| self.slots[*at].member.is_some());
        if left.is_empty() || left.iter().filter(runs).count() <= left.len() / 2 {
            return;
        }
        self.tally.count(Fault::RemoveMember);
        let change = ConfChange {
            id: None,
            r#type: Some(ConfChangeType::ConfChangeRemoveNode.into()),
            node_id: Some(id),
            context: None,
        };
        self.administer(at, Ask::Change(change));
    }

    fn promote_member(&mut self) {
        let conf = self.checks.conf_at(self.checks.last());
        let Some(learner) = conf.learners.first().map(|id| id.0) else { return };
        let leader =
            self.slots.iter().position(|slot| slot.member.as_ref().is_some_and(|member| member.leading));
        if let Some(machine) = leader {
            self.tally.count(Fault::PromoteMember);
            self.administer(machine, Ask::Promote(learner));
        }
    }

    // ---- the end of it ----------------------------------------------------------------------

    /// After everything was mended: one member is cut off once more, while the others have much to do, so that
    /// it finds a world that has moved on and in which nothing happens any more. Whether there is one to spare.
    pub(crate) fn hold_back(&mut self) -> bool {
        let conf = self.checks.conf_at(self.checks.last());
        let runs =
            |id: &&node::NodeId| self.machines.get(&id.0).is_some_and(|at| self.slots[*at].member.is_some());
        let running: Vec<u64> = conf.voters.iter().filter(runs).map(|id| id.0).collect();
        if running.len() < 2 || (running.len() - 1) * 2 <= conf.voters.len() {
            return false;
        }
        self.tally.count(Fault::LateReturn);
        let id = running[self.random.below(running.len() as u64) as usize];
        let machine = self.machines[&id];
        for other in (0..MACHINES).filter(|other| *other != machine) {
            self.network.link(machine, other).cut = true;
            self.network.link(other, machine).cut = true;
        }
        self.flurry_until = self.queue.now + super::world::LATE;
        // So much to do that the others' logs let go of what it would need.
        self.plan.flush_age = SECOND;
        self.plan.snapshot_count = self.plan.snapshot_count.min(10);
        true
    }

    /// Everything works from now on, but for a minority that may stay away.
    pub(crate) fn mend(&mut self) -> Checked {
        self.mended = true;
        self.network.heal();
        self.lost_answers = 0;
        let changes = [Fault::AddMember, Fault::RemoveMember, Fault::PromoteMember, Fault::ReplaceMember];
        if !changes.iter().any(|fault| self.plan.may(*fault)) && self.random.one_in(2) {
            let mut minority = (self.plan.members - 1) / 2;
            while minority > 0 {
                minority -= 1;
                let machine = self.random.below(self.plan.members as u64) as usize;
                self.away.insert(machine);
            }
        }
        for machine in 0..MACHINES {
            let slot = &mut self.slots[machine];
            slot.paused_until = 0;
            (slot.slow_disk, slot.slow_apply) = (0, 0);
            slot.disk.set_trouble(Trouble::None);
            if self.away.contains(&machine) {
                self.power_off(machine, true);
            } else if self.slots[machine].identity.is_some() {
                let soon = self.random.below(SECOND);
                self.queue.after(soon, What::Start(machine));
            }
        }
        Ok(())
    }
}
