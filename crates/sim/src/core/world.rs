//! Events, the network, and misfortune.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use node::{
    Body, Change, ChangeKind, ConfChangeV2, Effect, EntryKind, Input, Message, Node, NodeId, Proposal,
    ReadId, RoleKind, Transition,
};

use super::checker::Checker;
use super::member::{Member, Work};
use super::weather::{Fault, Tally, Weather};
use crate::Random;

/// Microseconds between two ticks of a good clock: etcd's heartbeat interval.
pub const TICK: u64 = 100_000;

/// Microseconds of silence after which a follower campaigns, at the least.
pub const ELECTION: u64 = 10 * TICK;

const MILLISECOND: u64 = 1_000;

/// What is to happen. Members are named by their place.
enum Event {
    Tick { at: usize, life: u64 },
    Arrive(Message),
    Synced { at: usize, life: u64 },
    Worked { at: usize, life: u64 },
    SnapshotSent { at: usize, life: u64, to: NodeId, arrived: bool },
    Gone { at: usize, life: u64, leader: NodeId },
    Resume { at: usize, life: u64, since: u64 },
    Start { at: usize },
    Flush { at: usize },
    Misfortune(Fault),
    Coup { at: usize, life: u64 },
    Heal,
    Write,
    Read,
}

/// Events by time; those of one moment in the order in which they were planned.
#[derive(Default)]
struct Agenda {
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    planned: u64,
}

impl Agenda {
    fn plan(&mut self, at: u64, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.planned += 1;
        self.order.push(Reverse((at, self.planned, slot)));
    }

    fn next(&mut self, end: u64) -> Option<(u64, Event)> {
        let Reverse((at, _, slot)) = *self.order.peek()?;
        if at > end {
            return None;
        }
        self.order.pop();
        self.free.push(slot);
        self.events[slot].take().map(|event| (at, event))
    }
}

/// One link, in one direction.
#[derive(Clone, Copy, Default)]
struct Link {
    cut: bool,
    /// When the last message that was not overtaken arrives.
    last: u64,
}

/// A cluster, its network and its clients, at one moment.
pub struct World {
    /// Microseconds since the beginning.
    pub now: u64,
    random: Random,
    weather: Weather,
    members: Vec<Member>,
    agenda: Agenda,
    links: Vec<Link>,
    checker: Checker,
    tally: Tally,
    writes: u64,
    reads: u64,
    events: u64,
    trace: u64,
    effects: Vec<Effect>,
    tell: Vec<Input>,
}

impl World {
    /// `voters` members that have been founded as a cluster, and `outsiders` that have not joined.
    pub fn new(seed: u64, voters: usize, outsiders: usize, weather: Weather) -> World {
        let mut random = Random::new(seed);
        let tune = random.next_u64();
        let count = voters + outsiders;
        let mut tally = Tally::default();
        let members = (0..count).map(|at| {
            let founders = if at < voters { voters as u64 } else { 0 };
            let mut tick = TICK;
            if weather.drift > 0 {
                tick = TICK - TICK * weather.drift / 1000 + random.below(2 * TICK * weather.drift / 1000 + 1);
                tally.count(Fault::Drift);
            }
            Member::new(NodeId(at as u64 + 1), founders, tune, tick)
        });
        let members: Vec<_> = members.collect();
        let mut world = World {
            now: 0,
            random,
            weather,
            members,
            agenda: Agenda::default(),
            links: vec![Link::default(); count * count],
            checker: Checker::new(voters as u64, outsiders == 0),
            tally,
            writes: 0,
            reads: 0,
            events: 0,
            trace: seed,
            effects: Vec::new(),
            tell: Vec::new(),
        };
        for at in 0..count {
            world.start(at);
            let first = world.random.below(2 * world.weather.flush + 1);
            world.agenda.plan(first, Event::Flush { at });
        }
        world.plan_weather();
        world
    }

    fn plan_weather(&mut self) {
        for fault in Fault::ALL {
            self.again(self.weather.mean(*fault), Event::Misfortune(*fault));
        }
        self.again(self.weather.write, Event::Write);
        self.again(self.weather.read, Event::Read);
    }

    /// Plans the next of a kind, unless its time is over.
    fn again(&mut self, mean: u64, event: Event) {
        if mean > 0 {
            let at = self.now + 1 + self.random.below(2 * mean);
            self.agenda.plan(at, event);
        }
    }

    /// Lets everything happen that is due within so many microseconds.
    pub fn run(&mut self, micros: u64) {
        let end = self.now + micros;
        while let Some((at, event)) = self.agenda.next(end) {
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        self.events += 1;
        match event {
            Event::Tick { at, life } if self.lives(at, life) => {
                let member = &self.members[at];
                if member.paused_until > self.now {
                    // Whatever waits for it is taken first, and ticks that were missed count as one.
                    return self.agenda.plan(member.paused_until + 1, Event::Tick { at, life });
                }
                self.agenda.plan(self.now + member.tick, Event::Tick { at, life });
                self.note(1, at as u64);
                self.input(at, Input::Tick);
            }
            Event::Arrive(message) => self.arrive(message),
            Event::Synced { at, life } if self.lives(at, life) => {
                if self.waits(at, || Event::Synced { at, life }) {
                    return;
                }
                if let Some(input) = self.members[at].synced() {
                    self.note(2, at as u64);
                    self.input(at, input);
                }
                if self.members[at].begin_sync() {
                    self.sync(at);
                }
            }
            Event::Worked { at, life } if self.lives(at, life) => {
                if self.waits(at, || Event::Worked { at, life }) {
                    return;
                }
                let mut tell = std::mem::take(&mut self.tell);
                self.members[at].do_work(&mut tell);
                for input in tell.drain(..) {
                    self.input(at, input);
                }
                self.tell = tell;
                self.checker.machine(&mut self.members[at]);
                self.note(3, self.members[at].machine.digest);
                if !self.members[at].work.is_empty() {
                    self.work(at);
                }
            }
            Event::SnapshotSent { at, life, to, arrived } if self.lives(at, life) => {
                self.input(at, Input::SnapshotSent { to, arrived });
            }
            Event::Gone { at, life, leader } if self.lives(at, life) => {
                self.input(at, Input::LeaderGone(leader));
            }
            Event::Resume { at, life, since } if self.lives(at, life) => {
                self.members[at].runs_since = self.now;
                // A member looks at its clock and knows. Nothing may rest on that.
                if self.now - since >= ELECTION && self.random.one_in(2) {
                    self.input(at, Input::Stalled);
                }
            }
            Event::Start { at } if self.members[at].node.is_none() => self.start(at),
            Event::Flush { at } => self.flush(at),
            Event::Misfortune(fault) => self.misfortune(fault),
            Event::Coup { at, life } if self.lives(at, life) => self.coup(at),
            Event::Heal => self.heal_links(),
            Event::Write => {
                let at = self.some_member();
                let count = 1 + self.random.below(4);
                self.write(at, count);
                self.again(self.weather.write, Event::Write);
            }
            Event::Read => {
                let at = self.some_member();
                self.read(at);
                self.again(self.weather.read, Event::Read);
            }
            // Of an earlier life.
            _ => {}
        }
    }

    /// Whether the member is in that life, and not down.
    fn lives(&self, at: usize, life: u64) -> bool {
        self.members[at].life == life && self.members[at].node.is_some()
    }

    /// Puts an event off to when the member goes on, if it stands still.
    fn waits(&mut self, at: usize, event: impl FnOnce() -> Event) -> bool {
        let until = self.members[at].paused_until;
        let waits = until > self.now;
        if waits {
            self.agenda.plan(until, event());
        }
        waits
    }

    fn note(&mut self, what: u64, detail: u64) {
        let mixed = self.trace ^ self.now.rotate_left(32) ^ what.rotate_left(56) ^ detail;
        self.trace = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn some_member(&mut self) -> usize {
        self.random.below(self.members.len() as u64) as usize
    }

    fn chance(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.one_in(one_in)
    }

    /// Gives one member something to handle, and sees to what follows from it.
    pub fn input(&mut self, at: usize, input: Input) {
        let Some(node) = &mut self.members[at].node else { return };
        let mut effects = std::mem::take(&mut self.effects);
        node.handle(input, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(at, effect);
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Persist(persist) => {
                if self.members[at].write(persist) {
                    self.sync(at);
                }
            }
            Effect::Send(messages) => messages.into_iter().for_each(|message| self.send(at, message)),
            Effect::Apply(entries) => {
                self.checker.handed(&self.members, at, &entries);
                self.queue(at, Work::Apply(entries));
            }
            Effect::Install(snapshot) => self.queue(at, Work::Install(snapshot)),
            Effect::ReadReady { id, index } => self.checker.read_ready(self.members[at].id, id, index),
            Effect::ReadDropped { id } => self.checker.read_dropped(self.members[at].id, id),
            Effect::SoftState { leader, role, term } => {
                self.note(4, term.0 ^ leader.map_or(0, |id| id.0).rotate_left(48));
                self.checker.soft_state(&self.members[at], self.now, leader, role, term);
                if role == RoleKind::Leader && self.chance(self.weather.coup) {
                    let (life, when) =
                        (self.members[at].life, self.now + self.random.below(10 * MILLISECOND));
                    self.agenda.plan(when, Event::Coup { at, life });
                }
            }
            Effect::ReadLog(read) => {
                self.tally.count(Fault::LogRead);
                // It is read now or later, and the answer comes later still.
                let work = match self.random.one_in(2) {
                    true => Work::Tell(self.members[at].disk.read(read)),
                    false => Work::ReadLog(read),
                };
                self.queue(at, work);
            }
            Effect::MakeSnapshot { to } => {
                if self.chance(self.weather.no_snapshot) {
                    self.tell_about_snapshot(at, to, false);
                } else {
                    self.queue(at, Work::Snapshot(to));
                }
            }
            Effect::Configured(_) | Effect::Dropped { .. } => {}
        }
    }

    /// Plans the end of the sync that a disk has begun.
    fn sync(&mut self, at: usize) {
        let member = &self.members[at];
        let (life, slow) = (member.life, member.slow_disk_until > self.now);
        let most = if slow { 2000 * MILLISECOND } else { 3 * MILLISECOND };
        let took = 200 + self.random.below(most);
        self.agenda.plan(self.now + took, Event::Synced { at, life });
    }

    fn queue(&mut self, at: usize, work: Work) {
        self.members[at].work.push_back(work);
        if self.members[at].work.len() == 1 {
            self.work(at);
        }
    }

    /// Plans the end of what the machine does next.
    fn work(&mut self, at: usize) {
        let member = &self.members[at];
        let (life, slow) = (member.life, member.slow_apply_until > self.now);
        let most = if slow { 2000 * MILLISECOND } else { MILLISECOND };
        let took = 20 + self.random.below(most);
        self.agenda.plan(self.now + took, Event::Worked { at, life });
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let count = self.members.len();
        &mut self.links[from * count + to]
    }

    fn place(&self, id: NodeId) -> usize {
        id.0 as usize - 1
    }

    fn send(&mut self, at: usize, message: Message) {
        self.checker.sent(&self.members[at], &message);
        let to = self.place(message.to);
        let is_snapshot = matches!(message.body, Body::Snapshot(_));
        let lost = self.chance(self.weather.lose);
        if lost {
            self.tally.count(Fault::Loss);
        }
        let lost = lost || self.link(at, to).cut;
        if is_snapshot {
            self.tally.count(Fault::Snapshot);
            self.tell_about_snapshot(at, message.to, !lost);
        }
        if lost {
            return;
        }
        if self.chance(self.weather.double) {
            self.tally.count(Fault::Duplicate);
            self.deliver(at, to, message.clone(), is_snapshot);
        }
        self.deliver(at, to, message, is_snapshot);
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message, is_snapshot: bool) {
        let mut arrives = self.now + 100 + self.random.below(2 * MILLISECOND);
        if is_snapshot {
            // By a road of its own.
            arrives += self.random.below(1000 * MILLISECOND);
            return self.agenda.plan(arrives, Event::Arrive(message));
        }
        if self.chance(self.weather.delay) {
            self.tally.count(Fault::Delay);
            arrives += self.random.below(1000 * MILLISECOND);
        }
        if self.chance(self.weather.reorder) {
            self.tally.count(Fault::Reorder);
            arrives += self.random.below(100 * MILLISECOND);
        } else {
            let link = self.link(from, to);
            arrives = arrives.max(link.last);
            link.last = arrives;
        }
        self.agenda.plan(arrives, Event::Arrive(message));
    }

    /// What became of a snapshot is reported late, or never.
    fn tell_about_snapshot(&mut self, at: usize, to: NodeId, arrived: bool) {
        if !arrived {
            self.tally.count(Fault::SnapshotLost);
        }
        if !self.random.one_in(3) {
            let life = self.members[at].life;
            let when = self.now + self.random.below(1500 * MILLISECOND);
            self.agenda.plan(when, Event::SnapshotSent { at, life, to, arrived });
        }
    }

    fn arrive(&mut self, message: Message) {
        let to = self.place(message.to);
        // Of a wish for a transfer, `from` is not who sent it.
        let from = self.place(message.from);
        if self.link(from, to).cut && message.body != Body::TransferLeader {
            return;
        }
        let member = &self.members[to];
        if member.node.is_none() {
            return;
        }
        if member.paused_until > self.now {
            // It waits in a buffer and is read first thing.
            return self.agenda.plan(member.paused_until, Event::Arrive(message));
        }
        self.note(5, message.term.0 ^ (message.from.0 << 40) ^ (message.to.0 << 48));
        self.input(to, Input::Receive(message));
    }

    fn flush(&mut self, at: usize) {
        let release = self.random.one_in(3);
        if self.members[at].node.is_some() && self.members[at].flush(release) {
            self.tally.count(Fault::Release);
        }
        self.again(self.weather.flush, Event::Flush { at });
    }

    fn misfortune(&mut self, fault: Fault) {
        let mean = self.weather.mean(fault);
        if mean == 0 {
            // It was planned before the sky cleared.
            return;
        }
        self.note(6, fault as u64);
        let at = self.some_member();
        match fault {
            Fault::Partition => self.partition(),
            Fault::OneWay => self.cut_some_links(),
            Fault::Crash => self.crash(at),
            Fault::Pause => self.pause(at),
            Fault::SlowDisk => {
                self.members[at].slow_disk_until = self.now + self.random.below(3 * ELECTION);
                self.tally.count(fault);
            }
            Fault::SlowApply => {
                self.members[at].slow_apply_until = self.now + self.random.below(3 * ELECTION);
                self.tally.count(fault);
            }
            Fault::Transfer => {
                let to = NodeId(self.some_member() as u64 + 1);
                self.input(at, Input::TransferLeader(to));
                self.input(at, Input::Unreachable(to));
                self.tally.count(fault);
            }
            Fault::Campaign => {
                self.input(at, Input::Campaign);
                self.tally.count(fault);
            }
            Fault::Change => self.change(),
            Fault::Hint => {
                if let Some(leader) = self.members[at].node.as_ref().and_then(Node::leader) {
                    self.input(at, Input::LeaderGone(leader));
                    self.tally.count(fault);
                }
            }
            _ => unreachable!("{} come with something else", fault.name()),
        }
        self.again(mean, Event::Misfortune(fault));
    }

    /// Two groups that do not hear each other; sometimes the old cut is only mended.
    fn partition(&mut self) {
        self.heal_links();
        if self.random.one_in(3) {
            return;
        }
        let sides = self.random.next_u64();
        let count = self.members.len();
        let side = |at: usize| sides >> at & 1;
        for (from, to) in pairs(count) {
            self.link(from, to).cut = side(from) != side(to);
        }
        self.tally.count(Fault::Partition);
    }

    fn cut_some_links(&mut self) {
        self.heal_links();
        if self.random.one_in(3) {
            return;
        }
        let harsh = 2 + self.random.below(4);
        for (from, to) in pairs(self.members.len()) {
            self.link(from, to).cut = self.random.one_in(harsh);
        }
        self.tally.count(Fault::OneWay);
    }

    /// Cuts just these links, each in one direction.
    pub fn cut(&mut self, links: &[(usize, usize)]) {
        self.heal_links();
        for (from, to) in links {
            self.link(*from, *to).cut = true;
        }
    }

    /// Mends all links.
    pub fn heal_links(&mut self) {
        self.links.iter_mut().for_each(|link| link.cut = false);
    }

    fn crash(&mut self, at: usize) {
        let chance = self.random.next_u64();
        if self.members[at].node.is_none() {
            return;
        }
        self.tally.count(Fault::Crash);
        let id = self.members[at].id;
        self.checker.crashed(id);
        let (torn, unsynced) = self.members[at].crash(chance);
        if torn {
            self.tally.count(Fault::Torn);
        }
        if unsynced {
            self.tally.count(Fault::Unsynced);
        }
        let down = self.random.below([MILLISECOND, 4 * ELECTION][chance as usize >> 1 & 1]);
        self.agenda.plan(self.now + down, Event::Start { at });
        // Its connections close. Not everybody notices.
        if self.random.one_in(2) {
            for other in 0..self.members.len() {
                let (life, when) = (self.members[other].life, self.now + self.random.below(MILLISECOND * 50));
                if other != at && !self.random.one_in(4) {
                    self.tally.count(Fault::Hint);
                    self.agenda.plan(when, Event::Gone { at: other, life, leader: id });
                }
            }
        }
    }

    /// A new leader has just begun to speak.
    fn coup(&mut self, at: usize) {
        self.tally.count(Fault::Coup);
        if self.random.one_in(2) {
            return self.crash(at);
        }
        for other in (0..self.members.len()).filter(|other| *other != at) {
            self.link(at, other).cut = true;
            self.link(other, at).cut = true;
        }
        let until = self.now + self.random.below(4 * ELECTION);
        self.agenda.plan(until, Event::Heal);
    }

    fn pause(&mut self, at: usize) {
        let until = self.now + 1 + self.random.below(3 * ELECTION);
        let (now, member) = (self.now, &mut self.members[at]);
        if member.node.is_some() && member.paused_until <= now {
            member.paused_until = until;
            self.tally.count(Fault::Pause);
            let life = member.life;
            self.agenda.plan(until, Event::Resume { at, life, since: now });
        }
    }

    fn start(&mut self, at: usize) {
        let seed = self.random.next_u64();
        self.members[at].start(seed);
        let (life, tick) = (self.members[at].life, self.members[at].tick);
        self.members[at].runs_since = self.now;
        let first = self.now + self.random.below(tick);
        self.agenda.plan(first, Event::Tick { at, life });
        self.input(at, Input::Unreachable(NodeId(0)));
    }

    fn change(&mut self) {
        let kinds = [ChangeKind::AddNode, ChangeKind::AddLearnerNode, ChangeKind::RemoveNode];
        let parts = 1 + self.random.below(3) / 2 * self.random.below(3);
        let changes = (0..parts).map(|_| Change {
            kind: kinds[self.random.below(3) as usize],
            node: NodeId(self.random.below(self.members.len() as u64) + 1),
        });
        let changes: Vec<_> = changes.collect();
        let ways = [Transition::Auto, Transition::Auto, Transition::JointImplicit, Transition::JointExplicit];
        let transition = ways[self.random.below(4) as usize];
        let leader = self.members.iter().position(Member::leads);
        let joint = |node: &Node| node.conf_state().is_joint();
        let to = leader.unwrap_or(0);
        // What is left by nobody itself is left by the next change.
        let leave = self.members[to].node.as_ref().is_some_and(joint) && self.random.one_in(2);
        let change = match leave {
            true => ConfChangeV2::default(),
            false => ConfChangeV2 { transition, changes, ..ConfChangeV2::default() },
        };
        self.tally.count(Fault::Change);
        self.propose_change(to, &change);
    }

    fn propose_change(&mut self, at: usize, change: &ConfChangeV2) {
        let data = change.encode().into();
        let proposal = Proposal { id: 0, kind: EntryKind::ConfChangeV2, data, only_in: None };
        self.input(at, Input::Propose(vec![proposal]));
    }

    /// Proposes so many entries at a member; some of them only for the term it believes in.
    pub fn write(&mut self, at: usize, count: u64) {
        let term = self.members[at].term();
        let bound = self.random.one_in(4);
        let proposals = (0..count).map(|_| {
            self.writes += 1;
            let data = self.writes.to_be_bytes().as_slice().into();
            if bound {
                self.checker.bind(self.writes, term);
            }
            Proposal { id: self.writes, kind: EntryKind::Normal, data, only_in: bound.then_some(term) }
        });
        let proposals = proposals.collect();
        self.input(at, Input::Propose(proposals));
    }

    /// Asks a member for a read index.
    pub fn read(&mut self, at: usize) {
        if self.members[at].node.is_some() {
            self.reads += 1;
            self.checker.asked(self.members[at].id, ReadId(self.reads));
            self.input(at, Input::ReadIndex(ReadId(self.reads)));
        }
    }

    /// The sky clears: everybody is up, every link works, every clock is right.
    pub fn clear(&mut self) {
        self.weather = Weather { flush: 4 * ELECTION, ..Weather::default() };
        self.heal_links();
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            (member.slow_disk_until, member.slow_apply_until) = (0, 0);
            member.tick = TICK;
            if member.node.is_none() {
                self.start(at);
            }
        }
        // Who stands still goes on in its own time, and a sync that was slow takes what it takes.
        let last = self.members.iter().map(|member| member.paused_until).max().unwrap_or(0);
        self.run(last.saturating_sub(self.now) + 2 * ELECTION);
        // What nobody leaves by itself.
        if let Some(at) = self.members.iter().position(Member::leads)
            && let Some(conf_state) = self.members[at].node.as_ref().map(|node| node.conf_state().clone())
            && conf_state.is_joint()
            && !conf_state.auto_leave
        {
            self.propose_change(at, &ConfChangeV2::default());
        }
    }

    /// The one who leads the newest term, if everybody in its configuration agrees.
    pub fn agreed_leader(&self) -> Option<usize> {
        let leads = self.members.iter().enumerate().filter(|(_, member)| member.leads());
        let (at, leader) = leads.max_by_key(|(_, member)| member.term())?;
        let conf_state = leader.node.as_ref()?.conf_state();
        let follows = |id: NodeId| {
            let other = self.members[self.place(id)].node.as_ref();
            other.and_then(Node::leader) == Some(leader.id)
        };
        conf_state.members().into_iter().all(follows).then_some(at)
    }

    /// How many entries anybody was told to apply.
    pub fn committed(&self) -> u64 {
        self.checker.committed()
    }

    /// A member's term.
    pub fn term(&self, at: usize) -> u64 {
        self.members[at].term().0
    }

    /// The largest part of the log, in bytes, that any member has in memory.
    pub fn log_bytes(&self) -> usize {
        let nodes = self.members.iter().filter_map(|member| member.node.as_ref());
        nodes.map(|node| node.status().log_bytes).max().unwrap_or(0)
    }

    /// Every member's status, for the message of a failure.
    pub fn picture(&self) -> String {
        let nodes = self.members.iter().filter_map(|member| member.node.as_ref());
        nodes.map(|node| format!("{:?}\n", node.status())).collect()
    }

    /// Compares all logs, and all machines.
    pub(crate) fn compare(&mut self) {
        self.checker.logs(&self.members);
        self.checker.reigns(&self.members, self.now);
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn checker(&self) -> &Checker {
        &self.checker
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace
    }
}

/// All links among so many members.
fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count * count).map(move |n| (n / count, n % count)).filter(|(from, to)| from != to)
}
