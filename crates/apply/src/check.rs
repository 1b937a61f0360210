//! What etcd checks before a request is proposed or read: its form, never the state.
//!
//! Pure functions, with etcd 3.7.1's order of checks and its errors. 3.5.1 differs in one thing: it
//! does not look at a range's sort order and target at all (an unknown target is ignored there),
//! neither alone nor in a transaction. `RangeStream` is not in 3.5.

use std::collections::{BTreeMap, HashSet};

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use crate::rejection::Rejection;

/// A range, alone or in a transaction.
///
/// # Errors
/// [`Rejection::EmptyKey`], [`Rejection::InvalidSortOption`].
pub fn range(request: &RangeRequest) -> Result<(), Rejection> {
    if request.key.is_empty() {
        return Err(Rejection::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Rejection::InvalidSortOption);
    }
    Ok(())
}

/// A streamed range: only in the order of the keys, and without revision filters.
///
/// # Errors
/// Those of [`range`], then [`Rejection::StreamOrder`], [`Rejection::StreamFilter`].
pub fn range_stream(request: &RangeRequest) -> Result<(), Rejection> {
    range(request)?;
    let (order, target) = (request.sort_order(), request.sort_target());
    let by_key = order == SortOrder::None || (target == SortTarget::Key && order == SortOrder::Ascend);
    if !by_key {
        return Err(Rejection::StreamOrder);
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters != [0; 4] {
        return Err(Rejection::StreamFilter);
    }
    Ok(())
}

/// A put, alone or in a transaction.
///
/// # Errors
/// [`Rejection::EmptyKey`], [`Rejection::ValueProvided`], [`Rejection::LeaseProvided`].
pub fn put(request: &PutRequest) -> Result<(), Rejection> {
    if request.key.is_empty() {
        return Err(Rejection::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Rejection::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Rejection::LeaseProvided);
    }
    Ok(())
}

/// A deletion, alone or in a transaction.
///
/// # Errors
/// [`Rejection::EmptyKey`].
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Rejection> {
    if request.key.is_empty() { Err(Rejection::EmptyKey) } else { Ok(()) }
}

/// A transaction with everything in it: first the form of each part, then that no key is written
/// twice.
///
/// # Errors
/// [`Rejection::TooManyOps`], what the parts' checks say, [`Rejection::KeyNotFound`] for an empty
/// operation, and last [`Rejection::DuplicateKey`].
pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), Rejection> {
    form(request, max_ops)?;
    Writes::of(&request.success)?;
    Writes::of(&request.failure)?;
    Ok(())
}

/// The three lists of a transaction may be `max_ops` long each. A nested transaction may only use
/// what its parent's longest list has left over.
fn form(request: &TxnRequest, max_ops: usize) -> Result<(), Rejection> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = max_ops.checked_sub(longest) else { return Err(Rejection::TooManyOps) };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Rejection::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => form(request, left),
        None => Err(Rejection::KeyNotFound),
    })
}

/// What a list of operations may write, whichever way its nested transactions go.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

impl<'a> Writes<'a> {
    /// Two puts of one key clash, and so do a put and a deletion of its key; two deletions do not.
    /// The two branches of a nested transaction exclude each other, so they may write the same key.
    ///
    /// A deletion in a nested transaction is held against the puts of the nested transactions after
    /// it and against the puts of its parent, but not against puts of those before it: etcd looks
    /// in this order.
    fn of(ops: &'a [RequestOp]) -> Result<Self, Rejection> {
        let mut writes = Writes::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                writes.deletes.insert(&delete.key, &delete.range_end);
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                let success = Writes::of(&nested.success)?;
                let failure = Writes::of(&nested.failure)?;
                for key in success.puts.iter().chain(&failure.puts) {
                    if writes.puts.contains(key) || writes.deletes.contains(key) {
                        return Err(Rejection::DuplicateKey);
                    }
                }
                writes.absorb(success);
                writes.absorb(failure);
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request
                && (writes.deletes.contains(&put.key) || !writes.puts.insert(&put.key))
            {
                return Err(Rejection::DuplicateKey);
            }
        }
        Ok(writes)
    }

    fn absorb(&mut self, mut other: Writes<'a>) {
        // The smaller set moves, so that deep nesting costs no more than n log n.
        if self.puts.len() < other.puts.len() {
            std::mem::swap(&mut self.puts, &mut other.puts);
        }
        self.puts.extend(other.puts);
        if self.deletes.0.len() < other.deletes.0.len() {
            std::mem::swap(&mut self.deletes, &mut other.deletes);
        }
        for (start, end) in other.deletes.0 {
            self.deletes.add(start, end);
        }
    }
}

/// Where an interval of keys ends.
#[derive(Clone, Copy)]
enum End<'a> {
    /// Before this key.
    Before(&'a [u8]),
    /// With this key.
    With(&'a [u8]),
}

impl End<'_> {
    fn admits(&self, key: &[u8]) -> bool {
        match self {
            End::Before(end) => key < *end,
            End::With(last) => key <= *last,
        }
    }
}

impl<'a> End<'a> {
    /// The key that it stands at, and whether that key is inside.
    fn place(self) -> (&'a [u8], bool) {
        match self {
            End::Before(key) => (key, false),
            End::With(key) => (key, true),
        }
    }

    fn later(self, other: Self) -> Self {
        if self.place() >= other.place() { self } else { other }
    }
}

/// A union of intervals of keys, kept apart from each other: start to end.
#[derive(Default)]
struct Intervals<'a>(BTreeMap<&'a [u8], End<'a>>);

impl<'a> Intervals<'a> {
    /// The keys that a deletion names, as etcd sees them at this point: the end is taken literally.
    /// So a deletion "from this key on", whose end is the byte zero, is an empty interval here, and
    /// a put behind it in the same transaction passes. Clients may rely on it; so it stays.
    fn insert(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.add(key, End::With(key));
        } else if key < range_end {
            self.add(key, End::Before(range_end));
        }
    }

    fn add(&mut self, mut start: &'a [u8], mut end: End<'a>) {
        // Swallow every interval that begins inside the new one, and the one before it if it
        // reaches in.
        while let Some((&other, &other_end)) = self.0.range(..=end.place().0).next_back() {
            if other < start && !other_end.admits(start) {
                break;
            }
            self.0.remove(other);
            start = start.min(other);
            end = end.later(other_end);
        }
        self.0.insert(start, end);
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.0.range(..=key).next_back().is_some_and(|(_, end)| end.admits(key))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// etcd's own procedure, with lists and quadratic walks.
    #[derive(Default)]
    struct Naive {
        puts: Vec<Bytes>,
        deletes: Vec<(Bytes, Bytes)>,
    }

    impl Naive {
        fn of(ops: &[RequestOp]) -> Option<Naive> {
            let mut all = Naive::default();
            for op in ops {
                if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                    all.deletes.push((delete.key.clone(), delete.range_end.clone()));
                }
            }
            for op in ops {
                let Some(Request::RequestTxn(nested)) = &op.request else { continue };
                let (then, other) = (Naive::of(&nested.success)?, Naive::of(&nested.failure)?);
                let before = all.puts.clone();
                for key in then.puts.iter().chain(&other.puts) {
                    if before.contains(key) || all.deletes(key) {
                        return None;
                    }
                    all.puts.push(key.clone());
                }
                all.deletes.extend(then.deletes.into_iter().chain(other.deletes));
            }
            for op in ops {
                let Some(Request::RequestPut(put)) = &op.request else { continue };
                if all.puts.contains(&put.key) || all.deletes(&put.key) {
                    return None;
                }
                all.puts.push(put.key.clone());
            }
            Some(all)
        }

        fn deletes(&self, key: &Bytes) -> bool {
            self.deletes.iter().any(|(start, end)| match end.is_empty() {
                true => key == start,
                false => start <= key && key < end,
            })
        }
    }

    fn ops(chance: &mut impl FnMut(u64) -> u64, depth: u64) -> Vec<RequestOp> {
        let key = |chance: &mut dyn FnMut(u64) -> u64| {
            let key = vec![b'a' + chance(20) as u8; 1 + chance(2) as usize];
            Bytes::from(key)
        };
        let mut list = Vec::new();
        for _ in 0..chance(5) {
            let request = match chance(if depth > 0 { 4 } else { 3 }) {
                0 => Request::RequestPut(PutRequest { key: key(chance), ..PutRequest::default() }),
                1 => {
                    let range_end = match chance(4) {
                        0 => Bytes::new(),
                        1 => Bytes::from_static(b"\0"),
                        _ => key(chance),
                    };
                    let key = key(chance);
                    Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false })
                }
                2 => continue,
                _ => Request::RequestTxn(TxnRequest {
                    compare: Vec::new(),
                    success: ops(chance, depth - 1),
                    failure: ops(chance, depth - 1),
                }),
            };
            list.push(RequestOp { request: Some(request) });
        }
        list
    }

    #[test]
    fn duplicates_are_found_as_the_plain_procedure_finds_them() {
        let mut state = 1u64;
        let mut chance = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut clashes = 0;
        for case in 0..50_000 {
            let ops = ops(&mut chance, 3);
            let expected = Naive::of(&ops).is_some();
            assert_eq!(Writes::of(&ops).is_ok(), expected, "case {case}: {ops:?}");
            clashes += u32::from(!expected);
        }
        assert!((5_000..45_000).contains(&clashes), "{clashes} of 50,000 clash");
    }

    #[test]
    fn very_many_nested_deletions_are_checked_in_no_time() {
        // 64 transactions with 63 operations each: a quadratic walk per key would be felt.
        let nested = |i: u32| {
            let key = |j: u32| Bytes::from(format!("{i:04}/{j:04}"));
            let delete = |j| DeleteRangeRequest { key: key(j), range_end: key(j + 1), prev_kv: false };
            let ops = (0..31).map(|j| Request::RequestDeleteRange(delete(2 * j)));
            let puts = (0..31).map(|j| PutRequest { key: key(2 * j + 1), ..PutRequest::default() });
            let ops = ops.chain(puts.map(Request::RequestPut));
            let success = ops.map(|request| RequestOp { request: Some(request) }).collect();
            RequestOp { request: Some(Request::RequestTxn(TxnRequest { success, ..TxnRequest::default() })) }
        };
        let request = TxnRequest { success: (0..64).map(nested).collect(), ..TxnRequest::default() };
        assert_eq!(txn(&request, 128), Ok(()));
        assert_eq!(txn(&request, 125), Err(Rejection::TooManyOps));
    }
}
