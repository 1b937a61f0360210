//! A process is killed at every call, and the next one finds what is in the page cache, which may be more
//! than what is on the disk. Then the power goes.
#![allow(clippy::unwrap_used)]

use sim::checker::{compare, live};
use sim::{Check, Disk, History, Image, Member, Plan, Random, Shadow};

const COMMANDS: u64 = 40;

/// How the first process ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    /// A call that had to do with the log failed, and it stopped; what a failed sync did not write is in the
    /// page cache all the same, and no later sync writes it.
    LogFailed,
}

/// One process that ends at the `n`-th call, another on the same page cache, and then crashes of that one.
/// `None` once the first process ends by itself.
fn end_at(n: u64, end: End, seed: u64) -> Option<u64> {
    let plan = Plan { catch_up: seed % 3, ..Plan::default() };
    let disk = Disk::new(&Image::default());
    match end {
        End::Killed => disk.kill_at(n),
        End::LogFailed => disk.fail_log_at(n),
    }
    let mut history = History::default();
    if let Ok(mut member) = Member::start(&disk, &plan, seed) {
        let ended = live(&mut member, &mut Random::new(seed), COMMANDS, seed);
        history.extend(&member);
        drop(member);
        if ended.is_ok() {
            return None;
        }
    }

    let context = format!("seed {seed}, {end:?} at call {n}");
    let told = disk.acknowledged();
    let disk = disk.restart();
    let second = disk.position();
    let mut member = Member::start(&disk, &plan, seed + 1).unwrap_or_else(|e| panic!("{context}: {}", e.0));
    assert!(member.recovered() >= told, "{context}: {told} was told, the log ends at {}", member.recovered());
    let mut random = Random::new(n);
    compare(&member, &history.at(member.recovered()), &mut random)
        .unwrap_or_else(|e| panic!("{context}: {e}"));
    live(&mut member, &mut random, 12, seed).unwrap();
    history.extend(&member);
    drop(member);

    let mut check = Check::new(plan);
    let mut shadow = Shadow::new(&Image::default(), &disk);
    while shadow.advance() {
        if shadow.position() >= second && random.one_in(6) {
            for image in shadow.images(3, &mut random) {
                let at = shadow.position() - second;
                check
                    .recover(&image, &history, shadow.acknowledged(), false, n)
                    .unwrap_or_else(|e| panic!("{context}, power lost {at} calls later: {e}"));
            }
        }
    }
    Some(check.images)
}

fn every_call(end: End) {
    let mut images = 0;
    for seed in 1..4 {
        let mut n = 0;
        while let Some(more) = end_at(n + 1, end, seed) {
            n += 1;
            images += more;
        }
        assert!(n > 50, "only {n} calls");
    }
    println!("{end:?}: {images} crash images of the process after it");
}

#[test]
fn the_page_cache_of_a_killed_process_is_not_taken_for_the_disk() {
    every_call(End::Killed);
}

/// W6: a start syncs what it reads before it trusts it.
#[test]
fn what_a_failed_sync_of_the_log_left_in_the_page_cache_is_not_taken_for_the_disk() {
    every_call(End::LogFailed);
}
