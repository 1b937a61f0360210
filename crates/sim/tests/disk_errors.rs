//! Every call to the disk fails once. The member stops there, tells no one anything that is not so, and the
//! next start finds everything that was told.
#![allow(clippy::unwrap_used)]

use sim::checker::{compare, live};
use sim::{Check, Disk, History, Image, Member, Plan, Random, Shadow, Stopped};

const COMMANDS: u64 = 40;

struct Life {
    disk: Disk,
    history: History,
    error: Option<Stopped>,
    /// Whether the call failed while someone could still be told. What fails after that, when the store
    /// is closed, is seen by the next start alone.
    in_time: bool,
}

/// One life of which the `n`-th call fails.
fn fail_at(n: u64, start: &Image, before: &History, seed: u64) -> Life {
    let disk = Disk::new(start);
    disk.fail_at(n);
    let mut history = before.clone();
    let mut member = match Member::start(&disk, &Plan::default(), seed) {
        Ok(member) => member,
        Err(error) => return Life { disk, history, error: Some(error), in_time: true },
    };
    let error = live(&mut member, &mut Random::new(seed), COMMANDS, seed).err();
    let in_time = disk.has_failed();
    if let Some(stopped) = &error {
        refuses_to_go_on(&mut member, &disk, stopped, n);
    }
    history.extend(&member);
    drop(member);
    Life { disk, history, error, in_time }
}

/// A server exits after an error. Should it not, then what failed must still refuse.
fn refuses_to_go_on(member: &mut Member, disk: &Disk, stopped: &Stopped, n: u64) {
    let told = disk.acknowledged();
    for _ in 0..3 {
        let revision = member.shared().store.current_revision();
        member.propose(&[sim::workload::Workload::new(n).command(revision)]);
        let settled = member.settle();
        let flushed = member.flush();
        if stopped.0.starts_with("wal:") {
            assert!(settled.is_err(), "call {n}: the log went on after: {}", stopped.0);
            assert_eq!(disk.acknowledged(), told, "call {n}: acknowledged after: {}", stopped.0);
        }
        assert!(flushed.is_err(), "call {n}: a flush came through after: {}", stopped.0);
    }
}

/// A process started anew reads what the page cache has; after a power failure it is what the disk has.
fn everything_told_is_there(life: &Life, start: &Image, told_before: u64, n: u64) -> u64 {
    let told = life.disk.acknowledged().max(told_before);
    let mut check = Check::new(Plan::default());
    let mut shadow = Shadow::new(start, &life.disk);
    while shadow.advance() {}
    let mut images = shadow.images(4, &mut Random::new(n));
    images.push(life.disk.image());
    for (number, image) in images.iter().enumerate() {
        check
            .recover(image, &life.history, told, false, n)
            .unwrap_or_else(|e| panic!("call {n} failed ({:?}), image {number}: {e}", life.error));
    }
    check.images
}

/// W6: whichever write, sync or rename fails, of the log or of the store, nothing is acknowledged after it.
#[test]
fn each_call_of_a_life_fails_once() {
    for seed in 5..8 {
        let (mut n, mut images) = (0, 0);
        loop {
            n += 1;
            let life = fail_at(n, &Image::default(), &History::default(), seed);
            if !life.disk.has_failed() {
                assert!(life.error.is_none());
                break;
            }
            assert_eq!(life.error.is_some(), life.in_time, "call {n} failed, and nobody noticed");
            images += everything_told_is_there(&life, &Image::default(), 0, n);
        }
        println!("seed {seed}: each of {} calls failed once, {images} starts after it", n - 1);
        assert!(n > 100, "only {n} calls");
    }
}

#[test]
fn each_call_of_a_recovery_fails_once() {
    let seed = 11;
    let first = fail_at(u64::MAX, &Image::default(), &History::default(), seed);
    let told = first.disk.acknowledged();
    // The crash loses half of what was under way, so that there is something to repair and to replay.
    let mut shadow = Shadow::new(&Image::default(), &first.disk);
    let mut start = Image::default();
    while shadow.advance() {
        if shadow.acknowledged() == told && shadow.pending() > 8 {
            start = shadow.image(|i| i % 2 == 0);
            break;
        }
        start = shadow.image(|_| false);
    }
    let (mut n, mut images) = (0, 0);
    loop {
        n += 1;
        let life = fail_at(n, &start, &first.history, seed + 1);
        if !life.disk.has_failed() {
            break;
        }
        assert_eq!(life.error.is_some(), life.in_time, "call {n} failed, and nobody noticed");
        images += everything_told_is_there(&life, &start, told, n);
    }
    println!("seed {seed}: each of {} calls after a crash failed once, {images} starts after it", n - 1);
}

/// W13: reading the log at a start needs no space. W6: a full disk is an error like any other.
#[test]
fn a_full_disk_stops_the_member_and_not_its_next_start() {
    let seed = 3;
    let disk = Disk::new(&Image::default());
    let mut random = Random::new(seed);
    let mut member = Member::start(&disk, &Plan::default(), seed).unwrap();
    live(&mut member, &mut random, 20, seed).unwrap();
    disk.set_full(true);
    let stopped = (0..1000).find_map(|i| live(&mut member, &mut random, 10, seed + i).err());
    let stopped = stopped.expect("writing without end fills a disk").0;
    assert!(stopped.contains("full") || stopped.contains("space"), "{stopped}");
    let mut history = History::default();
    history.extend(&member);
    let told = disk.acknowledged();
    drop(member);

    // Reading the log needs no space, and changes nothing that must stay.
    let log = wal::Options { segment_bytes: Plan::default().segment_bytes };
    let full = Disk::new(&disk.image());
    full.set_full(true);
    let shared = std::sync::Arc::new(full.clone());
    let begin = wal::Wal::open_with(shared, "/member/wal".as_ref(), raft::Index(0), log);
    assert!(matches!(begin, Ok(_) | Err(wal::WalError::Gap { .. })), "{begin:?}");
    drop(begin);

    // Once there is space again, everything that was told is there.
    full.set_full(false);
    let member = Member::start(&full, &Plan::default(), seed).unwrap();
    assert!(member.recovered() >= told);
    compare(&member, &history.at(member.recovered()), &mut random).unwrap();
}
