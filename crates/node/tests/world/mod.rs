//! A cluster of the shipping driver under a bad sky: one seed, one history.
//!
//! Disks lose what they had not synced, or tear it; messages are lost, doubled, delayed and
//! overtaken; links are cut one way or both; members crash, pause, and tick too fast or too slowly;
//! machines lag; members come and go. [`checker`] watches all of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod checker;
pub mod server;

use checker::Checker;
use node::*;
use server::Server;
use std::collections::{BTreeMap, BTreeSet};

/// SplitMix64, as in the crate under test; there are not many ways to write it.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// How bad the sky is: one in so many; zero is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub lose: u64,
    pub double: u64,
    pub max_delay: u64,
    pub cut: u64,
    pub crash: u64,
    pub pause: u64,
    pub slow_disk: u64,
    pub slow_apply: u64,
    pub drift: u64,
    pub change: u64,
    pub transfer: u64,
    pub write: u64,
    pub read: u64,
    pub flush: u64,
}

pub struct World {
    pub dice: Dice,
    pub now: u64,
    pub weather: Weather,
    pub servers: BTreeMap<NodeId, Server>,
    /// Messages by the moment they arrive.
    network: BTreeMap<(u64, u64), Message>,
    sent: u64,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub checker: Checker,
    writes: u64,
    reads: u64,
}

pub const ELECTION_TICKS: u64 = 10;

impl World {
    /// `voters` members that have been started as a new cluster, and as many `outsiders` that have
    /// not joined.
    pub fn new(seed: u64, voters: u64, outsiders: u64, weather: Weather) -> World {
        let mut dice = Dice(seed);
        let tune = dice.roll();
        let mut servers = BTreeMap::new();
        for id in 1..=voters + outsiders {
            let founders = if id <= voters { voters } else { 0 };
            servers.insert(NodeId(id), Server::new(NodeId(id), founders, dice.roll(), tune));
        }
        let mut world = World {
            dice,
            now: 0,
            weather,
            servers,
            network: BTreeMap::new(),
            sent: 0,
            cut: BTreeSet::new(),
            checker: Checker::new(voters, outsiders == 0),
            writes: 0,
            reads: 0,
        };
        for id in world.ids() {
            world.start(id);
        }
        world
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.servers.keys().copied().collect()
    }

    pub fn server(&mut self, id: NodeId) -> &mut Server {
        self.servers.get_mut(&id).unwrap()
    }

    /// One tick of the world.
    pub fn step(&mut self) {
        self.now += 1;
        self.misfortune();
        self.clients();
        // Messages before timers, as the server does.
        while let Some(entry) = self.network.first_entry().filter(|e| e.key().0 <= self.now) {
            let message = entry.remove();
            self.arrive(message);
        }
        for id in self.ids() {
            self.work(id);
            let ticks = match self.dice.below(self.weather.drift * 2) {
                _ if self.weather.drift == 0 => 1,
                0 => 0,
                1 => 2,
                _ => 1,
            };
            let now = self.now;
            let server = self.server(id);
            if server.paused_until > now {
                continue;
            }
            let was_paused = std::mem::take(&mut server.was_paused);
            if was_paused && self.dice.one_in(2) {
                self.input(id, Input::Stalled);
            }
            for _ in 0..ticks {
                self.input(id, Input::Tick);
            }
        }
    }

    /// The disk and the machine of one member do what is due.
    fn work(&mut self, id: NodeId) {
        let now = self.now;
        while let Some(input) = self.server(id).next_due(now) {
            self.input(id, input);
        }
        let flush = self.dice.one_in(self.weather.flush);
        let release = self.dice.one_in(3);
        if flush {
            self.server(id).flush(release);
        }
    }

    pub fn input(&mut self, id: NodeId, input: Input) {
        let server = self.servers.get_mut(&id).unwrap();
        let Some(node) = &mut server.node else { return };
        let mut effects = Vec::new();
        node.handle(input, &mut effects);
        for effect in effects {
            self.carry_out(id, effect);
        }
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Persist(persist) => {
                let slow = self.delay(self.weather.slow_disk);
                self.server(id).disk_gets(now + slow, persist);
            }
            Effect::Send(messages) => messages.into_iter().for_each(|m| self.send(id, m)),
            Effect::Apply(entries) => {
                let slow = self.delay(self.weather.slow_apply);
                let server = self.servers.get_mut(&id).unwrap();
                self.checker.handed(server, &entries);
                for entry in &entries {
                    self.checker.durable_on_quorum(&self.servers, entry);
                }
                self.server(id).machine_gets(now + slow, server::Work::Apply(entries));
            }
            Effect::Install(snapshot) => {
                let slow = self.delay(self.weather.slow_apply);
                self.server(id).machine_gets(now + slow, server::Work::Install(snapshot));
            }
            Effect::ReadReady { id: read, index } => self.checker.read_ready(id, read, index),
            Effect::ReadDropped { id: read } => self.checker.read_dropped(id, read),
            Effect::SoftState { leader, role, term } => {
                let server = &self.servers[&id];
                self.checker.soft_state(server, leader, role, term);
            }
            Effect::MakeSnapshot { to } => match self.dice.one_in(8) && self.weather.lose > 0 {
                true => self.server(id).machine_gets(now + 3, server::Work::NoSnapshot(to)),
                false => self.server(id).machine_gets(now, server::Work::Snapshot(to)),
            },
            Effect::ReadLog(read) => {
                let slow = self.delay(self.weather.slow_apply);
                self.server(id).machine_gets(now + slow, server::Work::ReadLog(read));
            }
            Effect::Configured(_) | Effect::Dropped { .. } => {}
        }
    }

    fn delay(&mut self, one_in: u64) -> u64 {
        if self.dice.one_in(one_in) { 1 + self.dice.below(2 * ELECTION_TICKS) } else { 0 }
    }

    fn send(&mut self, from: NodeId, message: Message) {
        self.checker.sent(&self.servers[&from], &message);
        let copies = if self.dice.one_in(self.weather.double) { 2 } else { 1 };
        for _ in 0..copies {
            let lost = self.dice.one_in(self.weather.lose) || self.cut.contains(&(from, message.to));
            if matches!(message.body, Body::Snapshot(_)) {
                self.tell_about_snapshot(from, message.to, !lost);
            }
            if !lost {
                let at = self.now + 1 + self.dice.below(self.weather.max_delay + 1);
                self.sent += 1;
                self.network.insert((at, self.sent), message.clone());
            }
        }
    }

    /// What became of a snapshot is reported late, or never.
    fn tell_about_snapshot(&mut self, from: NodeId, to: NodeId, arrived: bool) {
        if !self.dice.one_in(3) {
            let at = self.now + 2 + self.dice.below(self.weather.max_delay + 1);
            self.server(from).machine_gets(at, server::Work::Sent(to, arrived));
        }
    }

    fn arrive(&mut self, message: Message) {
        let to = message.to;
        let now = self.now;
        if self.cut.contains(&(message.from, to)) && message.body != Body::TransferLeader {
            return;
        }
        let until = self.server(to).paused_until;
        if until > now {
            // It waits in a buffer and is read first thing.
            self.sent += 1;
            self.network.insert((until, self.sent), message);
            return;
        }
        self.input(to, Input::Receive(message));
    }

    fn misfortune(&mut self) {
        let w = self.weather;
        let ids = self.ids();
        let id = self.dice.pick(&ids);
        if self.dice.one_in(w.crash) {
            let torn = self.dice.roll();
            self.checker.crashed(id);
            self.server(id).crash(torn);
        }
        if self.dice.one_in(4) && self.servers[&id].node.is_none() {
            self.start(id);
        }
        if self.dice.one_in(w.pause) {
            let until = self.now + 1 + self.dice.below(3 * ELECTION_TICKS);
            let server = self.server(id);
            (server.paused_until, server.was_paused) = (until, true);
        }
        if self.dice.one_in(w.cut) {
            self.cut.clear();
            let harsh = 1 + self.dice.below(4);
            for a in &ids {
                for b in &ids {
                    if a != b && self.dice.one_in(harsh + 1) {
                        self.cut.insert((*a, *b));
                    }
                }
            }
            if self.dice.one_in(3) {
                self.cut.clear();
            }
        }
        if self.dice.one_in(w.transfer) {
            let to = self.dice.pick(&ids);
            self.input(id, Input::TransferLeader(to));
            self.input(to, Input::Unreachable(id));
        }
        if self.dice.one_in(w.transfer) {
            self.input(id, Input::Campaign);
        }
    }

    pub fn start(&mut self, id: NodeId) {
        let seed = self.dice.roll();
        self.server(id).start(seed);
    }

    fn clients(&mut self) {
        let ids = self.ids();
        if self.dice.one_in(self.weather.write) {
            let to = self.dice.pick(&ids);
            let count = 1 + self.dice.below(4);
            self.write(to, count);
        }
        if self.dice.one_in(self.weather.read) {
            let to = self.dice.pick(&ids);
            self.read(to);
        }
        if self.dice.one_in(self.weather.change) {
            let change = self.some_change(&ids);
            let data = change.encode().into();
            let leaders: Vec<_> = ids
                .iter()
                .copied()
                .filter(|id| self.servers[id].leads())
                .chain(ids.first().copied())
                .collect();
            let to = self.dice.pick(&leaders);
            let proposal = Proposal { id: 0, kind: EntryKind::ConfChangeV2, data, only_in: None };
            self.input(to, Input::Propose(vec![proposal]));
        }
    }

    fn some_change(&mut self, ids: &[NodeId]) -> ConfChangeV2 {
        let kinds = [ChangeKind::AddNode, ChangeKind::AddLearnerNode, ChangeKind::RemoveNode];
        let parts = 1 + self.dice.below(3) / 2 * self.dice.below(3);
        let changes = (0..parts).map(|_| Change { kind: self.dice.pick(&kinds), node: self.dice.pick(ids) });
        let changes = changes.collect();
        let transition = self.dice.pick(&[Transition::Auto, Transition::Auto, Transition::JointImplicit]);
        ConfChangeV2 { transition, changes, ..ConfChangeV2::default() }
    }

    pub fn write(&mut self, to: NodeId, count: u64) {
        let proposals = (0..count).map(|_| {
            self.writes += 1;
            let data = self.writes.to_be_bytes().as_slice().into();
            Proposal { id: self.writes, kind: EntryKind::Normal, data, only_in: None }
        });
        let proposals = proposals.collect();
        self.input(to, Input::Propose(proposals));
    }

    pub fn read(&mut self, to: NodeId) {
        if self.servers[&to].node.is_some() {
            self.reads += 1;
            self.checker.asked(to, ReadId(self.reads));
            self.input(to, Input::ReadIndex(ReadId(self.reads)));
        }
    }

    /// The sky clears: everybody is up, every link works.
    pub fn heal(&mut self) {
        self.weather = Weather::default();
        self.cut.clear();
        for id in self.ids() {
            self.server(id).paused_until = 0;
            if self.servers[&id].node.is_none() {
                self.start(id);
            }
        }
    }

    /// Every member's status, for the message of a failure.
    pub fn picture(&self) -> String {
        let nodes = self.servers.values().filter_map(|server| server.node.as_ref());
        nodes.map(|node| format!("{:?}\n", node.status())).collect()
    }

    /// The one who leads the newest term, if everybody in its configuration agrees.
    pub fn agreed_leader(&self) -> Option<NodeId> {
        let leads = |id: &&NodeId| self.servers[id].leads();
        let term = |id: &&NodeId| self.servers[id].node.as_ref().map(|n| n.hard_state().term);
        let leader = *self.servers.keys().filter(leads).max_by_key(term)?;
        let members = self.servers[&leader].node.as_ref()?.conf_state().members();
        let agree = |id: &NodeId| self.servers[id].node.as_ref().and_then(Node::leader) == Some(leader);
        members.iter().all(agree).then_some(leader)
    }
}
