//! Starts members on what crashes leave, and compares them with the model.

use std::sync::Arc;

use mvcc::{KeyRange, RangeQuery};

use crate::crash::{Image, Shadow};
use crate::disk::Disk;
use crate::member::{Member, Plan, Stopped};
use crate::model::Model;
use crate::random::Random;
use crate::workload::Workload;

/// The state after each entry of a log.
#[derive(Clone, Debug, Default)]
pub struct History {
    states: Vec<(u64, Arc<Model>)>,
}

impl History {
    /// The state after the entry at `index`.
    pub fn at(&self, index: u64) -> Arc<Model> {
        let after = self.states.partition_point(|(at, _)| *at <= index);
        after.checked_sub(1).map(|last| self.states[last].1.clone()).unwrap_or_default()
    }

    /// Takes in what a member wrote to its log: the entries of a new life overwrite what they follow.
    pub fn extend(&mut self, member: &Member) {
        self.states.retain(|(index, _)| *index <= member.recovered());
        for (index, data) in member.written() {
            let mut state = Model::clone(&self.at(index - 1));
            state.apply(data);
            self.states.push((*index, Arc::new(state)));
        }
    }

    /// The last index.
    pub fn last(&self) -> u64 {
        self.states.last().map_or(0, |(index, _)| *index)
    }
}

/// Runs lives of a member and counts what was tried.
#[derive(Debug)]
pub struct Check {
    /// The sizes of every member.
    pub plan: Plan,
    /// Images on which a member was started and compared.
    pub images: u64,
    /// Of these, images of a crash during or after the recovery from another crash.
    pub second: u64,
    /// Of these, images that held less than had been proposed: something unacknowledged was lost.
    pub shorter: u64,
}

/// How thoroughly crashes of one life are tried.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Images at each call that is looked at.
    pub images: usize,
    /// One in so many calls is looked at.
    pub calls: u64,
    /// One in so many images is also crashed again, while it recovers and goes on; 0 for none.
    pub again: u64,
    /// Also every image with exactly one thing let through, or exactly one lost.
    pub singles: bool,
}

impl Check {
    /// Nothing tried yet.
    pub fn new(plan: Plan) -> Check {
        Check { plan, images: 0, second: 0, shorter: 0 }
    }

    /// One life from an empty disk, and then every crash of it that `effort` asks for. A failure is described
    /// so that it can be found again.
    pub fn life(&mut self, seed: u64, commands: u64, effort: Effort) -> Result<(), String> {
        let disk = Disk::new(&Image::default());
        let mut random = Random::new(seed);
        let mut member =
            Member::start(&disk, &self.plan, seed).map_err(|e| format!("first start: {}", e.0))?;
        live(&mut member, &mut random, commands, seed).map_err(|e| format!("first life: {}", e.0))?;
        let mut history = History::default();
        history.extend(&member);
        compare(&member, &history.at(member.applied()), &mut random)?;
        drop(member);
        self.crash(&Image::default(), &disk, &history, 0, effort, &mut random)
    }

    /// Tries crashes at the calls that `disk` has recorded since it held `start`.
    fn crash(
        &mut self,
        start: &Image,
        disk: &Disk,
        history: &History,
        acknowledged: u64,
        effort: Effort,
        random: &mut Random,
    ) -> Result<(), String> {
        let mut shadow = Shadow::new(start, disk);
        let mut call = 0;
        while shadow.advance() {
            call += 1;
            if !random.one_in(effort.calls) {
                continue;
            }
            let some = shadow.images(effort.images, random);
            let singles = shadow.single_images().filter(|_| effort.singles);
            for (number, image) in some.into_iter().chain(singles).enumerate() {
                let told = shadow.acknowledged().max(acknowledged);
                let again = effort.again > 0 && random.one_in(effort.again);
                let seed = random.next_u64();
                self.recover(&image, history, told, again, seed)
                    .map_err(|what| format!("crash after call {call}, image {number}: {what}"))?;
            }
        }
        Ok(())
    }

    /// Starts a member on what a crash left; compares; goes on; compares again. With `again`, crashes it too.
    pub fn recover(
        &mut self,
        image: &Image,
        history: &History,
        acknowledged: u64,
        again: bool,
        seed: u64,
    ) -> Result<(), String> {
        self.images += 1;
        let mut random = Random::new(seed);
        let disk = Disk::new(image);
        let mut member = Member::start(&disk, &self.plan, seed).map_err(|e| format!("recovery: {}", e.0))?;
        let (first, last) = (member.recovered(), history.last());
        if first < acknowledged {
            return Err(format!("entry {acknowledged} was acknowledged, the log ends at {first}"));
        }
        // A start that failed may have left the empty entry that its term would have begun with.
        if first > last.max(1) + 1 {
            return Err(format!("the log ends at entry {first}, but only {last} were ever written"));
        }
        self.shorter += u64::from(first < last);
        compare(&member, &history.at(first), &mut random)?;

        let commands = 1 + random.below(6);
        live(&mut member, &mut random, commands, seed).map_err(|e| format!("next life: {}", e.0))?;
        let mut longer = history.clone();
        longer.extend(&member);
        compare(&member, &longer.at(member.applied()), &mut random)?;
        drop(member);
        if again {
            let before = self.images;
            let effort = Effort { images: 4, calls: 4, again: 0, singles: false };
            self.crash(image, &disk, &longer, acknowledged, effort, &mut random)
                .map_err(|what| format!("{what}, in the life after it"))?;
            self.second += self.images - before;
        }
        Ok(())
    }
}

/// Lets a member live: commands in batches, and the work in the background, in an order that chance decides.
pub fn live(member: &mut Member, random: &mut Random, commands: u64, seed: u64) -> Result<(), Stopped> {
    let mut workload = Workload::new(seed);
    let mut left = commands;
    while left > 0 {
        match random.below(8) {
            0 => member.flush()?,
            1 => member.compact()?,
            _ => {
                let batch = (1 + random.below(5)).min(left);
                left -= batch;
                let revision = member.shared().store.current_revision();
                let batch: Vec<_> = (0..batch).map(|_| workload.command(revision)).collect();
                member.propose(&batch);
                // Now and then the next batch is proposed while this one is still being written.
                if !random.one_in(4) {
                    member.write()?;
                    if !random.one_in(4) {
                        member.settle()?;
                    }
                }
            }
        }
    }
    member.settle()
}

/// Whether a member that has applied all that it has is in this state.
pub fn compare(member: &Member, model: &Model, random: &mut Random) -> Result<(), String> {
    let store = &member.shared().store;
    let is = |what: &str, found: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
        let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
        if found == wanted { Ok(()) } else { Err(format!("{what} is {found}, not {wanted}")) }
    };
    is("the revision", &store.current_revision(), &model.revision)?;
    is("the compacted revision", &store.compact_revision(), &model.compacted)?;
    let oldest = model.compacted.max(1);
    let older = oldest + random.below((model.revision - oldest + 1) as u64) as i64;
    for revision in [model.revision, older] {
        let query = RangeQuery { revision, ..RangeQuery::new(KeyRange::all()) };
        let found = store.range(&query).map_err(|e| format!("range at {revision}: {e}"))?;
        let found: Vec<_> = found.records.iter().map(mvcc::Record::decode).collect();
        let wanted = model.at(revision);
        if found != wanted {
            return Err(format!("at revision {revision} there is {found:?}, not {wanted:?}"));
        }
    }
    let hash = store.hash_kv(0).map_err(|e| format!("hash: {e}"))?;
    is("the hash", &hash.hash, &model.hash())?;
    let lessor = member.shared().lessor.lock();
    let mut leases = Vec::new();
    for id in lessor.list() {
        let mut keys: Vec<Vec<u8>> =
            lessor.keys(id).unwrap_or_default().into_iter().map(<[u8]>::to_vec).collect();
        keys.sort();
        leases.push((id.0, keys));
    }
    leases.sort();
    let wanted: Vec<_> = model
        .leases()
        .into_iter()
        .map(|(id, keys)| (id, keys.iter().map(|k| k.to_vec()).collect::<Vec<_>>()))
        .collect();
    is("the lease list", &leases, &wanted)
}
