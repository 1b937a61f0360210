//! One seed, from beginning to end.

use super::weather::{Tally, Weather};
use super::world::{ELECTION, TICK, World};
use crate::Random;

/// What is to be lived through.
#[derive(Clone, Debug)]
pub struct Life {
    /// Decides everything.
    pub seed: u64,
    /// How many members are founded, or as the seed says.
    pub members: Option<usize>,
    /// Seconds of bad weather, or as the seed says.
    pub seconds: Option<u64>,
}

/// What was lived through.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Simulated microseconds.
    pub micros: u64,
    /// Things that happened.
    pub events: u64,
    /// Entries that were committed.
    pub committed: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Leaders that were elected.
    pub elections: u64,
    /// Misfortunes.
    pub tally: Tally,
    /// The same for the same seed, and hardly for any other.
    pub trace: u64,
}

impl Life {
    /// The life that `seed` names.
    pub fn of(seed: u64) -> Life {
        Life { seed, members: None, seconds: None }
    }

    /// Lives it.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn live(&self) -> Report {
        let mut random = Random::new(self.seed ^ 0x005e_ed0f_11fe);
        let voters = self.members.unwrap_or([3, 3, 5, 5, 3, 1, 2, 4, 7][random.below(9) as usize]);
        // Alone, a member has no links that could be cut: others are to join it.
        let outsiders = if voters == 1 || random.one_in(3) { 1 + random.below(3) as usize } else { 0 };
        let weather = Weather::bad(&mut random, outsiders > 0);
        let seconds = self.seconds.unwrap_or(60 + random.below(200));
        let mut world = World::new(self.seed, voters, outsiders, weather);
        for _ in 0..seconds / 10 {
            world.run(10_000_000);
            world.compare();
        }
        world.clear();
        go_on(&mut world);
        hand_over_to_nobody(&mut world);
        Report {
            micros: world.now,
            events: world.events(),
            committed: world.committed(),
            reads: world.checker().reads_answered,
            elections: world.checker().elections,
            tally: world.tally().clone(),
            trace: world.trace(),
        }
    }
}

/// Under a clear sky things must go on.
fn go_on(world: &mut World) {
    let healed = world.now;
    while world.agreed_leader().is_none() {
        assert!(
            world.now < healed + 20 * ELECTION,
            "nobody leads, long after all is well:\n{}",
            world.picture()
        );
        world.run(TICK);
    }
    // Writes get through, to everyone, and so do reads. One may still meet a transfer.
    (0..world.members().len()).for_each(|at| world.read(at));
    let leaves = |conf_state: &node::ConfState| !conf_state.is_joint() || !conf_state.auto_leave;
    let before = world.committed();
    for _ in 0..6 {
        if let Some(leader) = world.agreed_leader() {
            world.write(leader, 1);
        }
        world.run(ELECTION);
    }
    assert!(world.committed() >= before + 3, "nothing is committed any more:\n{}", world.picture());
    assert_eq!(world.checker().open_reads(), 0, "a question without an answer");
    // The narrowest window lets one entry through per round trip and look at the disk.
    let patience = world.now + 10 * ELECTION + world.committed() * TICK / 2;
    while let Some(lagging) = lagging(world) {
        assert!(world.now < patience, "member {lagging} lags:\n{}", world.picture());
        world.run(TICK);
    }
    let left = world.members().iter().all(|member| !member.leads() || leaves(&member.machine.conf_state));
    assert!(left, "a joint configuration was not left:\n{}", world.picture());
    world.compare();
}

/// A leader that is asked to hand over to somebody who is not there gives up, and leads on (R18).
fn hand_over_to_nobody(world: &mut World) {
    let Some(leader) = world.agreed_leader() else { return };
    let voters = world.members()[leader].machine.conf_state.voters.clone();
    let others = voters.iter().map(|id| id.0 as usize - 1).find(|at| *at != leader);
    let Some(absent) = others.filter(|_| voters.len() >= 3) else { return };
    let all = 0..world.members().len();
    let cut: Vec<_> = all.filter(|at| *at != absent).flat_map(|at| [(at, absent), (absent, at)]).collect();
    world.cut(&cut);
    world.input(leader, node::Input::TransferLeader(node::NodeId(absent as u64 + 1)));
    world.run(2 * ELECTION);
    let before = world.committed();
    for _ in 0..3 {
        world.write(leader, 1);
        world.run(ELECTION / 2);
    }
    assert!(world.committed() > before, "a transfer to nobody is not given up:\n{}", world.picture());
}

/// A member of the leader's configuration that has not applied what the leader has.
fn lagging(world: &World) -> Option<u64> {
    let leader = &world.members()[world.agreed_leader()?];
    let members = leader.machine.conf_state.members();
    let lags = |id: &node::NodeId| {
        let other = &world.members()[id.0 as usize - 1].machine;
        (other.applied, other.digest) != (leader.machine.applied, leader.machine.digest)
    };
    members.into_iter().find(lags).map(|id| id.0)
}
