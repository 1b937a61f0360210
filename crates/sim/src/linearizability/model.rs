//! One copy of some keys, and what requests do to it: small numbers instead of bytes, so that a step of the
//! search is cheap.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::{Body, Compare, End, History, KeyValue, Order, Request, RequestId, Target};

/// A revision; that of a write whose client was never told is known only to be at least something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Revision {
    Exactly(i64),
    AtLeast(i64),
}

impl Revision {
    fn may_be(self, revision: i64) -> bool {
        match self {
            Revision::Exactly(known) => known == revision,
            Revision::AtLeast(least) => revision >= least,
        }
    }
}

/// A key that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cell {
    value: u32,
    created: Revision,
    changed: Revision,
    version: i64,
    lease: i64,
}

/// One copy of the keys of a part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) cells: Vec<Option<Cell>>,
    /// The highest revision that has been passed.
    pub(super) floor: i64,
}

/// A key as somebody saw it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    key: u32,
    value: u32,
    created: i64,
    changed: i64,
    version: i64,
    lease: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Op {
    Range(Vec<u32>),
    Put { key: u32, value: u32, lease: i64 },
    Delete(Vec<u32>),
    Txn { compare: Vec<Condition>, success: Vec<Op>, failure: Vec<Op> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Condition {
    key: u32,
    order: Order,
    target: ConditionTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ConditionTarget {
    Version(i64),
    Created(i64),
    Changed(i64),
    Value(u32),
}

#[derive(Clone, Debug)]
enum Answer {
    Range(Vec<Seen>),
    Put(Option<Option<Seen>>),
    Delete(i64, Option<Vec<Seen>>),
    Txn(bool, Vec<Answer>),
}

/// A request of a part.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: RequestId,
    pub(super) begun: u64,
    /// `None` where the outcome is unknown.
    pub(super) ended: Option<u64>,
    /// The revision of its answer, or the one at which its write was seen.
    pub(super) revision: Option<i64>,
    /// Calls without an answer that have the same number do the same.
    pub(super) alike: usize,
    op: Op,
    answer: Option<Answer>,
}

/// Requests that must be searched together.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) calls: Vec<Call>,
    keys: usize,
    /// Revisions at which keys of this part are known to have changed; and which did, if all is known.
    changes: BTreeMap<i64, BTreeSet<u32>>,
    complete: bool,
    /// Revisions of writes whose client was told, or that somebody saw, wherever.
    taken: Rc<BTreeSet<i64>>,
}

impl Part {
    pub(super) fn start(&self) -> State {
        State { cells: vec![None; self.keys], floor: 0 }
    }

    /// What may be after `call`; nothing if the answer that was given is impossible now.
    pub(super) fn step(&self, state: &State, call: &Call) -> Vec<State> {
        let mut outcomes = Vec::new();
        let written_at = match (call.revision, &call.answer) {
            (Some(revision), _) if revision < state.floor => return outcomes,
            (Some(revision), _) => Revision::Exactly(revision),
            (None, _) if !self.complete => match self.gap(state.floor) {
                Some(revision) => Revision::AtLeast(revision),
                None => return outcomes,
            },
            (None, _) => match self.changes.range(state.floor + 1..).next() {
                Some((&next, _)) => Revision::Exactly(next),
                None => return outcomes,
            },
        };
        run(state.clone(), &call.op, call.answer.as_ref(), written_at, &mut |mut next, wrote| {
            match written_at {
                Revision::Exactly(revision) if wrote => {
                    if revision <= state.floor
                        || self.skips_a_change(state.floor, revision)
                        || !self.may_change(state, &next, revision)
                    {
                        return;
                    }
                    next.floor = revision;
                }
                // What changes nothing has the revision that is.
                Revision::Exactly(revision) => {
                    if call.answer.is_some() {
                        if self.skips_a_change(state.floor, revision + 1) {
                            return;
                        }
                        next.floor = revision;
                    }
                }
                Revision::AtLeast(least) if wrote => next.floor = least,
                Revision::AtLeast(_) => {}
            }
            if call.answer.is_some() || wrote {
                outcomes.push(next);
            }
        });
        outcomes
    }

    /// The next revision that a write which nobody knows of can have had: one that is not taken, with nothing
    /// of this part in between.
    fn gap(&self, floor: i64) -> Option<i64> {
        let mut revision = floor.max(1) + 1;
        while self.taken.contains(&revision) {
            if self.changes.contains_key(&revision) {
                return None;
            }
            revision += 1;
        }
        Some(revision)
    }

    /// Whether what changes from one state to the next is what is known to have changed.
    fn may_change(&self, before: &State, after: &State, revision: i64) -> bool {
        if !self.complete {
            return true;
        }
        let pairs = before.cells.iter().zip(&after.cells).enumerate();
        let changed = pairs.filter(|(_, (before, after))| before != after).map(|(key, _)| key as u32);
        self.changes.get(&revision).is_some_and(|known| changed.eq(known.iter().copied()))
    }

    /// Whether nothing that is known to have changed lies between two floors: whoever is at the lower one
    /// can do all that can be done at the other.
    pub(super) fn is_as_good(&self, floor: i64, other: i64) -> bool {
        floor <= other && !self.skips_a_change(floor, other + 1)
    }

    /// Whether something is known to have changed between two revisions.
    fn skips_a_change(&self, floor: i64, revision: i64) -> bool {
        floor + 1 < revision && self.changes.range(floor + 1..revision).next().is_some()
    }
}

/// Runs one operation; tells every state it may lead to, and whether anything was written.
fn run(state: State, op: &Op, answer: Option<&Answer>, at: Revision, tell: &mut dyn FnMut(State, bool)) {
    let (mut state, mut wrote) = (state, false);
    match (op, answer) {
        (Op::Txn { compare, success, failure }, answer) => {
            let (told, answers) = match answer {
                Some(Answer::Txn(succeeded, answers)) => (Some(*succeeded), Some(answers)),
                Some(_) => return,
                None => (None, None),
            };
            let holds = all_hold(&state, compare);
            for branch in [true, false] {
                let ops = if branch { success } else { failure };
                if told.is_some_and(|told| told != branch) || holds.is_some_and(|holds| holds != branch) {
                    continue;
                }
                if answers.is_some_and(|answers| answers.len() != ops.len()) {
                    continue;
                }
                let answer = |i: usize| answers.map(|answers| &answers[i]);
                run_all(state.clone(), ops, &answer, 0, at, false, tell);
            }
        }
        (op, answer) => {
            if simple(&mut state, op, answer, at, &mut wrote) {
                tell(state, wrote);
            }
        }
    }
}

fn run_all<'a>(
    state: State,
    ops: &[Op],
    answer: &dyn Fn(usize) -> Option<&'a Answer>,
    from: usize,
    at: Revision,
    wrote: bool,
    tell: &mut dyn FnMut(State, bool),
) {
    match ops.get(from) {
        None => tell(state, wrote),
        Some(op) => run(state, op, answer(from), at, &mut |next, more| {
            run_all(next, ops, answer, from + 1, at, wrote || more, tell);
        }),
    }
}

/// Runs an operation that is no transaction. False if the answer is impossible.
fn simple(state: &mut State, op: &Op, answer: Option<&Answer>, at: Revision, wrote: &mut bool) -> bool {
    match (op, answer) {
        (Op::Range(_), None) => true,
        (Op::Range(keys), Some(Answer::Range(seen))) => matches(state, keys, seen),
        (Op::Put { key, value, lease }, answer) => {
            match answer {
                None | Some(Answer::Put(None)) => {}
                Some(Answer::Put(Some(previous))) => {
                    if !matches(state, &[*key], previous.as_slice()) {
                        return false;
                    }
                }
                Some(_) => return false,
            }
            let cell = &mut state.cells[*key as usize];
            let (created, version) = cell.map_or((at, 1), |cell| (cell.created, cell.version + 1));
            *cell = Some(Cell { value: *value, created, changed: at, version, lease: *lease });
            *wrote = true;
            true
        }
        (Op::Delete(keys), answer) => {
            let there = keys.iter().filter(|&&key| state.cells[key as usize].is_some()).count();
            match answer {
                None => {}
                Some(Answer::Delete(deleted, previous)) => {
                    if *deleted != there as i64 {
                        return false;
                    }
                    if let Some(previous) = previous
                        && !matches(state, keys, previous)
                    {
                        return false;
                    }
                }
                Some(_) => return false,
            }
            for &key in keys {
                state.cells[key as usize] = None;
            }
            *wrote = there > 0;
            true
        }
        _ => false,
    }
}

/// Whether exactly this can be seen under `keys`; from what is seen, unknown revisions become known.
fn matches(state: &mut State, keys: &[u32], seen: &[Seen]) -> bool {
    let mut seen = seen.iter();
    for &key in keys {
        let Some(cell) = &mut state.cells[key as usize] else { continue };
        let Some(found) = seen.next() else { return false };
        let same = found.key == key
            && found.value == cell.value
            && found.version == cell.version
            && found.lease == cell.lease
            && cell.created.may_be(found.created)
            && cell.changed.may_be(found.changed);
        if !same {
            return false;
        }
        cell.created = Revision::Exactly(found.created);
        cell.changed = Revision::Exactly(found.changed);
    }
    seen.next().is_none()
}

/// Whether all conditions hold, if that can be said.
fn all_hold(state: &State, compare: &[Condition]) -> Option<bool> {
    let mut certain = true;
    for condition in compare {
        match holds(state, condition) {
            Some(false) => return Some(false),
            Some(true) => {}
            None => certain = false,
        }
    }
    certain.then_some(true)
}

fn holds(state: &State, condition: &Condition) -> Option<bool> {
    let cell = state.cells[condition.key as usize];
    let known = |revision: Option<Revision>| match revision {
        None => Some(0),
        Some(Revision::Exactly(revision)) => Some(revision),
        Some(Revision::AtLeast(_)) => None,
    };
    let (left, right) = match condition.target {
        ConditionTarget::Version(right) => (cell.map_or(0, |cell| cell.version), right),
        ConditionTarget::Created(right) => (known(cell.map(|cell| cell.created))?, right),
        ConditionTarget::Changed(right) => (known(cell.map(|cell| cell.changed))?, right),
        ConditionTarget::Value(right) => {
            let same = cell.is_some_and(|cell| cell.value == right);
            return match (cell, condition.order) {
                (None, _) => Some(false),
                (_, Order::Equal) => Some(same),
                (_, Order::NotEqual) => Some(!same),
                _ => None,
            };
        }
    };
    Some(match condition.order {
        Order::Equal => left == right,
        Order::NotEqual => left != right,
        Order::Less => left < right,
        Order::Greater => left > right,
    })
}

/// Splits a history into parts that share no key.
pub(super) fn parts(history: &History) -> Vec<Part> {
    let names = all_keys(history);
    let index: HashMap<&[u8], u32> = names.iter().enumerate().map(|(i, key)| (&key[..], i as u32)).collect();
    let mut compiler = Compiler { names: &names, index, values: HashMap::new() };
    let mut joined = Joined((0..names.len()).collect());
    let mut calls = Vec::new();
    for (number, operation) in history.operations.iter().enumerate() {
        let (ended, response) = match &operation.end {
            End::Failed => continue,
            End::Unknown => (None, None),
            End::Told { at, response } => (Some(*at), Some(response)),
        };
        if response.is_none() && !may_write(&operation.request) {
            continue;
        }
        let seen = seen_at(history, &operation.request);
        if response.is_none() && seen.is_none() && history.all.is_some() && !may_delete(&operation.request) {
            // Everything that happened was seen.
            continue;
        }
        let op = compiler.op(&operation.request);
        let mut touched = BTreeSet::new();
        touches(&op, &mut touched);
        let Some(&first) = touched.first() else { continue };
        touched.iter().for_each(|&key| joined.join(first, key));
        let answer = response.map(|response| compiler.answer(&response.body));
        let revision = response.map(|response| response.revision).or(seen);
        let call =
            Call { id: RequestId(number), begun: operation.begun, ended, revision, alike: 0, op, answer };
        calls.push((first, call));
    }
    let mut parts: BTreeMap<usize, Vec<Call>> = BTreeMap::new();
    for (key, call) in calls {
        parts.entry(joined.root(key as usize)).or_default().push(call);
    }
    let mut changes: BTreeMap<usize, BTreeMap<i64, BTreeSet<u32>>> = BTreeMap::new();
    let mut changed = |key: &[u8], revision: i64| {
        if let Some(&key) = compiler.index.get(key) {
            let part = changes.entry(joined.root(key as usize)).or_default();
            part.entry(revision).or_default().insert(key);
        }
    };
    history.seen.iter().for_each(|((key, _), &revision)| changed(key, revision));
    for (&revision, keys) in history.all.iter().flatten() {
        keys.iter().for_each(|key| changed(key, revision));
    }
    let told = parts.values().flatten().filter(|call| call.answer.as_ref().is_some_and(wrote));
    let taken = history.seen.values().copied().chain(told.filter_map(|call| call.revision));
    let taken = Rc::new(taken.collect::<BTreeSet<i64>>());
    let mut list = Vec::new();
    for (root, calls) in parts {
        let mut changes = changes.remove(&root).unwrap_or_default();
        for call in calls.iter().filter(|call| call.answer.as_ref().is_some_and(wrote)) {
            changes.entry(call.revision.unwrap_or(0)).or_default();
        }
        let (complete, taken) = (history.all.is_some(), Rc::clone(&taken));
        list.push(Part { calls, keys: names.len(), changes, complete, taken }.compact());
    }
    list
}

/// Whether the answer tells of a change.
fn wrote(answer: &Answer) -> bool {
    match answer {
        Answer::Range(_) => false,
        Answer::Put(_) => true,
        Answer::Delete(deleted, _) => *deleted > 0,
        Answer::Txn(_, all) => all.iter().any(wrote),
    }
}

/// Which keys belong together.
struct Joined(Vec<usize>);

impl Joined {
    fn root(&mut self, key: usize) -> usize {
        let mut at = key;
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a as usize), self.root(b as usize));
        self.0[a] = b;
    }
}

impl Part {
    /// Numbers the keys of this part from 0.
    fn compact(mut self) -> Part {
        let mut touched = BTreeSet::new();
        self.calls.iter().for_each(|call| touches(&call.op, &mut touched));
        let numbers: HashMap<u32, u32> =
            touched.iter().enumerate().map(|(i, &key)| (key, i as u32)).collect();
        self.keys = touched.len();
        for keys in self.changes.values_mut() {
            *keys = keys.iter().filter_map(|key| numbers.get(key).copied()).collect();
        }
        for call in &mut self.calls {
            renumber_op(&mut call.op, &numbers);
            call.answer.iter_mut().for_each(|answer| renumber_answer(answer, &numbers));
        }
        self.find_alike();
        self
    }

    /// Numbers calls without an answer by what they do. What they put and nobody ever saw or asked for may as
    /// well be one and the same value.
    fn find_alike(&mut self) {
        let mut known = BTreeSet::new();
        for call in &self.calls {
            asked_for(&call.op, &mut known);
            call.answer.iter().for_each(|answer| answered_with(answer, &mut known));
        }
        let mut numbers: HashMap<(Op, Option<i64>), usize> = HashMap::new();
        for call in self.calls.iter_mut().filter(|call| call.answer.is_none()) {
            if call.revision.is_none() {
                forget_unseen(&mut call.op, &known);
            }
            let next = numbers.len();
            call.alike = *numbers.entry((call.op.clone(), call.revision)).or_insert(next);
        }
    }
}

/// Stands for every value that nobody ever saw.
const UNSEEN: u32 = u32::MAX;

fn asked_for(op: &Op, values: &mut BTreeSet<u32>) {
    if let Op::Txn { compare, success, failure } = op {
        values.extend(compare.iter().filter_map(|condition| match condition.target {
            ConditionTarget::Value(value) => Some(value),
            _ => None,
        }));
        success.iter().chain(failure).for_each(|op| asked_for(op, values));
    }
}

fn answered_with(answer: &Answer, values: &mut BTreeSet<u32>) {
    match answer {
        Answer::Range(all) | Answer::Delete(_, Some(all)) => values.extend(all.iter().map(|seen| seen.value)),
        Answer::Put(Some(Some(previous))) => {
            values.insert(previous.value);
        }
        Answer::Put(_) | Answer::Delete(..) => {}
        Answer::Txn(_, all) => all.iter().for_each(|answer| answered_with(answer, values)),
    }
}

fn forget_unseen(op: &mut Op, known: &BTreeSet<u32>) {
    match op {
        Op::Put { value, .. } if !known.contains(value) => *value = UNSEEN,
        Op::Put { .. } | Op::Range(_) | Op::Delete(_) => {}
        Op::Txn { success, failure, .. } => {
            success.iter_mut().chain(failure).for_each(|op| forget_unseen(op, known));
        }
    }
}

/// A key that an answer names and nobody asked for has no number; no state has it either.
const NO_KEY: u32 = u32::MAX;

fn renumber_op(op: &mut Op, numbers: &HashMap<u32, u32>) {
    match op {
        Op::Range(keys) | Op::Delete(keys) => keys.iter_mut().for_each(|key| *key = numbers[key]),
        Op::Put { key, .. } => *key = numbers[key],
        Op::Txn { compare, success, failure } => {
            compare.iter_mut().for_each(|condition| condition.key = numbers[&condition.key]);
            success.iter_mut().chain(failure).for_each(|op| renumber_op(op, numbers));
        }
    }
}

fn renumber_answer(answer: &mut Answer, numbers: &HashMap<u32, u32>) {
    let renumber = |seen: &mut Seen| seen.key = numbers.get(&seen.key).copied().unwrap_or(NO_KEY);
    match answer {
        Answer::Range(all) | Answer::Delete(_, Some(all)) => all.iter_mut().for_each(renumber),
        Answer::Put(Some(Some(previous))) => renumber(previous),
        Answer::Put(_) | Answer::Delete(..) => {}
        Answer::Txn(_, all) => all.iter_mut().for_each(|answer| renumber_answer(answer, numbers)),
    }
}

fn all_keys(history: &History) -> Vec<Vec<u8>> {
    let mut keys = BTreeSet::new();
    for operation in history.operations.iter().filter(|one| one.end != End::Failed) {
        named(&operation.request, &mut keys);
        if let End::Told { response, .. } = &operation.end {
            let mut seen = Vec::new();
            super::seen_in(&response.body, &mut seen);
            keys.extend(seen.into_iter().map(|seen| seen.key.clone()));
        }
    }
    keys.into_iter().collect()
}

fn named(request: &Request, keys: &mut BTreeSet<Vec<u8>>) {
    match request {
        Request::Range { key, end: None } | Request::Delete { key, end: None } | Request::Put { key, .. } => {
            keys.insert(key.clone());
        }
        Request::Range { .. } | Request::Delete { .. } => {}
        Request::Txn { compare, success, failure } => {
            keys.extend(compare.iter().map(|compare| compare.key.clone()));
            success.iter().chain(failure).for_each(|request| named(request, keys));
        }
    }
}

fn may_write(request: &Request) -> bool {
    match request {
        Request::Range { .. } => false,
        Request::Put { .. } | Request::Delete { .. } => true,
        Request::Txn { success, failure, .. } => success.iter().chain(failure).any(may_write),
    }
}

/// Whether it may change something without leaving a value that could be seen.
fn may_delete(request: &Request) -> bool {
    let puts = |list: &[Request]| list.iter().any(|request| matches!(request, Request::Put { .. }));
    match request {
        Request::Range { .. } | Request::Put { .. } => false,
        Request::Delete { .. } => true,
        Request::Txn { success, failure, .. } => {
            [success, failure].into_iter().any(|list| !puts(list) && list.iter().any(may_delete))
        }
    }
}

/// The revision at which what this request puts was seen.
fn seen_at(history: &History, request: &Request) -> Option<i64> {
    match request {
        Request::Put { key, value, .. } => history.seen.get(&(key.clone(), value.clone())).copied(),
        Request::Txn { success, failure, .. } => {
            success.iter().chain(failure).find_map(|request| seen_at(history, request))
        }
        Request::Range { .. } | Request::Delete { .. } => None,
    }
}

fn touches(op: &Op, into: &mut BTreeSet<u32>) {
    match op {
        Op::Range(keys) | Op::Delete(keys) => into.extend(keys),
        Op::Put { key, .. } => {
            into.insert(*key);
        }
        Op::Txn { compare, success, failure } => {
            into.extend(compare.iter().map(|condition| condition.key));
            success.iter().chain(failure).for_each(|op| touches(op, into));
        }
    }
}

/// From bytes to numbers.
struct Compiler<'a> {
    names: &'a [Vec<u8>],
    index: HashMap<&'a [u8], u32>,
    values: HashMap<Vec<u8>, u32>,
}

impl Compiler<'_> {
    fn value(&mut self, value: &[u8]) -> u32 {
        let next = self.values.len() as u32;
        *self.values.entry(value.to_vec()).or_insert(next)
    }

    fn range(&self, key: &[u8], end: Option<&Vec<u8>>) -> Vec<u32> {
        let Some(end) = end else { return vec![self.index[key]] };
        let first = self.names.partition_point(|name| &name[..] < key);
        let last = self.names.partition_point(|name| name < end);
        (first as u32..last as u32).collect()
    }

    fn op(&mut self, request: &Request) -> Op {
        match request {
            Request::Range { key, end } => Op::Range(self.range(key, end.as_ref())),
            Request::Delete { key, end } => Op::Delete(self.range(key, end.as_ref())),
            Request::Put { key, value, lease } => {
                Op::Put { key: self.index[&key[..]], value: self.value(value), lease: *lease }
            }
            Request::Txn { compare, success, failure } => Op::Txn {
                compare: compare.iter().map(|compare| self.condition(compare)).collect(),
                success: success.iter().map(|request| self.op(request)).collect(),
                failure: failure.iter().map(|request| self.op(request)).collect(),
            },
        }
    }

    fn condition(&mut self, compare: &Compare) -> Condition {
        let target = match &compare.target {
            Target::Version(right) => ConditionTarget::Version(*right),
            Target::CreateRevision(right) => ConditionTarget::Created(*right),
            Target::ModRevision(right) => ConditionTarget::Changed(*right),
            Target::Value(right) => ConditionTarget::Value(self.value(right)),
        };
        Condition { key: self.index[&compare.key[..]], order: compare.order, target }
    }

    fn seen(&mut self, kv: &KeyValue) -> Seen {
        Seen {
            key: self.index[&kv.key[..]],
            value: self.value(&kv.value),
            created: kv.create_revision,
            changed: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }

    fn answer(&mut self, body: &Body) -> Answer {
        match body {
            Body::Range(all) => Answer::Range(all.iter().map(|kv| self.seen(kv)).collect()),
            Body::Put { previous } => {
                Answer::Put(previous.as_ref().map(|previous| previous.as_ref().map(|kv| self.seen(kv))))
            }
            Body::Delete { deleted, previous } => {
                let previous = previous.as_ref();
                Answer::Delete(*deleted, previous.map(|all| all.iter().map(|kv| self.seen(kv)).collect()))
            }
            Body::Txn { succeeded, bodies } => {
                Answer::Txn(*succeeded, bodies.iter().map(|body| self.answer(body)).collect())
            }
        }
    }
}
