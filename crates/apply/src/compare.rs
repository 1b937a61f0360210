//! The comparisons of a transaction.

use std::cmp::Ordering;

use api::etcdserverpb::Compare;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::mvccpb::KeyValue;
use mvcc::{KeyRange, RangeQuery};

use crate::read::{Reader, decode};
use crate::rejection::ReadFailure;

/// Whether all comparisons hold. Each is about every key of its range.
pub(crate) fn all(reader: &impl Reader, compares: &[Compare]) -> Result<bool, ReadFailure> {
    for compare in compares {
        if !holds(reader, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A range without keys is compared like a key whose numbers are all zero; but nothing compares to
/// the value of a key that does not exist.
fn holds(reader: &impl Reader, compare: &Compare) -> Result<bool, ReadFailure> {
    let target = CompareTarget::try_from(compare.target);
    // The index knows everything but values.
    let stored = target == Ok(CompareTarget::Value);
    let kvs: Vec<KeyValue> = match KeyRange::from_request(&compare.key, &compare.range_end) {
        KeyRange::Key(key) => reader.one(&key, stored)?.into_iter().collect(),
        // Leases are not in an answer without values.
        range => {
            let keys_only = !stored && target != Ok(CompareTarget::Lease);
            decode(&reader.range(&RangeQuery { keys_only, ..RangeQuery::new(range) })?.records)
        }
    };
    if kvs.is_empty() {
        return Ok(target != Ok(CompareTarget::Value) && one(compare, &KeyValue::default()));
    }
    Ok(kvs.iter().all(|kv| one(compare, kv)))
}

/// A missing number to compare with is zero, a missing value empty; and an unknown target or result
/// is what protobuf makes of an unknown number in etcd: the two sides are equal, the result holds.
fn one(compare: &Compare, kv: &KeyValue) -> bool {
    let union = compare.target_union.as_ref();
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => kv.version.cmp(&match union {
            Some(&TargetUnion::Version(version)) => version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => kv.create_revision.cmp(&match union {
            Some(&TargetUnion::CreateRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => kv.mod_revision.cmp(&match union {
            Some(&TargetUnion::ModRevision(revision)) => revision,
            _ => 0,
        }),
        Ok(CompareTarget::Lease) => kv.lease.cmp(&match union {
            Some(&TargetUnion::Lease(lease)) => lease,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => kv.value.as_ref().cmp(match union {
            Some(TargetUnion::Value(value)) => value.as_ref(),
            _ => &[],
        }),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}
