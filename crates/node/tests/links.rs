//! Three members have six directed links. Whichever of them are cut, in all 64 ways: as long as two
//! members hear each other writes go on, and once all links work again one leader is agreed on.
#![allow(clippy::unwrap_used)]

mod world;

use node::*;
use std::collections::BTreeSet;
use world::{ELECTION_TICKS, Weather, World};

const LINKS: [(u64, u64); 6] = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)];

fn cut_by(mask: u32) -> BTreeSet<(NodeId, NodeId)> {
    let cut = (0..6).filter(|bit| mask >> bit & 1 == 1).map(|bit| LINKS[bit as usize]);
    cut.map(|(a, b)| (NodeId(a), NodeId(b))).collect()
}

fn run(world: &mut World, ticks: u64) {
    (0..ticks).for_each(|_| world.step());
}

/// Writes at every member, every tick; true if one is committed in time.
fn writes_go_on(world: &mut World, within: u64) -> bool {
    let before = world.checker.committed.len();
    (0..within).any(|_| {
        world.ids().into_iter().for_each(|id| world.write(id, 1));
        world.step();
        world.checker.committed.len() > before + 2
    })
}

/// Three members, of whom `leader` leads, if it is one of them.
fn cluster(seed: u64, leader: u64) -> World {
    let mut world = World::new(seed, 3, 0, Weather::default());
    if leader > 0 {
        run(&mut world, 2);
        world.input(NodeId(leader), Input::Campaign);
        run(&mut world, 10);
        assert_eq!(world.agreed_leader(), Some(NodeId(leader)));
    }
    world
}

#[test]
fn all_64_link_masks_heal_to_one_leader_within_ten_election_timeouts() {
    for mask in 0..64 {
        for leader in 0..=3 {
            for length in [5, 30, 100] {
                let mut world = cluster(u64::from(mask) * 31 + leader, leader);
                world.cut = cut_by(mask);
                run(&mut world, length);
                world.cut.clear();
                let agreed = (0..10 * ELECTION_TICKS).any(|_| {
                    world.step();
                    world.agreed_leader().is_some()
                });
                assert!(agreed, "mask {mask:06b}, leader {leader}:\n{}", world.picture());
                assert!(writes_go_on(&mut world, ELECTION_TICKS), "mask {mask:06b}, leader {leader}");
                // And it stays: nobody has a reason to campaign again.
                let chosen = world.agreed_leader();
                run(&mut world, 5 * ELECTION_TICKS);
                assert_eq!(world.agreed_leader(), chosen, "mask {mask:06b}, leader {leader}");
            }
        }
    }
}

#[test]
fn writes_go_on_while_any_majority_is_fully_connected() {
    for mask in 0..64 {
        let cut = cut_by(mask);
        let works = |a, b| !cut.contains(&(NodeId(a), NodeId(b))) && !cut.contains(&(NodeId(b), NodeId(a)));
        if !works(1, 2) && !works(1, 3) && !works(2, 3) {
            continue;
        }
        for leader in 0..=3 {
            let mut world = cluster(u64::from(mask) * 37 + leader, leader);
            world.cut.clone_from(&cut);
            // Again and again, not just until those who led before have noticed.
            for _ in 0..3 {
                let go_on = writes_go_on(&mut world, 10 * ELECTION_TICKS);
                assert!(go_on, "mask {mask:06b}, leader {leader}:\n{}", world.picture());
                run(&mut world, 2 * ELECTION_TICKS);
            }
        }
    }
}

#[test]
fn a_member_that_returns_does_not_depose_the_leader() {
    let mut world = cluster(5, 1);
    let others = [(3, 1), (1, 3), (3, 2), (2, 3)];
    world.cut = others.into_iter().map(|(a, b)| (NodeId(a), NodeId(b))).collect();
    run(&mut world, 20 * ELECTION_TICKS);
    let term = world.servers[&NodeId(1)].node.as_ref().unwrap().hard_state().term;
    world.cut.clear();
    run(&mut world, 5 * ELECTION_TICKS);
    assert_eq!(world.agreed_leader(), Some(NodeId(1)));
    assert_eq!(world.servers[&NodeId(1)].node.as_ref().unwrap().hard_state().term, term);
}
