//! Many leases, many renewals: what stays bounded.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::time::Duration;

use lease::{Config, LeaseId, Lessor, Renewal};

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn a_hundred_thousand_leases_of_one_second_end_in_bounded_batches() {
    let mut lessor = Lessor::new(Config::default());
    lessor.promote(Duration::ZERO, Duration::ZERO);
    for id in 1..=100_000 {
        let at = Duration::from_micros(10 * id as u64);
        lessor.grant(LeaseId(id), 60, at).unwrap();
    }
    let mut seen = HashSet::new();
    let (mut now, mut calls) = (seconds(61), 0);
    loop {
        let batch = lessor.expired(now, 500);
        calls += 1;
        assert!(batch.len() <= 500);
        if batch.is_empty() {
            break;
        }
        for id in batch {
            assert!(seen.insert(id), "{id} twice");
            lessor.revoke(id).unwrap();
        }
        now += Duration::from_millis(1);
    }
    assert_eq!((seen.len(), calls), (100_000, 201));
    assert!(lessor.is_empty());
    assert!(lessor.queued() <= 2_048, "{} slots of dead leases are left", lessor.queued());
}

#[test]
fn a_promotion_with_very_many_leases_never_shortens_and_never_storms() {
    let rate = 10_000;
    let mut lessor = Lessor::new(Config { revoke_rate: rate, ..Config::default() });
    for id in 1..=100_000 {
        lessor.grant(LeaseId(id), 30 + id % 3, Duration::ZERO).unwrap();
    }
    lessor.promote(seconds(1), seconds(5));
    let mut now = seconds(5);
    let mut left = 100_000;
    while left > 0 {
        now += seconds(1);
        let ended = lessor.expired(now, usize::MAX);
        assert!(ended.len() <= rate * 3 / 4, "{} in one second", ended.len());
        for id in ended {
            let granted = lessor.granted_ttl(id).unwrap();
            assert!(now >= seconds(6 + granted as u64), "{id} ended early, at {now:?}");
            lessor.revoke(id).unwrap();
            left -= 1;
        }
        assert!(now < seconds(60), "{left} leases linger");
    }
}

#[test]
fn renewals_leave_nothing_behind() {
    let mut lessor = Lessor::new(Config::default());
    let epoch = lessor.promote(Duration::ZERO, Duration::ZERO);
    for id in 1..=1_000 {
        lessor.grant(LeaseId(id), 600, Duration::ZERO).unwrap();
    }
    let before = lessor.queued();
    for round in 0..1_000u64 {
        for id in 1..=1_000 {
            let renewal = lessor.renew(epoch, LeaseId(id), Duration::from_millis(round)).unwrap();
            assert_eq!(renewal, Renewal::Renewed(600));
        }
    }
    assert_eq!(lessor.queued(), before);
}

#[test]
fn grants_and_revocations_leave_little_behind() {
    let mut lessor = Lessor::new(Config::default());
    lessor.promote(Duration::ZERO, Duration::ZERO);
    for id in 1..=100_000 {
        lessor.grant(LeaseId(id), 1_000_000, Duration::ZERO).unwrap();
        lessor.revoke(LeaseId(id)).unwrap();
        assert!(lessor.queued() <= 2_048, "{} slots for no leases", lessor.queued());
    }
}

#[test]
fn times_at_the_end_of_the_world_do_not_overflow() {
    let mut lessor = Lessor::new(Config::default());
    lessor.promote(Duration::ZERO, Duration::ZERO);
    lessor.grant(LeaseId(1), lease::MAX_TTL, Duration::MAX).unwrap();
    lessor.promote(Duration::MAX, Duration::MAX);
    assert_eq!(lessor.expired(seconds(1), 10), []);
}
