//! Every call to the disk fails once, or is the last before the power goes: what a flush said is
//! durable is there afterwards, no batch is there in part, and no index without its effects.
#![allow(clippy::unwrap_used)]

mod common;

use backend::{Backend, Error, Options, Seal, Storage, row_key};
use common::{Chance, MemoryDisk, Twin};

fn open(disk: &MemoryDisk) -> Result<Backend, Error> {
    Backend::open(Storage::Custom(disk.boxed()), Options { flush_rows: 12, ..Options::default() })
}

/// The same steps for the same seed, until the disk fails or they are over. Checks that nothing
/// works any more once something has failed.
fn workload(disk: &MemoryDisk, seed: u64, twin: &mut Twin) -> Result<(), Error> {
    let chance = &mut Chance(seed);
    let store = open(disk)?;
    for _ in 0..60 {
        let done = match chance.below(10) {
            0..4 => {
                twin.insert(&store, chance);
                Ok(())
            }
            4..6 => {
                twin.seal(&store, chance);
                Ok(())
            }
            6 => {
                twin.remove(&store, chance);
                Ok(())
            }
            7 => store.get(&row_key(1 + chance.below(40) as i64, 0)).map(|_| ()),
            8 => store.flush().map(|flushed| twin.durable_at(flushed.index)),
            _ => store.flush_all().map(|flushed| twin.durable_at(flushed.index)),
        };
        if let Err(error) = done {
            assert!(matches!(error, Error::Storage(_) | Error::Corrupt(_)), "{error}");
            refuses_everything(&store, twin);
            return Err(error);
        }
    }
    Ok(())
}

fn refuses_everything(store: &Backend, twin: &mut Twin) {
    let before = store.consistent();
    for _ in 0..2 {
        assert!(matches!(store.flush(), Err(Error::Poisoned(_))));
        assert!(matches!(store.flush_all(), Err(Error::Poisoned(_))));
        assert!(matches!(store.get(&row_key(1, 0)), Err(Error::Poisoned(_))));
        assert!(matches!(store.view(), Err(Error::Poisoned(_))));
        assert!(matches!(store.hash_tables(), Err(Error::Poisoned(_))));
        assert!(matches!(store.scan_table(backend::Table::Meta, |_, _| ()), Err(Error::Poisoned(_))));
        store.seal(Seal { index: twin.next_index + 1_000, ..Seal::default() });
    }
    assert_eq!(before, store.consistent(), "a failed store moved its index");
    twin.open.clear();
}

/// Opens what a crash left, checks it, and checks that it still works.
fn recover(disk: &MemoryDisk, mut twin: Twin) {
    let store = open(disk).unwrap();
    twin.reopened(&store);
    let chance = &mut Chance(7);
    twin.next_index += 2_000;
    twin.insert(&store, chance);
    twin.seal(&store, chance);
    store.flush_all().unwrap();
    twin.all_durable();
    drop(store);
    twin.reopened(&open(disk).unwrap());
}

fn calls_of(seed: u64) -> u64 {
    let disk = MemoryDisk::default();
    workload(&disk, seed, &mut Twin::default()).unwrap();
    disk.calls()
}

/// W6: after an error of the disk nothing is read or written any more.
#[test]
fn the_nth_call_fails() {
    let seed = 3;
    let calls = calls_of(seed);
    assert!(calls > 100, "{calls} calls are no workload");
    let mut failed = 0;
    for call in 1..=calls {
        let disk = MemoryDisk::default();
        disk.fail(call, false);
        let mut twin = Twin::default();
        failed += usize::from(workload(&disk, seed, &mut twin).is_err());
        recover(&disk.after_restart(), twin);
    }
    // The calls that close the store may fail unseen; those of the workload may not.
    assert!(failed as u64 > calls * 9 / 10, "only {failed} of {calls} failures were noticed");
}

#[test]
fn the_power_goes_at_the_nth_call() {
    for seed in [3, 11] {
        let calls = calls_of(seed);
        for call in 1..=calls {
            let disk = MemoryDisk::default();
            disk.fail(call, true);
            let mut twin = Twin::default();
            let _ = workload(&disk, seed, &mut twin);
            let chance = &mut Chance(seed << 32 | call);
            for _ in 0..3 {
                let image = disk.after_power_loss(chance);
                recover(&image, twin.clone());
            }
        }
    }
}

#[test]
fn the_power_goes_again_while_recovering() {
    let seed = 5;
    let calls = calls_of(seed);
    for call in (1..=calls).step_by(3) {
        let disk = MemoryDisk::default();
        disk.fail(call, true);
        let mut twin = Twin::default();
        let _ = workload(&disk, seed, &mut twin);
        let chance = &mut Chance(seed << 32 | call);
        let first = disk.after_power_loss(chance);
        for again in 1..40 {
            let second = first.after_restart();
            second.fail(again, true);
            let opened = open(&second);
            let done = opened.is_ok();
            drop(opened);
            recover(&second.after_power_loss(chance), twin.clone());
            if done {
                break;
            }
        }
    }
}
