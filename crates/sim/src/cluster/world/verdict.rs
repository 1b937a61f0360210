//! What must hold of all members together: now and then, when things were mended, and in the end.

use std::collections::BTreeSet;

use super::World;
use crate::cluster::checks::{self, Checked, Violation, ensure};
use crate::cluster::member::{Member, What};
use crate::cluster::plan::{MILLISECOND, SECOND};
use crate::linearizability::Figures;

/// Steps that the search for an order may take, for one history.
const SEARCH: usize = 2_000_000;

impl World {
    /// Members compare what they have at a revision that all are likely to have.
    pub(super) fn compare(&mut self) -> Checked {
        let revision = self.checks.revision() / 16 * 16;
        for slot in &self.slots {
            if let Some(member) = &slot.member
                && revision > 1
            {
                self.checks.compare_hash(member.id, &member.shared.store, revision)?;
            }
            // Where raft has been told what is applied, it goes by the machine's configuration (E1).
            if let Some(member) = &slot.member
                && member.pump.applied() == member.machine.applied().0
                && member.log.begin() <= member.pump.applied().0
            {
                checks::agree(member.id, member.pump.node().conf_state(), member.machine.conf_state())?;
            }
        }
        // Watchers whose member went away come back; those that are idle look.
        for (number, watcher) in self.watchers.iter().enumerate() {
            if self.random.one_in(4) {
                self.queue.after(MILLISECOND, What::Watcher(number, watcher.step));
            }
        }
        let next = 3 * SECOND + self.random.below(4 * SECOND);
        self.queue.after(next, What::Compare);
        Ok(())
    }

    /// A healed majority must have made progress, and every client with it.
    pub(crate) fn has_made_progress(&self) -> Checked {
        if self.waits_for_the_removed() {
            return Ok(());
        }
        let up: BTreeSet<usize> = self.up().into_iter().collect();
        for (number, client) in self.clients.iter().enumerate() {
            let (writes, reads) = client.done;
            ensure!(
                writes + reads > 0,
                "no progress: client {number} got nothing since things were mended; up are {up:?}, {}",
                self.picture()
            );
        }
        Ok(())
    }

    /// Whether somebody who is up needs, as far as it knows, the vote of members that were removed and are gone
    /// for good: those left when one of two members went before it could say that this is committed.
    /// etcd knows no way out of that either, but to begin anew with one member.
    pub(super) fn waits_for_the_removed(&self) -> bool {
        let conf = self.checks.conf_at(self.checks.last());
        let gone = |id: &&node::NodeId| self.machines.get(&id.0).is_none_or(|at| self.slots[*at].gone);
        let waits = |member: &Member| {
            let voters = &member.machine.conf_state().voters;
            voters.iter().filter(gone).count() * 2 >= voters.len() && !voters.is_empty()
        };
        let members = self.slots.iter().filter_map(|slot| slot.member.as_deref());
        members.filter(|member| conf.voters.iter().any(|id| id.0 == member.id)).any(waits)
    }

    pub(crate) fn picture(&self) -> String {
        let members = self.slots.iter().filter_map(|slot| slot.member.as_deref());
        let lines = members.map(|member| {
            let status = member.pump.status();
            format!(
                "\n  member {}: {:?} in term {}, leader {:?}, last {}, commit {}, applied {}, {:?}",
                member.id,
                status.role,
                status.hard_state.term,
                status.leader,
                status.last,
                status.hard_state.commit,
                member.machine.applied().0,
                status.conf_state
            )
        });
        lines.collect()
    }

    /// In the end everybody has everything, and it is what it should be.
    pub(super) fn is_at_rest(&mut self) -> Checked {
        if self.waits_for_the_removed() {
            return Ok(());
        }
        let conf = self.checks.conf_at(self.checks.last()).clone();
        let last = self.checks.last();
        let expected = self.checks.model.hash();
        for slot in &self.slots {
            let Some(member) = &slot.member else { continue };
            let part = conf.voters.iter().chain(&conf.learners).any(|id| id.0 == member.id);
            if !part {
                continue;
            }
            let applied = member.machine.applied().0.0;
            ensure!(
                applied == last,
                "member {} has applied {applied} of {last}{}",
                member.id,
                self.picture()
            );
            let found = member.shared.store.hash_kv(0).map_err(|error| Violation(error.to_string()))?;
            ensure!(
                found.hash == expected,
                "member {} has hash {:x} in the end, it should be {expected:x}",
                member.id,
                found.hash
            );
            let leases = member.shared.lessor.lock().len();
            ensure!(leases == 0, "member {} still has {leases} leases, long after their time", member.id);
        }
        self.watchers_have_all()
    }

    /// Watchers get what is left. At a member that has applied everything that is all there is: they need not
    /// wait for the next change to hear of the last one.
    pub(super) fn watchers_have_all(&mut self) -> Checked {
        let last = self.checks.last();
        for number in 0..self.watchers.len() {
            let Some(((machine, life), stream)) = self.watchers[number].at else { continue };
            if self.starts[machine] != life {
                continue;
            }
            let World { slots, watchers, checks, .. } = self;
            let Some(member) = &mut slots[machine].member else { continue };
            if member.machine.applied().0.0 != last {
                continue;
            }
            let mut going = true;
            for _ in 0..10_000 {
                let frame = member.hub.next(stream, &member.shared.store);
                match frame.map_err(|error| Violation(error.to_string()))? {
                    Some(frame) => going &= watchers[number].receive(&frame.to_message(), checks)?,
                    None if !member.hub.has_more(stream) => break,
                    None => {}
                }
                if !going {
                    break;
                }
            }
            if going {
                watchers[number].has_all(checks)?;
            }
        }
        Ok(())
    }

    pub(super) fn is_linearizable(&mut self) -> Result<Figures, Violation> {
        for changes in self.checks.changes.values() {
            for change in changes.iter().filter(|change| !change.tombstone) {
                self.history.saw(&change.key, &change.kv.value, change.kv.mod_revision);
            }
        }
        let all = self.checks.changes.iter();
        self.history.know_all(
            all.flat_map(|(revision, changes)| changes.iter().map(|change| (*revision, change.key.to_vec()))),
        );
        match self.history.check(SEARCH) {
            Ok(figures) => Ok(figures),
            Err(violation) => Err(Violation(format!("clients' history: {violation}"))),
        }
    }
}
