//! Three members have six directed links. Whichever of them are cut, in all 64 ways: as long as two
//! members hear each other writes go on, and once all links work again one leader is agreed on.
#![allow(clippy::unwrap_used)]

use node::{Input, NodeId};
use sim::core::{ELECTION, TICK, Weather, World};

const LINKS: [(usize, usize); 6] = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];

fn cut_by(mask: u32) -> Vec<(usize, usize)> {
    (0..6).filter(|bit| mask >> bit & 1 == 1).map(|bit| LINKS[bit]).collect()
}

/// Writes at every member, every tick; true if some are committed in time.
fn writes_go_on(world: &mut World, within: u64) -> bool {
    let before = world.committed();
    (0..within / TICK).any(|_| {
        (0..3).for_each(|at| world.write(at, 1));
        world.run(TICK);
        world.committed() > before + 2
    })
}

fn heals_within(world: &mut World, within: u64) -> bool {
    (0..within / TICK).any(|_| {
        world.run(TICK);
        world.agreed_leader().is_some()
    })
}

/// Three members, of whom the one at `leader` leads, if there is one.
fn cluster(seed: u64, leader: Option<usize>) -> World {
    let mut world = World::new(seed, 3, 0, Weather::default());
    if let Some(leader) = leader {
        world.run(2 * TICK);
        world.input(leader, Input::Campaign);
        world.run(ELECTION);
        assert_eq!(world.agreed_leader(), Some(leader));
    }
    world
}

const LEADERS: [Option<usize>; 4] = [None, Some(0), Some(1), Some(2)];

/// R5: no cut, however long, leaves the members unable to agree.
#[test]
fn all_64_link_masks_heal_to_one_leader_within_ten_election_timeouts() {
    let mut longest = 0;
    for (mask, (leader, ticks)) in (0..64).flat_map(|mask| {
        LEADERS.into_iter().flat_map(|leader| [5, 30, 100].map(|t| (leader, t))).map(move |l| (mask, l))
    }) {
        let mut world = cluster(u64::from(mask) * 31 + ticks, leader);
        world.cut(&cut_by(mask));
        world.run(ticks * TICK);
        world.heal_links();
        let healed = world.now;
        let agreed = heals_within(&mut world, 10 * ELECTION);
        assert!(agreed, "mask {mask:06b}, leader {leader:?}:\n{}", world.picture());
        longest = longest.max(world.now - healed);
        assert!(writes_go_on(&mut world, ELECTION), "mask {mask:06b}, leader {leader:?}");
        // And it stays: nobody has a reason to campaign again.
        let chosen = world.agreed_leader();
        world.run(5 * ELECTION);
        assert_eq!(world.agreed_leader(), chosen, "mask {mask:06b}, leader {leader:?}");
    }
    println!("longest: {:.1} election timeouts", longest as f64 / ELECTION as f64);
}

/// R19: some majority that hears each other is enough, whatever else is cut and in which direction.
#[test]
fn writes_go_on_while_any_majority_is_fully_connected() {
    for mask in 0..64 {
        let cut = cut_by(mask);
        let works = |a, b| !cut.contains(&(a, b)) && !cut.contains(&(b, a));
        if !works(0, 1) && !works(0, 2) && !works(1, 2) {
            continue;
        }
        for leader in LEADERS {
            let mut world = cluster(u64::from(mask) * 37, leader);
            world.cut(&cut);
            // Again and again, not just until those who led before have noticed.
            for _ in 0..3 {
                let go_on = writes_go_on(&mut world, 10 * ELECTION);
                assert!(go_on, "mask {mask:06b}, leader {leader:?}:\n{}", world.picture());
                world.run(2 * ELECTION);
            }
        }
    }
}

/// Thesis §9.6: with PreVote a member that was cut off comes back without raising anybody's term.
#[test]
fn a_member_that_returns_does_not_depose_the_leader() {
    let mut world = cluster(5, Some(0));
    world.cut(&[(2, 0), (0, 2), (2, 1), (1, 2)]);
    world.run(20 * ELECTION);
    let term = world.term(0);
    world.heal_links();
    world.run(5 * ELECTION);
    assert_eq!(world.agreed_leader(), Some(0));
    assert_eq!(world.term(0), term);
}

/// A hint that the leader's process has ended spares the wait for its silence; a false one, given to
/// everybody, costs an election at most, and nobody is lost.
#[test]
fn whoever_is_told_that_the_leader_is_gone_replaces_it_at_once() {
    for seed in 0..200 {
        let mut world = cluster(seed, Some(seed as usize % 3));
        let leader = world.agreed_leader().unwrap();
        let others: Vec<_> = (0..3).filter(|at| *at != leader).collect();
        let cuts: Vec<_> = others.iter().flat_map(|at| [(leader, *at), (*at, leader)]).collect();
        world.cut(&cuts);
        let hint = || Input::LeaderGone(NodeId(leader as u64 + 1));
        // The second is told a little later than the first, in either order.
        let (first, second) = if seed % 2 == 0 { (0, 1) } else { (1, 0) };
        world.input(others[first], hint());
        world.run(seed % 50 * 1000);
        world.input(others[second], hint());
        let before = world.committed();
        world.run(5 * TICK);
        let begun = world.committed() > before;
        assert!(begun, "seed {seed}: no new leader within half a second\n{}", world.picture());
    }
    let mut world = cluster(1, Some(0));
    (1..3).for_each(|at| world.input(at, Input::LeaderGone(NodeId(1))));
    assert!(heals_within(&mut world, ELECTION));
    let chosen = world.agreed_leader();
    world.run(10 * ELECTION);
    assert_eq!(world.agreed_leader(), chosen);
}

/// R20: with one member away for ten minutes of writing, what the others hold in memory stays bounded.
#[test]
fn a_member_that_is_away_costs_no_memory() {
    for seed in 0..6 {
        let mut world = cluster(seed, Some(0));
        world.cut(&[(2, 0), (0, 2), (2, 1), (1, 2)]);
        let mut most = 0;
        for _ in 0..6000 {
            world.write(0, 4);
            world.run(TICK);
            most = most.max(world.log_bytes());
        }
        assert!(world.committed() > 5000, "only {} entries", world.committed());
        // A thousand entries are kept for those who are a little behind, and some wait for the machine.
        assert!(most < 200_000, "{most} bytes of log in memory");
    }
}
