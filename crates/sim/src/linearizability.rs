//! Whether what clients were told could have come from one copy of the data.
//!
//! # Problem
//! Clients ask at the same time, through several members, and some never learn what became of their
//! request. Each answer may look right by itself. The cluster is linearizable if every request that was
//! answered can be put at one moment between question and answer, and those without an answer at one
//! moment after the question or nowhere, so that one copy of the data, asked in that order, gives every
//! answer that was given.
//!
//! # Idea
//! The search is Wing and Gong's, with Lowe's memory of what was tried: take any request that no
//! answered one precedes, see if the data allows its answer, go on from there, come back if stuck.
//! Three things keep it short:
//!
//! - Requests on keys that no transaction or range joins are searched apart.
//! - Every answer names a revision. Between parts that are searched apart revisions tell the order
//!   ([`Violation::Backwards`] if time contradicts it), and within a part the order is nearly given.
//! - What is put is unique, if the caller sees to it. So if anybody has ever seen a value, its write
//!   did happen, at the revision that was seen with it, whatever its client was told.
//!
//! # How to use it
//! ```
//! use sim::linearizability::{Body, History, Request, Response};
//! let mut history = History::default();
//! let put = history.begin(10, Request::Put { key: b"k".into(), value: b"v1".into(), lease: 0 });
//! let get = history.begin(12, Request::Range { key: b"k".into(), end: None });
//! history.finish(put, 15, Response { revision: 2, body: Body::Put { previous: None } });
//! history.finish(get, 20, Response { revision: 1, body: Body::Range(vec![]) });
//! history.check(1_000_000).expect("the read may come before the write, for they overlap");
//! ```
//! Times are of one clock, in any unit. A request that is begun and not finished has an unknown
//! outcome; [`History::fail`] is for those that certainly had no effect. What the cluster does by
//! itself, such as deleting a key whose lease ended, is a request with an unknown outcome, too.
//! Serializable reads have no place here.

mod model;
mod search;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// What a client asks for. A range is `key..end`; without `end` it is that one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read what is there.
    Range {
        /// The first key.
        key: Vec<u8>,
        /// The key after the last.
        end: Option<Vec<u8>>,
    },
    /// Write one key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Best if no two writes of a history write the same.
        value: Vec<u8>,
        /// The lease to attach to, or 0.
        lease: i64,
    },
    /// Delete what is there.
    Delete {
        /// The first key.
        key: Vec<u8>,
        /// The key after the last.
        end: Option<Vec<u8>>,
    },
    /// One of two lists, at one moment.
    Txn {
        /// All must hold for `success`.
        compare: Vec<Compare>,
        /// Done if they hold.
        success: Vec<Request>,
        /// Done if they do not.
        failure: Vec<Request>,
    },
}

/// A condition of a transaction. An absent key has version and revisions 0 and compares as unequal to
/// every value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Vec<u8>,
    /// What of it.
    pub target: Target,
    /// How.
    pub order: Order,
}

/// What of a key is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its number of changes since it was created.
    Version(i64),
    /// The revision at which it was created.
    CreateRevision(i64),
    /// The revision at which it was changed last.
    ModRevision(i64),
    /// Its value. Orders other than [`Order::Equal`] and [`Order::NotEqual`] are not supported and
    /// may turn out either way.
    Value(Vec<u8>),
}

/// How two things are compared: the key's on the left, the request's on the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Order {
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The revision in the answer's header.
    pub revision: i64,
    /// The rest.
    pub body: Body,
}

/// An answer to the request of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Body {
    /// All keys in the range, in order.
    Range(Vec<KeyValue>),
    /// What was there before, if that was asked for and if anything was.
    Put { previous: Option<Option<KeyValue>> },
    /// How many keys were deleted, and what they were if that was asked for.
    Delete { deleted: i64, previous: Option<Vec<KeyValue>> },
    /// Which list was done, and its answers.
    Txn { succeeded: bool, bodies: Vec<Body> },
}

/// A key as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct KeyValue {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: i64,
}

/// Names a request of a [`History`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(usize);

/// How a request ended, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Unknown,
    Failed,
    Told { at: u64, response: Response },
}

#[derive(Clone, Debug)]
struct Operation {
    begun: u64,
    request: Request,
    end: End,
}

/// What clients asked and were told.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    /// Revisions at which values were seen, by key and value.
    seen: HashMap<(Vec<u8>, Vec<u8>), i64>,
    /// Revisions at which anything was written, if the caller knows all of them.
    all: Option<BTreeMap<i64, BTreeSet<Vec<u8>>>>,
}

/// What a check has looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests with an answer.
    pub answered: usize,
    /// Requests whose outcome nobody was told.
    pub unknown: usize,
    /// Parts that were searched apart.
    pub parts: usize,
    /// Steps of the search.
    pub steps: usize,
}

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The later of two requests was answered with the lower revision, or a write with one that
    /// was taken.
    Backwards {
        /// What was asked and answered first.
        earlier: String,
        /// What was asked after that.
        later: String,
    },
    /// No order explains the answers.
    NoOrder {
        /// The longest order that does explain all answers in it.
        done: Vec<String>,
        /// What could have come next; the answer of none of these is explained.
        stuck: Vec<String>,
    },
    /// The search took more steps than it was allowed: nothing is known.
    Undecided {
        /// How many were made.
        steps: usize,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Backwards { earlier, later } => {
                write!(f, "revisions contradict time:\n  first {earlier}\n  then  {later}")
            }
            Violation::NoOrder { done, stuck } => {
                let shown = done.len().saturating_sub(30);
                writeln!(f, "no order explains the answers. This one comes furthest ({} before):", shown)?;
                done[shown..].iter().try_for_each(|line| writeln!(f, "  {line}"))?;
                writeln!(f, "and then none of these could have come next:")?;
                stuck.iter().try_for_each(|line| writeln!(f, "  {line}"))
            }
            Violation::Undecided { steps } => write!(f, "undecided after {steps} steps"),
        }
    }
}

impl std::error::Error for Violation {}

impl History {
    /// A client asks.
    pub fn begin(&mut self, at: u64, request: Request) -> RequestId {
        self.operations.push(Operation { begun: at, request, end: End::Unknown });
        RequestId(self.operations.len() - 1)
    }

    /// It is answered.
    pub fn finish(&mut self, id: RequestId, at: u64, response: Response) {
        let mut values = Vec::new();
        seen_in(&response.body, &mut values);
        for seen in values {
            self.saw(&seen.key, &seen.value, seen.mod_revision);
        }
        self.operations[id.0].end = End::Told { at, response };
    }

    /// It certainly had no effect, and never will.
    pub fn fail(&mut self, id: RequestId) {
        self.operations[id.0].end = End::Failed;
    }

    /// Somebody, say a watcher, saw this value, which was written at `mod_revision`.
    pub fn saw(&mut self, key: &[u8], value: &[u8], mod_revision: i64) {
        self.seen.insert((key.to_vec(), value.to_vec()), mod_revision);
    }

    /// The caller knows every change there was: which keys changed at which revision. What is not
    /// among these did not happen, which makes the search shorter.
    pub fn know_all(&mut self, changes: impl IntoIterator<Item = (i64, Vec<u8>)>) {
        let all = self.all.get_or_insert_default();
        for (revision, key) in changes {
            all.entry(revision).or_default().insert(key);
        }
    }

    /// How many requests were begun.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Searches for an order, in at most so many steps.
    ///
    /// # Errors
    /// There is none, or it was not found in time.
    pub fn check(&self, max_steps: usize) -> Result<Figures, Violation> {
        self.check_revisions()?;
        let mut figures = Figures {
            answered: self.operations.iter().filter(|one| matches!(one.end, End::Told { .. })).count(),
            unknown: self.operations.iter().filter(|one| one.end == End::Unknown).count(),
            ..Figures::default()
        };
        for part in model::parts(self) {
            figures.parts += 1;
            figures.steps += search::search(&part, max_steps).map_err(|stuck| match stuck {
                search::Stuck::OutOfSteps(steps) => Violation::Undecided { steps },
                search::Stuck::NoOrder { done, next } => Violation::NoOrder {
                    done: done.into_iter().map(|id| self.describe(id)).collect(),
                    stuck: next.into_iter().map(|id| self.describe(id)).collect(),
                },
            })?;
        }
        Ok(figures)
    }

    /// Whether revisions and time agree: who asks after another was answered is not told less.
    fn check_revisions(&self) -> Result<(), Violation> {
        let told = |id: usize| match &self.operations[id].end {
            End::Told { at, response } => Some((*at, response)),
            _ => None,
        };
        let mut by_end: Vec<usize> = (0..self.operations.len()).filter(|&id| told(id).is_some()).collect();
        let mut by_begin = by_end.clone();
        by_end.sort_by_key(|&id| told(id).map(|(at, _)| at));
        by_begin.sort_by_key(|&id| self.operations[id].begun);
        let mut ended = by_end.into_iter().peekable();
        let mut highest: Option<(i64, usize)> = None;
        let mut written: HashMap<i64, usize> = HashMap::new();
        for id in by_begin {
            while let Some(before) =
                ended.next_if(|&other| told(other).is_some_and(|(at, _)| at < self.operations[id].begun))
            {
                if let Some((_, response)) = told(before)
                    && highest.is_none_or(|(revision, _)| response.revision > revision)
                {
                    highest = Some((response.revision, before));
                }
            }
            let Some((_, response)) = told(id) else { continue };
            let writes = wrote(&response.body);
            let contradicts = |earlier: usize| Violation::Backwards {
                earlier: self.describe(RequestId(earlier)),
                later: self.describe(RequestId(id)),
            };
            if let Some((revision, earlier)) = highest
                && (response.revision < revision || writes && response.revision == revision)
            {
                return Err(contradicts(earlier));
            }
            if writes && let Some(earlier) = written.insert(response.revision, id) {
                return Err(contradicts(earlier));
            }
        }
        Ok(())
    }

    fn describe(&self, id: RequestId) -> String {
        let Operation { begun, request, end } = &self.operations[id.0];
        match end {
            End::Told { at, response } => {
                let Response { revision, body } = response;
                format!("#{} {begun}..{at}: {request} -> {body} at {revision}", id.0)
            }
            End::Unknown => format!("#{} {begun}..: {request} -> unknown", id.0),
            End::Failed => format!("#{} {begun}: {request} -> failed", id.0),
        }
    }
}

/// Whether the answer tells of a change.
fn wrote(body: &Body) -> bool {
    match body {
        Body::Range(_) => false,
        Body::Put { .. } => true,
        Body::Delete { deleted, .. } => *deleted > 0,
        Body::Txn { bodies, .. } => bodies.iter().any(wrote),
    }
}

fn seen_in<'a>(body: &'a Body, into: &mut Vec<&'a KeyValue>) {
    match body {
        Body::Range(all) | Body::Delete { previous: Some(all), .. } => into.extend(all),
        Body::Put { previous: Some(Some(previous)) } => into.push(previous),
        Body::Put { .. } | Body::Delete { .. } => {}
        Body::Txn { bodies, .. } => bodies.iter().for_each(|body| seen_in(body, into)),
    }
}

mod words;

#[cfg(test)]
mod tests;
