//! Metrics of what only etcd has: there for dashboards that ask for them, and never moved.
//!
//! - `etcd_debugging_store_*` tell of the store of etcd's API of before 2016, which is gone here;
//! - `etcd_grpc_proxy_*` of a proxy, which etcd's binary contains;
//! - bbolt takes a commit in three phases, of which redb has the last: rows are at their places before it.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::metrics::histogram;

const HELP: &str = "Nothing: Cairn has no such thing.";

const COUNTERS: [&str; 3] = [
    "etcd_debugging_store_expires_total",
    "etcd_debugging_store_watch_requests_total",
    "etcd_grpc_proxy_events_coalescing_total",
];

const GAUGES: [&str; 5] = [
    "etcd_debugging_store_watchers",
    "etcd_grpc_proxy_cache_hits_total",
    "etcd_grpc_proxy_cache_keys_total",
    "etcd_grpc_proxy_cache_misses_total",
    "etcd_grpc_proxy_watchers_coalescing_total",
];

/// By `action`, with the one that an idle etcd shows.
const ACTIONS: [(&str, &str); 2] =
    [("etcd_debugging_store_reads_total", "getRecursive"), ("etcd_debugging_store_writes_total", "set")];

const TIMES: [&str; 2] = [
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
    "etcd_debugging_disk_backend_commit_spill_duration_seconds",
];

/// Enters them.
pub(crate) fn register(registry: &Registry) {
    let enter = |metric| registry.register(metric).expect("a metric name used once");
    for name in COUNTERS {
        enter(Box::new(IntCounter::new(name, HELP).expect("a valid metric name")));
    }
    for name in GAUGES {
        enter(Box::new(IntGauge::new(name, HELP).expect("a valid metric name")));
    }
    for (name, action) in ACTIONS {
        let counters = IntCounterVec::new(Opts::new(name, HELP), &["action"]).expect("a valid metric name");
        counters.with_label_values(&[action]);
        enter(Box::new(counters));
    }
    for name in TIMES {
        histogram(registry, name, HELP, 0.001, 14);
    }
}
