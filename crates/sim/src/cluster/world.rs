//! Everything there is, and what happens next.

mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use node::Input;

use super::checks::{Checked, Checks, Violation, ensure};
use super::clients;
use super::disk::Disk;
use super::lessees::Lessee;
use super::member::{Clock, Context, Done, Halt, Identity, Local, Member, What, min_ttl};
use super::network::Network;
use super::plan::{Fault, MILLISECOND, Plan, SECOND, Tally, Time};
use super::queue::Queue;
use super::requests::{Ask, Token, Told};
use super::watchers::Watcher;
use crate::linearizability::{History, RequestId};
use crate::random::Random;

/// Kinds of misfortune that every run has to see before it may heal.
const FEWEST_KINDS: usize = 6;

/// Machines there may be, counting those of members that are added.
pub(crate) const MACHINES: usize = 12;

/// The client that administers: nobody waits for its answers but the machines it starts.
pub(crate) const ADMIN: usize = usize::MAX;

/// How long clients rest in a flurry, at the most.
const FLURRY: Time = 150 * MILLISECOND;

/// For how long a member misses everything that comes back when nobody writes any more.
pub(crate) const LATE: Time = 6 * SECOND;

/// A machine, with or without a process.
pub(crate) struct Slot {
    pub(crate) disk: Disk,
    pub(crate) identity: Option<Identity>,
    pub(crate) member: Option<Box<Member>>,
    pub(crate) paused_until: Time,
    /// Thousandths that its clock runs fast.
    pub(crate) fast: i64,
    /// The first entry that writes under way touched when it went down.
    touched: Option<u64>,
    /// A member that was removed does not come back.
    pub(crate) gone: bool,
    pub(crate) slow_disk: Time,
    pub(crate) slow_apply: Time,
}

/// A client that reads and writes, one request after the other.
struct Client {
    machine: usize,
    step: u64,
    pending: Option<Pending>,
    reads_only: bool,
    /// What it got since things were mended: writes and reads.
    done: (u64, u64),
}

struct Pending {
    id: Option<RequestId>,
    writes: bool,
}

/// The whole simulation.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) queue: Queue<What>,
    pub(crate) random: Random,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    pub(crate) tally: Tally,
    pub(crate) trace: u64,
    pub(crate) slots: Vec<Slot>,
    pub(crate) machines: BTreeMap<u64, usize>,
    pub(crate) starts: Vec<u64>,
    clients: Vec<Client>,
    lessees: Vec<Lessee>,
    pub(crate) watchers: Vec<Watcher>,
    history: History,
    requests: u64,
    pub(crate) lost_answers: u64,
    pub(crate) mended: bool,
    closed: bool,
    /// Until then clients hardly rest.
    pub(crate) flurry_until: Time,
    /// Machines that stay away when everything is mended: a minority.
    pub(crate) away: BTreeSet<usize>,
    pub(crate) reliefs: Vec<super::faults::Relief>,
    /// The machine that something befell last.
    pub(crate) struck: usize,
    /// Members waiting to be started once the cluster has agreed to them, by step of the admin.
    pub(crate) additions: BTreeMap<u64, usize>,
    pub(crate) admin_step: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Simulated time, in microseconds.
    pub simulated: Time,
    /// Misfortunes, by kind.
    pub tally: Tally,
    /// A number that differs if anything went differently.
    pub trace: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests with unknown outcome.
    pub unknown: u64,
    /// Entries applied.
    pub entries: u64,
    /// Responses that watchers looked at.
    pub responses: u64,
    /// Hashes compared.
    pub compared: u64,
    /// Events of the simulation.
    pub events: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        World::of(Plan::of(seed), seed)
    }

    /// A world that goes by `plan`, whatever plan the seed stands for.
    pub(crate) fn of(plan: Plan, seed: u64) -> World {
        let mut random = Random::new(seed);
        let ids: Vec<u64> = (1..=plan.members as u64).collect();
        let slots = (0..MACHINES).map(|number| Slot {
            disk: Disk::new(),
            identity: ids.get(number).map(|id| Identity { id: *id, founders: ids.clone() }),
            member: None,
            paused_until: 0,
            fast: 0,
            touched: None,
            gone: false,
            slow_disk: 0,
            slow_apply: 0,
        });
        let mut slots: Vec<Slot> = slots.collect();
        if plan.may(Fault::ClockDrift) {
            for slot in &mut slots {
                slot.fast = random.below(2 * plan.drift + 1) as i64 - plan.drift as i64;
            }
        }
        let drift = if plan.may(Fault::ClockDrift) { plan.drift } else { 0 };
        let all = plan.clients + plan.readers;
        let client = |number| Client {
            machine: number % plan.members,
            step: 0,
            pending: None,
            reads_only: number >= plan.clients,
            done: (0, 0),
        };
        World {
            queue: Queue::new(),
            network: Network::new(MACHINES),
            checks: Checks::new(MACHINES, min_ttl(&plan), drift),
            tally: Tally::default(),
            trace: seed,
            machines: ids.iter().map(|id| (*id, *id as usize - 1)).collect(),
            starts: vec![0; MACHINES],
            clients: (0..all).map(client).collect(),
            lessees: (0..plan.lease_clients).map(|i| Lessee::new(all + i)).collect(),
            watchers: (0..plan.watchers).map(|i| Watcher::new(i, &mut random)).collect(),
            history: History::default(),
            requests: 0,
            lost_answers: 0,
            mended: false,
            closed: false,
            flurry_until: 0,
            away: BTreeSet::new(),
            reliefs: Vec::new(),
            struck: 0,
            additions: BTreeMap::new(),
            admin_step: 0,
            slots,
            random,
            plan,
        }
    }

    /// From the first start to the last comparison.
    pub(crate) fn live(&mut self) -> Result<Report, Violation> {
        if self.plan.may(Fault::ClockDrift) && self.plan.drift > 0 {
            self.tally.count(Fault::ClockDrift);
        }
        self.begin();
        let first = self.random.below(self.plan.calm) + SECOND;
        self.queue.at(first, What::Misfortune);

        self.until(self.plan.stormy)?;
        // A lone member is spared whatever befalls links: it takes longer to see enough.
        while self.tally.kinds() < FEWEST_KINDS && self.queue.now < 10 * self.plan.stormy {
            self.until(self.queue.now + 10 * SECOND)?;
        }
        self.mend()?;
        let mended = self.queue.now;
        self.until(mended + self.plan.patience / 2)?;
        self.has_made_progress()?;
        let late = self.plan.may(Fault::LateReturn) && self.hold_back();
        if late {
            self.until(self.queue.now + LATE)?;
        }
        self.closed = true;
        if late {
            self.until(self.queue.now + 2 * SECOND)?;
            self.network.heal();
            self.until(self.queue.now + 3 * SECOND)?;
            self.watchers_have_all()?;
        }
        self.until(self.queue.now + self.plan.patience / 2)?;
        self.is_at_rest()?;
        let figures = self.is_linearizable()?;
        Ok(Report {
            simulated: self.queue.now,
            tally: self.tally.clone(),
            trace: self.trace,
            answered: figures.answered as u64,
            unknown: figures.unknown as u64,
            entries: self.checks.last(),
            responses: self.watchers.iter().map(|watcher| watcher.responses).sum(),
            compared: self.checks.compared,
            events: self.queue.count(),
        })
    }

    /// Starts everybody.
    pub(crate) fn begin(&mut self) {
        for machine in 0..self.plan.members {
            self.queue.at(0, What::Start(machine));
        }
        for client in 0..self.clients.len() + self.lessees.len() {
            let at = self.random.below(2 * SECOND);
            self.queue.at(at, What::Client(client, 0));
        }
        for watcher in 0..self.watchers.len() {
            let at = self.random.below(5 * SECOND);
            self.queue.at(at, What::Watcher(watcher, 0));
        }
        self.queue.at(SECOND, What::Compare);
    }

    pub(crate) fn until(&mut self, end: Time) -> Checked {
        while self.queue.next_time().is_some_and(|time| time <= end) {
            if let Some(what) = self.queue.next() {
                self.happen(what)?;
            }
        }
        self.queue.now = end;
        Ok(())
    }

    fn happen(&mut self, what: What) -> Checked {
        match what {
            What::At((machine, life), local) => {
                let slot = &self.slots[machine];
                if slot.member.is_none() || self.starts[machine] != life {
                    if let Local::Ask(token, _) = local {
                        // Nobody listens there.
                        self.queue.after(MILLISECOND, What::Answer(token, Told::Refused));
                    }
                    return Ok(());
                }
                if slot.paused_until > self.queue.now {
                    self.queue.at(slot.paused_until, What::At((machine, life), local));
                    return Ok(());
                }
                self.at(machine, local)
            }
            What::Answer(token, told) => self.answered(token, told),
            What::Client(number, step) => self.client(number, step),
            What::Watcher(number, step) => self.watcher(number, step),
            What::Misfortune => self.misfortune(),
            What::Relief(number) => self.relieve(number as usize),
            What::Start(machine) => self.start(machine),
            What::Compare => self.compare(),
        }
    }

    // ---- members ----------------------------------------------------------------------------

    /// The machines, and what the member on one of them has around it.
    fn split(&mut self, machine: usize) -> (&mut Vec<Slot>, Context<'_>) {
        let World { plan, queue, random, network, checks, tally, trace, slots, machines, starts, .. } = self;
        let Slot { slow_disk, slow_apply, .. } = slots[machine];
        let lost_answers = self.lost_answers;
        let cx = Context {
            plan,
            queue,
            random,
            network,
            checks,
            tally,
            machines,
            starts,
            trace,
            slow_disk,
            slow_apply,
            lost_answers,
        };
        (slots, cx)
    }

    /// Lets a member do something, and carries on if its disk fails over it.
    pub(crate) fn with(
        &mut self,
        machine: usize,
        act: impl FnOnce(&mut Member, &mut Context<'_>) -> Done,
    ) -> Checked {
        let (slots, mut cx) = self.split(machine);
        let Some(member) = &mut slots[machine].member else { return Ok(()) };
        let result = act(member, &mut cx);
        let mut woken = Vec::new();
        member.hub.take_woken(&mut woken);
        let who = member.who;
        for stream in woken {
            let watcher = self.watchers.iter_mut().position(|one| one.at == Some((who, stream)));
            if let Some(number) = watcher {
                let delay = self.random.below(3 * MILLISECOND);
                self.queue.after(delay, What::Watcher(number, self.watchers[number].step));
            }
        }
        match result {
            Ok(()) => Ok(()),
            Err(Halt::Wrong(violation)) => Err(violation),
            Err(Halt::Stopped(why)) => {
                let excused = self.slots[machine].disk.has_failed();
                ensure!(excused, "member on machine {machine} stopped: {why}");
                // It exits; somebody starts it again.
                self.power_off(machine, true);
                let soon = SECOND / 2 + self.random.below(5 * SECOND);
                self.queue.after(soon, What::Start(machine));
                Ok(())
            }
        }
    }

    fn at(&mut self, machine: usize, local: Local) -> Checked {
        if let Local::Leave = local {
            if self.slots[machine].identity.is_some() {
                self.slots[machine].gone = true;
                self.power_off(machine, false);
            }
            return Ok(());
        }
        self.with(machine, |member, cx| match local {
            Local::Tick => member.tick(cx),
            Local::Turn => member.turn(cx),
            Local::Written => member.written(cx),
            Local::Apply => member.apply(cx),
            Local::Look => {
                member.look(cx);
                Ok(())
            }
            Local::Flushed => member.flushed(cx),
            Local::Compact => member.compact(cx),
            Local::ReadLog(read) => member.read_log(read, cx),
            Local::MakeSnapshot(to) => member.make_snapshot(to, cx),
            Local::Message(message) => member.receive(*message, cx),
            Local::SnapshotBody(message, body) => member.receive_snapshot(*message, &body, cx),
            Local::SnapshotSent(to, arrived) => {
                member.letters.of_peer(Input::SnapshotSent { to, arrived });
                member.drive(cx)
            }
            Local::Gone(id) => {
                member.letters.of_peer(Input::LeaderGone(id));
                member.drive(cx)
            }
            Local::Unreachable(id) => {
                member.letters.of_peer(Input::Unreachable(id));
                member.drive(cx)
            }
            Local::Ask(token, ask) => member.ask(token, *ask, cx),
            Local::RenewAgain(token, id) => {
                member.renew(token, id, cx);
                member.drive(cx)
            }
            Local::Woken => {
                member.turn_is_due = true;
                member.after(cx, 100, Local::Turn);
                Ok(())
            }
            Local::Leave => Ok(()),
        })
    }

    /// The process on a machine ends, at once; with `power`, everything that the disk does not have goes too.
    pub(crate) fn power_off(&mut self, machine: usize, power: bool) {
        let slot = &mut self.slots[machine];
        if let Some(mut member) = slot.member.take() {
            let touched = member.touches();
            slot.touched = slot.touched.into_iter().chain(touched).min();
            // Half-way through a write, perhaps.
            if member.writing.is_some() && self.random.one_in(2) {
                slot.disk.set_trouble(super::disk::Trouble::Kill(0));
                let _ = member.wal.sync();
            } else if member.flushing && self.random.one_in(2) {
                self.tally.count(Fault::TornFlush);
                slot.disk.set_trouble(super::disk::Trouble::Kill(self.random.below(3)));
                let _ = member.backend.flush();
            }
            slot.disk.kill();
            let id = member.id;
            let who = member.who;
            drop(member);
            for watcher in self.watchers.iter_mut().filter(|one| one.at.is_some_and(|(at, _)| at == who)) {
                watcher.at = None;
            }
            self.tell_gone(id);
        }
        let slot = &mut self.slots[machine];
        if power || slot.disk.is_forsaken() {
            slot.disk.lose_power(&mut self.random);
        }
        slot.paused_until = 0;
    }

    /// Connections to a process that ended are closed, and new ones refused: others may notice.
    fn tell_gone(&mut self, id: u64) {
        for machine in 0..MACHINES {
            if self.slots[machine].member.is_some() && self.random.one_in(2) {
                let from = self.machines.get(&id).copied().unwrap_or(machine);
                if !self.network.link(from, machine).cut && !self.network.link(machine, from).cut {
                    let delay = MILLISECOND + self.random.below(5 * MILLISECOND);
                    let local = Local::Gone(node::NodeId(id));
                    self.queue.after(delay, What::At((machine, self.starts[machine]), local));
                }
            }
        }
    }

    pub(crate) fn start(&mut self, machine: usize) -> Checked {
        let slot = &mut self.slots[machine];
        if slot.member.is_some() || slot.gone || self.mended && self.away.contains(&machine) {
            return Ok(());
        }
        let Some(identity) = slot.identity.clone() else { return Ok(()) };
        let disk = slot.disk.restart();
        slot.disk = disk.clone();
        self.starts[machine] += 1;
        let who = (machine, self.starts[machine]);
        let clock = Clock::new(self.queue.now, slot.fast);
        let touched = slot.touched.take();
        let (slots, mut cx) = self.split(machine);
        match Member::start(disk, who, &identity, clock, touched, &mut cx) {
            Ok(member) => {
                let removed = member.shared.cluster.get().removed.contains(&identity.id);
                slots[machine].member = Some(Box::new(member));
                if removed {
                    return self.at(machine, Local::Leave);
                }
                self.with(machine, |member, cx| member.run(cx))
            }
            Err(Halt::Wrong(violation)) => Err(violation),
            Err(Halt::Stopped(why)) => Err(Violation(format!("member {} cannot start: {why}", identity.id))),
        }
    }

    /// Machines with a process.
    pub(crate) fn up(&self) -> Vec<usize> {
        (0..MACHINES).filter(|machine| self.slots[*machine].member.is_some()).collect()
    }

    /// Of these, the ones that clients talk to: in the end, those that are part of the cluster.
    fn served(&self) -> Vec<usize> {
        let mut up = self.up();
        if self.mended {
            let conf = self.checks.conf_at(self.checks.last());
            let part = |id: &node::NodeId| conf.voters.contains(id) || conf.learners.contains(id);
            up.retain(|machine| part(&node::NodeId(*machine as u64 + 1)));
        }
        up
    }

    // ---- clients ----------------------------------------------------------------------------

    /// Sends a request to a machine.
    pub(crate) fn send(&mut self, machine: usize, token: Token, ask: Ask) {
        let delay = 100 + self.random.below(2 * MILLISECOND);
        let who = (machine, self.starts[machine]);
        self.queue.after(delay, What::At(who, Local::Ask(token, Box::new(ask))));
    }

    fn client(&mut self, number: usize, step: u64) -> Checked {
        if number >= self.clients.len() {
            return self.lessee(number, step);
        }
        if self.clients[number].step != step {
            return Ok(());
        }
        self.clients[number].step += 1;
        let step = self.clients[number].step;
        if self.clients[number].pending.take().is_some() {
            // Its patience is over; what became of the request nobody will tell it.
            self.clients[number].machine = self.random.below(MACHINES as u64) as usize;
            self.rest(number);
            return Ok(());
        }
        if self.closed {
            return Ok(());
        }
        let up = self.served();
        let client = &mut self.clients[number];
        if !up.is_empty() && (!up.contains(&client.machine) || self.random.one_in(12)) {
            client.machine = up[self.random.below(up.len() as u64) as usize];
        }
        let machine = client.machine;
        self.requests += 1;
        let (number_of, revision) = (self.requests, self.checks.revision());
        let reads_only = client.reads_only;
        let (request, ask) = clients::request(&mut self.random, number_of, revision, reads_only);
        let writes = !matches!(ask, Ask::Range(_) | Ask::Serializable(_));
        let id = request.map(|request| self.history.begin(self.queue.now, request));
        self.clients[number].pending = Some(Pending { id, writes });
        self.send(machine, Token { client: number, step }, ask);
        let patience = SECOND + self.random.below(6 * SECOND);
        self.queue.after(patience, What::Client(number, step));
        Ok(())
    }

    fn rest(&mut self, number: usize) {
        let flurry = self.queue.now < self.flurry_until;
        let rest = self.random.below(if flurry { self.plan.rest.min(FLURRY) } else { 2 * self.plan.rest });
        self.queue.after(rest, What::Client(number, self.clients[number].step));
    }

    fn answered(&mut self, token: Token, told: Told) -> Checked {
        if token.client == ADMIN {
            return self.admin_answered(token.step, &told);
        }
        if token.client >= self.clients.len() {
            return self.lessee_answered(token, &told);
        }
        let client = &mut self.clients[token.client];
        if client.step != token.step {
            return Ok(());
        }
        let Some(Pending { id, writes }) = client.pending.take() else { return Ok(()) };
        client.step += 1;
        match (id, clients::response(&told)) {
            (Some(id), Some(response)) => {
                self.history.finish(id, self.queue.now, response);
                if self.mended {
                    match writes {
                        true => client.done.0 += 1,
                        false => client.done.1 += 1,
                    }
                }
            }
            (Some(id), None) => self.history.fail(id),
            (None, _) => {}
        }
        self.rest(token.client);
        Ok(())
    }

    fn lessee(&mut self, number: usize, step: u64) -> Checked {
        let at = number - self.clients.len();
        let up = self.served();
        let World { lessees, random, checks, queue, .. } = self;
        let next = lessees[at].step(step, queue.now, &up, self.closed, random, checks)?;
        self.lessee_next(number, next);
        Ok(())
    }

    fn lessee_answered(&mut self, token: Token, told: &Told) -> Checked {
        let at = token.client - self.clients.len();
        let World { lessees, random, checks, queue, machines, .. } = self;
        let next = lessees[at].answered(token.step, told, queue.now, machines, random, checks)?;
        self.lessee_next(token.client, next);
        Ok(())
    }

    fn lessee_next(&mut self, number: usize, next: super::lessees::Next) {
        let step = self.lessees[number - self.clients.len()].at_step();
        if let Some((machine, ask)) = next.ask {
            self.send(machine, Token { client: number, step }, ask);
        }
        if let Some(delay) = next.after {
            self.queue.after(delay, What::Client(number, step));
        }
    }

    fn watcher(&mut self, number: usize, step: u64) -> Checked {
        if self.watchers[number].step != step {
            return Ok(());
        }
        let Some(((machine, life), stream)) = self.watchers[number].at else {
            return self.watch(number);
        };
        if self.starts[machine] != life || self.slots[machine].member.is_none() {
            self.watchers[number].at = None;
            return self.watch(number);
        }
        if self.slots[machine].paused_until > self.queue.now {
            let at = self.slots[machine].paused_until;
            self.queue.at(at, What::Watcher(number, step));
            return Ok(());
        }
        let lost = !self.mended && self.plan.may(Fault::WatchLoss) && self.random.one_in(150);
        let World { slots, watchers, checks, queue, random, .. } = self;
        let (watcher, slot) = (&mut watchers[number], &mut slots[machine]);
        let Some(member) = &mut slot.member else { return Ok(()) };
        if random.one_in(12) {
            let revision = member.shared.store.current_revision();
            member.hub.request_progress(stream, revision);
        }
        for _ in 0..1 + random.below(8) {
            let frame = member.hub.next(stream, &member.shared.store);
            let frame = frame.map_err(|error| Violation(format!("history cannot be read: {error}")))?;
            let Some(frame) = frame else { break };
            if !lost && !watcher.receive(&frame.to_message(), checks)? {
                member.hub.close_stream(stream);
                watcher.at = None;
                watcher.step += 1;
                queue.after(SECOND, What::Watcher(number, watcher.step));
                return Ok(());
            }
        }
        if lost {
            // The connection breaks: what was on its way is lost.
            self.tally.count(Fault::WatchLoss);
            member.hub.close_stream(stream);
            watcher.at = None;
            watcher.step += 1;
            // It comes back soon, or after a compaction perhaps.
            let away = if random.one_in(2) { SECOND } else { random.below(20 * SECOND) };
            queue.after(away, What::Watcher(number, watcher.step));
        } else if member.hub.has_more(stream) {
            queue.after(random.below(20 * MILLISECOND), What::Watcher(number, step));
        }
        Ok(())
    }

    /// Opens a watcher's stream on some member.
    fn watch(&mut self, number: usize) -> Checked {
        let up = self.served();
        self.watchers[number].step += 1;
        let step = self.watchers[number].step;
        if up.is_empty() {
            self.queue.after(SECOND, What::Watcher(number, step));
            return Ok(());
        }
        let machine = up[self.random.below(up.len() as u64) as usize];
        let who = (machine, self.starts[machine]);
        let Some(member) = &mut self.slots[machine].member else { return Ok(()) };
        let watcher = &mut self.watchers[number];
        let stream = member.hub.open_stream();
        let revision = member.shared.store.current_revision();
        member.hub.create(stream, watcher.request(), revision);
        watcher.at = Some((who, stream));
        self.queue.after(MILLISECOND, What::Watcher(number, step));
        Ok(())
    }
}
