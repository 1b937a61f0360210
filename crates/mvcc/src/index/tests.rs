//! The tree against an ordered map of the standard library, with snapshots alive.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use api::key_range::KeyRange;
use bytes::Bytes;

use super::build::Builder;
use super::node::{BYTES, FAN_OUT, LEAF, Node};
use super::{Child, Index};
use crate::history::Version;
use crate::revision::Revision;

type Twin = BTreeMap<Vec<u8>, Vec<(i64, bool)>>;

/// A small generator: the tests need variety, not quality.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn contents(index: &Index) -> Twin {
    let mut found = Twin::new();
    index.walk(&KeyRange::all(), |key, history| {
        let versions = history.versions().map(|v| (v.main, v.is_tombstone())).collect();
        assert!(found.insert(key.to_vec(), versions).is_none(), "a key twice");
        ControlFlow::Continue(())
    });
    found
}

/// Checks what node.rs promises: order, borders, counts, sizes, depth. Returns the depth.
fn check(child: &Child, low: &[u8], high: Option<&[u8]>, is_root: bool) -> usize {
    let within = |key: &[u8]| low <= key && high.is_none_or(|high| key < high);
    match &*child.node {
        Node::Leaf(leaf) => {
            assert_eq!(leaf.keys.len(), leaf.histories.len());
            assert!(leaf.keys.len() <= LEAF && (is_root || leaf.keys.len() > 0));
            assert!(leaf.keys.byte_len() <= BYTES * 3 / 2, "with keys of at most half of it");
            assert!(leaf.keys.iter().is_sorted_by(|a, b| a < b) && leaf.keys.iter().all(within));
            assert_eq!(child.live, leaf.histories.iter().filter(|h| h.is_live()).count() as u64);
            assert!(leaf.histories.iter().all(|h| h.latest().main <= child.newest));
            1
        }
        Node::Inner(inner) => {
            assert_eq!(inner.separators.len() + 1, inner.children.len());
            assert!(inner.children.len() <= FAN_OUT && (!is_root || inner.children.len() > 1));
            assert!(
                inner.separators.iter().is_sorted_by(|a, b| a < b) && inner.separators.iter().all(within)
            );
            assert_eq!(child.live, inner.children.iter().map(|c| c.live).sum::<u64>());
            assert!(inner.children.iter().all(|c| c.newest <= child.newest));
            let depths: Vec<usize> = (0..inner.children.len())
                .map(|i| {
                    let low = if i == 0 { low } else { inner.separators.get(i - 1) };
                    let high = if i < inner.separators.len() { Some(inner.separators.get(i)) } else { high };
                    check(&inner.children[i], low, high, false)
                })
                .collect();
            assert!(depths.iter().all(|&d| d == depths[0]), "all leaves are equally deep");
            depths[0] + 1
        }
    }
}

fn random_range(rng: &mut Rng, key: &mut dyn FnMut(&mut Rng) -> Vec<u8>) -> KeyRange {
    let (a, b) = (Bytes::from(key(rng)), Bytes::from(key(rng)));
    match rng.below(4) {
        0 => KeyRange::Key(a),
        1 => KeyRange::From(a),
        _ => KeyRange::range(a, b),
    }
}

fn check_reads(index: &Index, twin: &Twin, rng: &mut Rng, key: &mut dyn FnMut(&mut Rng) -> Vec<u8>) {
    for _ in 0..4 {
        let range = random_range(rng, key);
        let expected: Vec<_> = twin.range::<[u8], _>((Bound::Included(range.start()), range.end())).collect();
        let newest = expected.iter().map(|(_, versions)| versions.last().unwrap().0).max().unwrap_or(1);
        let past = rng.below(newest as u64 + 1) as i64;
        for at in [past, newest - 1, newest, i64::MAX] {
            let seen =
                |versions: &Vec<(i64, bool)>| versions.iter().rfind(|v| v.0 <= at).is_some_and(|v| !v.1);
            let live = expected.iter().filter(|(_, versions)| seen(versions)).count();
            assert_eq!(index.count(&range, at, usize::MAX), Some(live as u64), "{range:?} at {at}");
        }
        let stop = rng.below(200) as usize;
        let mut walked = Vec::new();
        index.walk(&range, |key, _| {
            walked.push(key.to_vec());
            if walked.len() > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(walked.iter().eq(expected.iter().map(|(key, _)| *key).take(stop + 1)), "{range:?}");
        let one = key(rng);
        assert_eq!(index.get(&one).map(|h| h.latest().main), twin.get(&one).map(|v| v.last().unwrap().0));
    }
}

fn twin_compact(twin: &mut Twin, at: i64) {
    twin.retain(|_, versions| {
        if let Some(last) = versions.iter().rposition(|v| v.0 <= at) {
            let gone = versions[last].1 && versions[last].0 < at;
            versions.drain(..last + usize::from(gone));
        }
        !versions.is_empty()
    });
}

fn compact_run(index: &mut Index, from: &[u8], at: i64) -> Option<Vec<u8>> {
    let (wanted, next) = index.look(from, |history| history.is_compactable(at));
    if wanted {
        index.sweep(from, |history| history.compact(at).0);
    }
    next
}

fn run(seed: u64, steps: i64, mut key: impl FnMut(&mut Rng) -> Vec<u8>) {
    let mut rng = Rng(seed);
    let mut index = Index::new();
    let mut twin = Twin::new();
    let mut snapshots: Vec<(Index, Twin)> = Vec::new();
    for main in 1..=steps {
        let name = key(&mut rng);
        let exists = twin.get(&name).is_some_and(|v| !v.last().unwrap().1);
        let at = Revision::new(main, 0);
        let delete = exists && rng.below(3) > 0;
        let version = if delete { Version::tombstone(at) } else { Version::put(at, 1, 1, 0) };
        index.push(&name, version);
        twin.entry(name).or_default().push((main, delete));
        if rng.below(steps as u64 / 20) == 0 {
            snapshots.push((index.clone(), twin.clone()));
        }
        if rng.below(steps as u64 / 10) == 0 {
            let at = main - rng.below(100) as i64;
            let mut cursor = Some(Vec::new());
            while let Some(from) = cursor {
                cursor = compact_run(&mut index, &from, at);
            }
            twin_compact(&mut twin, at);
        }
        if main % 100 == 0 {
            check(&index.root, &[], None, true);
            check_reads(&index, &twin, &mut rng, &mut key);
        }
        if snapshots.len() > 3 {
            let (snapshot, then) = snapshots.swap_remove(rng.below(3) as usize);
            check(&snapshot.root, &[], None, true);
            assert_eq!(contents(&snapshot), then, "a snapshot changed");
            check_reads(&snapshot, &then, &mut rng, &mut key);
        }
    }
    assert_eq!(contents(&index), twin, "seed {seed}");
    check(&index.root, &[], None, true);
    rebuild(&index, &twin);
}

/// Builds the same tree from its sorted contents.
fn rebuild(index: &Index, twin: &Twin) {
    let mut builder = Builder::new();
    index.walk(&KeyRange::all(), |key, history| {
        builder.push(key, history.clone());
        ControlFlow::Continue(())
    });
    let built = builder.finish();
    check(&built.root, &[], None, true);
    assert_eq!(&contents(&built), twin);
    assert_eq!(built.live(), index.live());
}

#[test]
fn random_keys() {
    for seed in 0..6 {
        run(seed, 10_000, |rng| format!("{:x}", rng.below(1 << (6 + 2 * seed))).into_bytes());
    }
}

#[test]
fn keys_in_ascending_order() {
    let mut next = 0;
    run(7, 20_000, move |rng| {
        next += u64::from(rng.below(10) == 0);
        format!("/registry/events/{next:08}").into_bytes()
    });
}

#[test]
fn long_keys_split_nodes_by_their_bytes() {
    run(8, 3_000, |rng| {
        let letter = b'a' + rng.below(20) as u8;
        vec![letter; 1 + rng.below(BYTES as u64 / 2) as usize]
    });
}

#[test]
fn everything_can_be_removed_again() {
    let mut index = Index::new();
    for main in 1..=10_000i64 {
        index.push(
            format!("{:05}", main * 7919 % 10_007).as_bytes(),
            Version::put(Revision::new(main, 0), 1, 1, 0),
        );
    }
    let all = contents(&index);
    assert!(check(&index.root, &[], None, true) >= 3, "deep enough to be interesting");
    for (i, key) in all.keys().enumerate() {
        index.push(key, Version::tombstone(Revision::new(20_000 + i as i64, 0)));
    }
    assert_eq!(index.live(), 0);
    for at in (20_000..=30_001).step_by(500) {
        let mut cursor = Some(Vec::new());
        while let Some(from) = cursor {
            cursor = compact_run(&mut index, &from, at);
        }
        check(&index.root, &[], None, true);
    }
    assert!(contents(&index).len() <= 1, "only a tombstone at the very revision may be left");
    rebuild(&Index::new(), &Twin::new());
}

#[test]
fn nothing_is_copied_without_a_snapshot_and_only_the_path_with_one() {
    let mut index = Index::new();
    for main in 1..=100_000i64 {
        index.push(&(main * 7919 % 100_003).to_be_bytes(), Version::put(Revision::new(main, 0), 1, 1, 0));
    }
    let nodes = |index: &Index| {
        let mut found = Vec::new();
        collect(&index.root, &mut found);
        found
    };
    let changed = |index: &mut Index, main: i64| {
        let before = nodes(index);
        index.push(&77i64.to_be_bytes(), Version::put(Revision::new(main, 0), 1, 2, 0));
        let after = nodes(index);
        after.iter().filter(|node| !before.contains(node)).count()
    };
    let depth = check(&index.root, &[], None, true);
    assert_eq!(changed(&mut index, 200_000), 0);
    let snapshot = index.clone();
    assert_eq!(changed(&mut index, 200_001), depth);
    assert_eq!(changed(&mut index, 200_002), 0, "what was copied once is no longer shared");
    assert_eq!(snapshot.get(&77i64.to_be_bytes()).unwrap().latest().main, 200_000);
}

#[test]
fn counting_visits_the_ends_and_what_changed_since() {
    let mut index = Index::new();
    for main in 1..=100_000i64 {
        index.push(&main.to_be_bytes(), Version::put(Revision::new(main, 0), main, 1, 0));
    }
    let range =
        KeyRange::range(100i64.to_be_bytes().to_vec().into(), 99_000i64.to_be_bytes().to_vec().into());
    let depth = check(&index.root, &[], None, true);
    assert_eq!(index.count(&range, 100_000, 2 * depth), Some(98_900));
    assert_eq!(index.count(&range, 100_000, 1), None);
    let again = Version::put(Revision::new(100_001, 0), 500, 2, 0);
    index.push(&500i64.to_be_bytes(), again);
    assert_eq!(index.count(&range, 100_000, 3 * depth), Some(98_900), "one more path, the changed one");
}

fn collect(child: &Child, found: &mut Vec<*const Node>) {
    found.push(Arc::as_ptr(&child.node));
    if let Node::Inner(inner) = &*child.node {
        inner.children.iter().for_each(|child| collect(child, found));
    }
}
