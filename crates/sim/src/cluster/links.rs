//! A cluster whose links are cut, any of them in either direction, and work again.

use super::Plan;
use super::checks::{Violation, ensure};
use super::plan::{MILLISECOND, SECOND, Time};
use super::world::World;

/// Cuts links between the machines of a cluster that works, from one to another each, for a while; how
/// long it then takes until all members go by one leader. Clients write all along, and must be able to soon
/// after that.
///
/// # Errors
/// If that takes more than ten election timeouts, or something else is wrong, in words.
pub fn heal(seed: u64, members: usize, cut: &[(usize, usize)], lasts: Time) -> Result<Time, String> {
    let plan = Plan {
        members,
        clients: 3,
        readers: 0,
        lease_clients: 0,
        watchers: 0,
        rest: SECOND / 2,
        faults: Vec::new(),
        ..Plan::of(seed)
    };
    healed(&mut World::of(plan, seed), cut, lasts).map_err(|violation| violation.0)
}

fn healed(world: &mut World, cut: &[(usize, usize)], lasts: Time) -> Result<Time, Violation> {
    world.begin();
    world.until(6 * SECOND)?;
    ensure!(world.agreed_leader().is_some(), "nobody leads{}", world.picture());
    for (from, to) in cut {
        world.network.link(*from, *to).cut = true;
    }
    world.until(world.queue.now + lasts)?;
    world.network.heal();
    world.mended = true;
    let mended = world.queue.now;
    while world.agreed_leader().is_none() {
        world.until(world.queue.now + 10 * MILLISECOND)?;
        let late = world.queue.now - mended > 10 * world.plan.election_timeout();
        ensure!(
            !late,
            "links {cut:?} were cut for {lasts} us, and no leader is agreed on{}",
            world.picture()
        );
    }
    let agreed = world.queue.now;
    // Clients have patience with what they asked while nobody could answer.
    world.until(agreed + 10 * SECOND)?;
    world.has_made_progress()?;
    Ok(agreed - mended)
}

impl World {
    /// Whom all members take for the leader, itself included.
    fn agreed_leader(&self) -> Option<u64> {
        let mut members = self.slots.iter().filter_map(|slot| slot.member.as_deref());
        let first = members.next()?;
        let agree = members.all(|member| (member.leader, member.term) == (first.leader, first.term));
        Some(first.leader).filter(|leader| agree && *leader != 0)
    }
}
