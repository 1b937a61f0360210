//! Many bad days. A failing seed is replayed by `SEED=n cargo test -p node --test simulation`, and
//! `SEEDS=n` tries more of them.
#![allow(clippy::unwrap_used)]

mod world;

use world::{Dice, ELECTION_TICKS, Weather, World};

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (_, count) => 0..count.unwrap_or(default),
    }
}

/// Says which seed it was.
struct Named(&'static str, u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={} cargo test -p node --test simulation {}", self.1, self.0);
        }
    }
}

fn bad_weather(dice: &mut Dice) -> Weather {
    let mut some = |mild: u64| [0, mild, mild / 4][dice.below(3) as usize];
    Weather {
        lose: some(20),
        double: some(20),
        max_delay: some(12),
        cut: some(60),
        crash: some(60),
        pause: some(100),
        slow_disk: some(8),
        slow_apply: some(8),
        drift: some(10),
        change: 0,
        transfer: some(80),
        write: 2,
        read: 3,
        flush: some(40),
    }
}

/// A bad phase, in which only safety counts; then a clear sky, under which things must go on.
fn live(world: &mut World, ticks: u64) {
    for _ in 0..ticks {
        world.step();
        world.checker.machines(&mut world.servers);
    }
    world.checker.logs(&world.servers);
    world.heal();
    let mut patience = 30 * ELECTION_TICKS;
    while world.agreed_leader().is_none() {
        patience -= 1;
        assert!(patience > 0, "no leader long after all was well again:\n{}", world.picture());
        world.step();
    }
    // Writes get through, to everyone, and so do reads. One may still meet a transfer.
    let leader = world.agreed_leader().unwrap();
    for id in world.ids() {
        world.read(id);
    }
    let before = world.checker.committed.len();
    for tick in 0..12 * ELECTION_TICKS {
        if tick < 6 * ELECTION_TICKS && tick % ELECTION_TICKS == 0 {
            let leader = world.agreed_leader().unwrap_or(leader);
            world.write(leader, 1);
        }
        world.step();
    }
    // The narrowest window lets one entry through per round trip and look at the disk, and a member may have joined just
    // now: it gets time for the whole log.
    let whole = world.servers[&leader].node.as_ref().unwrap().status().last.0;
    for _ in 0..6 * whole {
        world.step();
    }
    let after = world.checker.committed.len();
    assert!(after >= before + 3, "nothing is committed any more:\n{}", world.picture());
    assert_eq!(world.checker.open_reads(), 0, "a question without an answer");
    let leader = world.agreed_leader().unwrap();
    let machine = world.servers[&leader].machine.clone();
    for id in machine.conf_state.members() {
        let other = &world.servers[&id].machine;
        assert_eq!(
            (other.applied, other.digest),
            (machine.applied, machine.digest),
            "{id} lags:\n{}",
            world.picture()
        );
    }
    world.checker.machines(&mut world.servers);
    world.checker.logs(&world.servers);
}

#[test]
fn fixed_clusters_keep_every_promise() {
    let mut reads = 0;
    for seed in seeds(150) {
        let _named = Named("fixed", seed);
        let mut dice = Dice(seed ^ 0xf1);
        let weather = bad_weather(&mut dice);
        let size = [1, 2, 3, 3, 5][(seed % 5) as usize];
        let mut world = World::new(seed, size, 0, weather);
        live(&mut world, 500);
        reads += world.checker.reads_answered;
    }
    assert!(reads > 100, "only {reads} reads were answered");
}

#[test]
fn changing_clusters_keep_every_promise() {
    for seed in seeds(150) {
        let _named = Named("changing", seed);
        let mut dice = Dice(seed ^ 0xc4);
        let weather = Weather { change: 6, ..bad_weather(&mut dice) };
        let founders = [1, 3, 3, 4][(seed % 4) as usize];
        let mut world = World::new(seed, founders, 3, weather);
        live(&mut world, 600);
    }
}
