#![allow(clippy::unwrap_used)]

use super::*;
use crate::Random;

fn put(key: &str, value: &str) -> Request {
    Request::Put { key: key.into(), value: value.into(), lease: 0 }
}

fn get(key: &str) -> Request {
    Request::Range { key: key.into(), end: None }
}

fn kv(key: &str, value: &str, create_revision: i64, mod_revision: i64, version: i64) -> KeyValue {
    KeyValue { key: key.into(), value: value.into(), create_revision, mod_revision, version, lease: 0 }
}

fn told(history: &mut History, from: u64, to: u64, request: Request, revision: i64, body: Body) {
    let id = history.begin(from, request);
    history.finish(id, to, Response { revision, body });
}

const WRITTEN: Body = Body::Put { previous: None };

#[test]
fn a_read_that_overlaps_a_write_may_miss_it_and_one_after_it_may_not() {
    for (from, fine) in [(5, true), (10, true), (11, false)] {
        let mut history = History::default();
        told(&mut history, 0, 10, put("a", "1"), 2, WRITTEN);
        told(&mut history, from, 20, get("a"), 1, Body::Range(vec![]));
        assert_eq!(history.check(1000).is_ok(), fine, "begun at {from}");
    }
}

#[test]
fn a_stale_value_under_a_fresh_revision_is_seen() {
    let mut history = History::default();
    told(&mut history, 0, 1, put("a", "1"), 2, WRITTEN);
    told(&mut history, 2, 3, put("a", "2"), 3, WRITTEN);
    told(&mut history, 4, 5, get("a"), 3, Body::Range(vec![kv("a", "1", 2, 2, 1)]));
    assert!(matches!(history.check(1000), Err(Violation::NoOrder { .. })));
}

#[test]
fn an_unknown_write_may_have_happened_late_or_never_but_not_twice() {
    let seen = |versions: &[i64]| {
        let mut history = History::default();
        history.begin(0, put("a", "1"));
        told(&mut history, 1, 2, put("a", "2"), 2, WRITTEN);
        for (i, &version) in versions.iter().enumerate() {
            let at = 10 * (i as u64 + 1);
            let (value, changed) = if version == 1 { ("2", 2) } else { ("1", 3) };
            let there = Body::Range(vec![kv("a", value, 2, changed, version)]);
            told(&mut history, at, at + 1, get("a"), changed, there);
        }
        history.check(1000).is_ok()
    };
    assert!(seen(&[]) && seen(&[1, 1]) && seen(&[1, 2, 2]));
    assert!(!seen(&[2, 1]) && !seen(&[2, 3]));
}

#[test]
fn revisions_of_keys_that_are_searched_apart_follow_time() {
    let mut history = History::default();
    told(&mut history, 0, 1, put("a", "1"), 3, WRITTEN);
    told(&mut history, 2, 3, put("b", "1"), 2, WRITTEN);
    assert!(matches!(history.check(1000), Err(Violation::Backwards { .. })));
    let mut history = History::default();
    told(&mut history, 0, 9, put("a", "1"), 3, WRITTEN);
    told(&mut history, 0, 9, put("b", "1"), 3, WRITTEN);
    assert!(matches!(history.check(1000), Err(Violation::Backwards { .. })));
}

#[test]
fn transactions_join_keys_and_happen_at_one_moment() {
    let both = || Request::Txn {
        compare: vec![Compare { key: "a".into(), target: Target::Version(0), order: Order::Equal }],
        success: vec![put("a", "1"), put("b", "1")],
        failure: vec![get("a"), get("b")],
    };
    let half = |revision| {
        let mut history = History::default();
        let done = Body::Txn { succeeded: true, bodies: vec![WRITTEN, WRITTEN] };
        told(&mut history, 0, 9, both(), 2, done);
        let range = Request::Range { key: "a".into(), end: Some("z".into()) };
        let there = vec![kv("a", "1", 2, 2, 1)];
        told(&mut history, 0, 9, range, revision, Body::Range(there));
        history.check(1000)
    };
    assert!(matches!(half(2), Err(Violation::NoOrder { .. })));
    let mut history = History::default();
    told(&mut history, 0, 9, both(), 2, Body::Txn { succeeded: true, bodies: vec![WRITTEN, WRITTEN] });
    let there = |key| Body::Range(vec![kv(key, "1", 2, 2, 1)]);
    let lost = Body::Txn { succeeded: false, bodies: vec![there("a"), there("b")] };
    told(&mut history, 0, 9, both(), 2, lost.clone());
    assert_eq!(history.check(1000).unwrap().parts, 1);
    let Body::Txn { bodies, .. } = lost else { unreachable!() };
    told(&mut history, 10, 11, both(), 2, Body::Txn { succeeded: true, bodies });
    assert!(history.check(1000).is_err(), "it succeeded twice");
}

#[test]
fn what_is_known_to_be_everything_leaves_no_room_for_more() {
    let mut history = History::default();
    history.begin(0, put("a", "lost"));
    told(&mut history, 1, 2, put("a", "2"), 2, WRITTEN);
    told(&mut history, 3, 4, get("a"), 2, Body::Range(vec![kv("a", "2", 2, 2, 1)]));
    history.know_all([(2, b"a".to_vec())]);
    assert!(history.check(1000).is_ok());
    // A delete whose client was never told.
    history.begin(5, Request::Delete { key: "a".into(), end: None });
    told(&mut history, 6, 7, get("a"), 3, Body::Range(vec![]));
    assert!(history.check(1000).is_err(), "nothing changed at revision 3");
    history.know_all([(3, b"a".to_vec())]);
    assert!(history.check(1000).is_ok());
}

/// One copy of the data, and clients that are answered out of it, some of them never.
fn honest(seed: u64, requests: u64) -> History {
    let mut random = Random::new(seed);
    let (mut history, mut copy) = (History::default(), BTreeMap::<Vec<u8>, KeyValue>::new());
    let mut revision = 1;
    for number in 0..requests {
        let at = 10 * number;
        let (begun, ended) = (at.saturating_sub(random.below(60)), at + random.below(60));
        let key = vec![b'a' + random.below(3) as u8];
        let happens = !random.one_in(8);
        let is_told = happens && !random.one_in(5);
        let (request, body) = match random.below(3) {
            0 => {
                let there = copy.get(&key).cloned().into_iter().collect();
                (Request::Range { key, end: None }, Body::Range(there))
            }
            1 => {
                let deleted = i64::from(copy.contains_key(&key));
                if happens && copy.remove(&key).is_some() {
                    revision += 1;
                }
                (Request::Delete { key, end: None }, Body::Delete { deleted, previous: None })
            }
            _ => {
                let value = number.to_string().into_bytes();
                let before = copy.get(&key).cloned();
                if happens {
                    revision += 1;
                    let created = before.as_ref().map_or(revision, |kv| kv.create_revision);
                    let version = before.as_ref().map_or(1, |kv| kv.version + 1);
                    let new = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: created,
                        mod_revision: revision,
                        version,
                        lease: 0,
                    };
                    copy.insert(key.clone(), new);
                }
                (Request::Put { key, value, lease: 0 }, Body::Put { previous: Some(before) })
            }
        };
        let id = history.begin(begun, request);
        if is_told {
            history.finish(id, ended, Response { revision, body });
        }
    }
    history
}

#[test]
fn what_one_copy_answers_is_linearizable_and_what_is_forged_is_not() {
    let mut found = 0;
    for seed in 0..300 {
        let mut history = honest(seed, 120);
        history.check(2_000_000).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        // One answer is swapped for an older one.
        let mut random = Random::new(seed);
        let values: Vec<KeyValue> = history
            .operations
            .iter()
            .filter_map(|one| match &one.end {
                End::Told { response: Response { body: Body::Range(there), .. }, .. } => {
                    there.first().cloned()
                }
                _ => None,
            })
            .collect();
        let reads: Vec<usize> = (60..history.len())
            .filter(|&i| match &history.operations[i].end {
                End::Told { response: Response { body: Body::Range(there), .. }, .. } => !there.is_empty(),
                _ => false,
            })
            .collect();
        if reads.is_empty() || values.is_empty() {
            continue;
        }
        let forged = reads[random.below(reads.len() as u64) as usize];
        let End::Told { response, .. } = &mut history.operations[forged].end else { unreachable!() };
        let Body::Range(there) = &mut response.body else { unreachable!() };
        let old =
            values.iter().find(|old| old.key == there[0].key && old.mod_revision < there[0].mod_revision);
        let Some(old) = old else { continue };
        there[0] = old.clone();
        assert!(
            !matches!(history.check(2_000_000), Ok(_) | Err(Violation::Undecided { .. })),
            "seed {seed}: request {forged} was forged"
        );
        found += 1;
    }
    assert!(found > 150, "only {found} were forged");
}

#[test]
fn long_histories_take_few_steps() {
    let history = honest(7, 4000);
    let figures = history.check(10_000_000).unwrap();
    assert!(figures.steps < 60 * figures.answered, "{figures:?}");
}
