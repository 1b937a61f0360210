//! The search for an order.

use std::collections::{HashMap, HashSet};

use super::RequestId;
use super::model::{Call, Cell, Part, State};

/// Why there is none.
pub(super) enum Stuck {
    OutOfSteps(usize),
    NoOrder { done: Vec<RequestId>, next: Vec<RequestId> },
}

/// One decision: which call came next, and what else could have.
struct Choice {
    /// The call that was taken to come here; none at the beginning.
    taken: Option<usize>,
    state: State,
    /// What may come next and was not tried yet, last first.
    rest: Vec<(usize, State)>,
}

struct Search<'a> {
    part: &'a Part,
    /// Calls in order of their beginning, those with an answer and those without apart.
    answered: Vec<usize>,
    unknown: Vec<usize>,
    placed: Vec<bool>,
    /// All of `answered` before this are placed.
    first: usize,
    /// What was tried: which answered calls are placed, as a sum of random marks, and what the keys are;
    /// for each the revisions and the calls without an answer that it took.
    tried: HashMap<(u128, Vec<Option<Cell>>), Vec<Tried>>,
    marks: u128,
    /// Which calls without an answer are placed, a bit for each.
    spent: Vec<u64>,
}

/// How a place in the search was reached. With more spent, or at a later revision with nothing known to have
/// changed in between, no more is possible from the same place.
struct Tried {
    floor: i64,
    spent: Vec<u64>,
}

impl Tried {
    fn covers(&self, part: &Part, floor: i64, spent: &[u64]) -> bool {
        part.is_as_good(self.floor, floor)
            && self.spent.iter().zip(spent).all(|(mine, theirs)| mine & !theirs == 0)
    }
}

/// Finds an order, in at most `max_steps` steps; returns how many it took.
pub(super) fn search(part: &Part, max_steps: usize) -> Result<usize, Stuck> {
    let sorted = |answered: bool| {
        let calls = 0..part.calls.len();
        let mut list: Vec<usize> = calls.filter(|&i| part.calls[i].ended.is_some() == answered).collect();
        list.sort_by_key(|&i| part.calls[i].begun);
        list
    };
    let mut search = Search {
        part,
        answered: sorted(true),
        unknown: sorted(false),
        placed: vec![false; part.calls.len()],
        first: 0,
        tried: HashMap::new(),
        marks: 0,
        spent: Vec::new(),
    };
    search.spent = vec![0; search.unknown.len().div_ceil(64)];
    let mut steps = 0;
    let start = part.start();
    let rest = search.next(&start, &mut steps);
    let mut path = vec![Choice { taken: None, state: start, rest }];
    let (mut furthest, mut stuck_at) = (Vec::new(), Vec::new());
    while let Some(top) = path.last_mut() {
        if search.is_done() {
            return Ok(steps);
        }
        if steps > max_steps {
            return Err(Stuck::OutOfSteps(steps));
        }
        if let Some((call, state)) = top.rest.pop() {
            search.place(call);
            if !search.is_new(&state) {
                search.take_back(call);
                continue;
            }
            let rest = search.next(&state, &mut steps);
            path.push(Choice { taken: Some(call), state, rest });
            if path.len() > furthest.len() + 1 {
                furthest = path.iter().filter_map(|choice| choice.taken).collect();
                stuck_at = search.candidates();
            }
            continue;
        }
        if let Some(choice) = path.pop() {
            drop(choice.state);
            choice.taken.iter().for_each(|&call| search.take_back(call));
        }
    }
    let names = |list: Vec<usize>| list.into_iter().map(|i| part.calls[i].id).collect();
    Err(Stuck::NoOrder { done: names(furthest), next: names(stuck_at) })
}

impl Search<'_> {
    fn is_done(&self) -> bool {
        self.first == self.answered.len()
    }

    /// Calls that no answered one precedes, among those that are not placed: those with known
    /// revisions first and in their order, since nearly always that is the order.
    fn candidates(&self) -> Vec<usize> {
        let mut limit = u64::MAX;
        let mut list = Vec::new();
        let call = |i: usize| &self.part.calls[i];
        for &i in self.answered[self.first..].iter().filter(|&&i| !self.placed[i]) {
            if call(i).begun > limit {
                break;
            }
            list.push(i);
            limit = limit.min(call(i).ended.unwrap_or(u64::MAX));
        }
        list.retain(|&i| call(i).begun <= limit);
        // Of those that do the same, the first to begin can do whatever a later one could.
        let mut alike = HashSet::new();
        let unknown = self.unknown.iter().copied().take_while(|&i| call(i).begun <= limit);
        list.extend(unknown.filter(|&i| !self.placed[i] && alike.insert(call(i).alike)));
        list.sort_by_key(|&i| {
            let Call { revision, ended, .. } = call(i);
            (revision.is_none(), *revision, ended.is_none(), i)
        });
        list
    }

    /// What may come next, the likeliest last.
    fn next(&mut self, state: &State, steps: &mut usize) -> Vec<(usize, State)> {
        let mut list = Vec::new();
        for i in self.candidates() {
            *steps += 1;
            list.extend(self.part.step(state, &self.part.calls[i]).into_iter().map(|next| (i, next)));
        }
        list.reverse();
        list
    }

    /// Whether this place, with what it took to come here, promises more than any before.
    fn is_new(&mut self, state: &State) -> bool {
        let tried = self.tried.entry((self.marks, state.cells.clone())).or_default();
        if tried.iter().any(|tried| tried.covers(self.part, state.floor, &self.spent)) {
            return false;
        }
        tried.push(Tried { floor: state.floor, spent: self.spent.clone() });
        true
    }

    /// Where the bit of a call without an answer is.
    fn bit(&self, call: usize) -> Option<(usize, u64)> {
        let begun = |i: usize| (self.part.calls[i].begun, i);
        let at = self.unknown.binary_search_by_key(&begun(call), |&i| begun(i)).ok()?;
        Some((at / 64, 1 << (at % 64)))
    }

    fn place(&mut self, call: usize) {
        self.placed[call] = true;
        match self.bit(call) {
            Some((word, bit)) => self.spent[word] |= bit,
            None => self.marks ^= mark(call),
        }
        while self.answered.get(self.first).is_some_and(|&i| self.placed[i]) {
            self.first += 1;
        }
    }

    fn take_back(&mut self, call: usize) {
        self.placed[call] = false;
        match self.bit(call) {
            Some((word, bit)) => self.spent[word] &= !bit,
            None => self.marks ^= mark(call),
        }
        if let Ok(at) = self
            .answered
            .binary_search_by_key(&(self.part.calls[call].begun, call), |&i| (self.part.calls[i].begun, i))
        {
            self.first = self.first.min(at);
        }
    }
}

/// A number that stands for a call; sums of these are as good as different for different sets.
fn mark(call: usize) -> u128 {
    let mut random = crate::Random::new(call as u64);
    u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
}
