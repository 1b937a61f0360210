//! The member's numbers under etcd's metric names, so that dashboards and alerts go on working.
//!
//! Counters and histograms are moved where the thing happens. Gauges that merely repeat a number
//! that lives elsewhere are read at scrape time, so nothing has to keep them up to date.

use std::time::Duration;

use api::etcdserverpb::{AlarmType, TxnResponse};
use api::raft_request::Op;
use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

use crate::member::Member;
use crate::nothing;
use crate::peer_metrics::{self, PeerTimes};
use crate::tally;
use crate::times::{Shape, Times};

/// Clients switch features on it.
pub use api::ETCD_VERSION;

/// The numbers that are moved as things happen.
pub struct Metrics {
    registry: Registry,
    peer_times: PeerTimes,
    /// Time to write a snapshot for another member, seconds.
    pub backend_snapshot: Histogram,
    snap_encoding: Histogram,
    snap_save: Histogram,
    snap_fsync: Histogram,
    /// Learners promoted by this leader.
    pub learners_promoted: IntCounter,
    /// Learners that this leader refused to promote, by reason.
    pub learners_refused: IntCounterVec,
    /// Time of a WAL sync, seconds.
    pub wal_fsync: Histogram,
    /// Bytes written to the log. A gauge, as etcd's.
    pub(crate) wal_bytes: IntGauge,
    /// Time to put a group of records into the WAL's buffer, seconds.
    pub wal_write: Histogram,
    /// Time of a flush to redb, seconds.
    pub backend_commit: Histogram,
    /// Time of a defragmentation, seconds.
    pub backend_defrag: Histogram,
    apply: Times,
    requests: Times,
    range_times: Times,
    /// Entries and reads that took longer than `--warning-apply-duration`.
    pub slow_apply: IntCounter,
    /// Bytes of keys and values that were put. A gauge, as etcd's.
    pub(crate) put_size: IntGauge,
    /// The part of a flush in which redb writes and syncs, seconds.
    pub(crate) commit_write: Histogram,
    /// Time of a step of a compaction, milliseconds: the index, and what it knows to be dead.
    pub(crate) compaction_step: Histogram,
    /// The same, under the name of a look through the index alone: here it is one with the other.
    pub(crate) index_step: Histogram,
    /// What it takes until a stream's connection has taken a response of a watcher, and the share of each of
    /// its events; one about a watcher; and one of progress.
    pub watch_events: Times,
    /// See there.
    pub watch_event: Times,
    /// See there.
    pub watch_control: Times,
    /// See there.
    pub watch_progress: Times,
    /// Proposals that came to nothing.
    pub proposals_failed: IntCounter,
    /// Read rounds that came to nothing.
    pub read_indexes_failed: IntCounter,
    /// Heartbeats of a leader that left late.
    pub heartbeat_failures: IntCounter,
    /// Snapshots of other members being installed.
    pub snapshot_installs: IntGauge,
    /// Applied puts, also those of transactions.
    pub puts: IntCounter,
    /// Applied deletes, also those of transactions.
    pub deletes: IntCounter,
    /// Ranges served.
    pub ranges: IntCounter,
    /// Transactions of more than one operation, applied or served.
    pub txns: IntCounter,
    /// Leases granted.
    pub leases_granted: IntCounter,
    /// Leases revoked.
    pub leases_revoked: IntCounter,
    /// Keep-alives answered.
    pub leases_renewed: IntCounter,
    /// Revocations proposed because a lease had expired.
    pub leases_expired: IntCounter,
    /// The times to live that leases were granted, seconds.
    pub lease_ttl: Histogram,
    /// Reads that waited for their round longer than a second.
    pub slow_read_indexes: IntCounter,
    /// When the last compaction was over, seconds since 1970.
    pub compaction_last: IntGauge,
    /// Bytes received on client connections.
    pub client_received: IntCounter,
    /// Bytes sent on client connections.
    pub client_sent: IntCounter,
    /// Rows that compaction took away.
    pub compacted_keys: IntCounter,
    /// Time of whole compactions, milliseconds.
    pub compaction_total: Histogram,
    /// Time of `Hash`, seconds.
    pub hash: Histogram,
    /// Time of `HashKV`, seconds.
    pub hash_rev: Histogram,
    /// Events handed to watchers.
    pub events: IntCounter,
    /// Health checks answered well.
    pub health_success: IntCounter,
    /// Health checks answered badly.
    pub health_failures: IntCounter,
    /// Open watch streams.
    pub watch_streams: IntGauge,
    /// Watchers on all streams.
    pub watchers: IntGauge,
    /// Watchers that read history.
    pub slow_watchers: IntGauge,
    /// Events that wait to be sent.
    pub pending_events: IntGauge,
}

/// Makes instruments and enters them into one registry. A name that is taken or malformed is a
/// mistake in this file that the first test finds.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::new(name, help).expect("a valid metric name");
        self.0.register(Box::new(counter.clone())).expect("a metric name used once");
        counter
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let gauge = IntGauge::new(name, help).expect("a valid metric name");
        self.0.register(Box::new(gauge.clone())).expect("a metric name used once");
        gauge
    }

    fn histogram(&self, name: &str, help: &str, first: f64, count: usize) -> Histogram {
        histogram(self.0, name, help, first, count)
    }
}

/// A histogram of `count` buckets from `first`, each twice the one before.
pub(crate) fn histogram(registry: &Registry, name: &str, help: &str, first: f64, count: usize) -> Histogram {
    let buckets = prometheus::exponential_buckets(first, 2.0, count).expect("a valid bucket layout");
    let histogram =
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect("a valid metric name");
    registry.register(Box::new(histogram.clone())).expect("a metric name used once");
    histogram
}

/// The labels of a histogram by operation and success: two samples for each.
fn outcomes(
    names: impl Iterator<Item = &'static str>,
    labels: impl Fn(&'static str, &'static str) -> Vec<&'static str>,
) -> Vec<Vec<&'static str>> {
    names.flat_map(|name| [labels(name, "false"), labels(name, "true")]).collect()
}

/// The place of an outcome among those samples.
fn place(operation: usize, success: bool) -> usize {
    operation * 2 + usize::from(success)
}

/// Where read-only transactions are, which etcd tells apart, among the operations.
const READ_ONLY_TXN: usize = Op::ALL.len();

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        nothing::register(&registry);
        let times = |name, help, first, bounds| {
            Times::new(&registry, Shape { name, help, first: Duration::from_micros(first), bounds })
        };
        let names = || Op::ALL.iter().map(|op| op.name());
        let apply = Shape {
            name: "etcd_server_apply_duration_seconds",
            help: "Time to apply one committed request.",
            first: Duration::from_micros(100),
            bounds: 20,
        };
        let apply = Times::with_labels(
            &registry,
            apply,
            &["op", "success", "version"],
            outcomes(names(), |op, success| vec![op, success, "v3"]),
        );
        let requests = Shape {
            name: "etcd_server_request_duration_seconds",
            help: "Time that a request took in this server.",
            first: Duration::from_millis(1),
            bounds: 14,
        };
        let requests = Times::with_labels(
            &registry,
            requests,
            &["success", "type"],
            outcomes(names().chain(["ReadonlyTxn"]), |kind, success| vec![success, kind]),
        );
        let ranges = Shape {
            name: "etcd_server_range_duration_seconds",
            help: "Time to read a range.",
            first: Duration::from_micros(100),
            bounds: 20,
        };
        let range_times =
            Times::with_labels(&registry, ranges, &["success"], vec![vec!["false"], vec!["true"]]);
        let learners_refused = IntCounterVec::new(
            Opts::new("etcd_server_learner_promote_failures", "Learners that were not promoted."),
            &["Reason"],
        )
        .expect("a valid metric name");
        registry.register(Box::new(learners_refused.clone())).expect("a metric name used once");
        Self {
            peer_times: PeerTimes::new(&registry),
            backend_snapshot: make.histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Time to write a snapshot of the backend.",
                0.01,
                17,
            ),
            snap_encoding: make.histogram(
                "etcd_debugging_snap_save_marshalling_duration_seconds",
                "Times to encode notes of what the backend covers.",
                0.001,
                14,
            ),
            snap_save: make.histogram(
                "etcd_debugging_snap_save_total_duration_seconds",
                "Times to save notes of what the backend covers.",
                0.001,
                14,
            ),
            snap_fsync: make.histogram(
                "etcd_snap_fsync_duration_seconds",
                "Times of the syncs that make notes of what the backend covers durable.",
                0.001,
                14,
            ),
            learners_promoted: make
                .counter("etcd_server_learner_promote_successes", "Learners that were promoted."),
            learners_refused,
            wal_bytes: make.gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log."),
            wal_fsync: make.histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "Time of a sync of the write-ahead log.",
                0.001,
                14,
            ),
            wal_write: make.histogram(
                "etcd_disk_wal_write_duration_seconds",
                "Time to encode a group of records for the write-ahead log.",
                0.001,
                14,
            ),
            backend_commit: make.histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "Time of a commit of applied changes to the backend.",
                0.001,
                14,
            ),
            backend_defrag: make.histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "Time of a defragmentation of the backend.",
                0.1,
                13,
            ),
            apply,
            requests,
            range_times,
            slow_apply: make.counter(
                "etcd_server_slow_apply_total",
                "Applied entries and reads that took longer than the warning limit.",
            ),
            put_size: make.gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes put by this member."),
            commit_write: make.histogram(
                "etcd_debugging_disk_backend_commit_write_duration_seconds",
                "Time to write and sync what a commit changes.",
                0.001,
                14,
            ),
            compaction_step: make.histogram(
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Time of a step of a compaction.",
                1.0,
                13,
            ),
            index_step: make.histogram(
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Time of a step of a compaction.",
                0.5,
                14,
            ),
            watch_events: times(
                "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
                "Time until a response with events has left.",
                1000,
                14,
            ),
            watch_event: times(
                "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
                "The same, by the events in it.",
                1000,
                14,
            ),
            watch_control: times(
                "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
                "Time until a response about a watcher has left.",
                1000,
                14,
            ),
            watch_progress: times(
                "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
                "Time until a notification of progress has left.",
                1000,
                14,
            ),
            proposals_failed: make.counter("etcd_server_proposals_failed_total", "Proposals that failed."),
            read_indexes_failed: make
                .counter("etcd_server_read_indexes_failed_total", "Read rounds that failed."),
            heartbeat_failures: make.counter(
                "etcd_server_heartbeat_send_failures_total",
                "Heartbeats that a leader sent late: it is kept waiting, most likely by its disk.",
            ),
            snapshot_installs: make.gauge(
                "etcd_server_snapshot_apply_in_progress_total",
                "Whether a snapshot of another member is being taken in.",
            ),
            puts: make.counter("etcd_mvcc_put_total", "Puts seen by this member."),
            deletes: make.counter("etcd_mvcc_delete_total", "Deletes seen by this member."),
            ranges: make.counter("etcd_mvcc_range_total", "Ranges seen by this member."),
            txns: make.counter("etcd_mvcc_txn_total", "Transactions seen by this member."),
            leases_granted: make.counter("etcd_debugging_lease_granted_total", "Leases granted."),
            leases_revoked: make.counter("etcd_debugging_lease_revoked_total", "Leases revoked."),
            leases_renewed: make
                .counter("etcd_debugging_lease_renewed_total", "Leases renewed by this leader."),
            leases_expired: make.counter("etcd_debugging_server_lease_expired_total", "Leases that expired."),
            lease_ttl: make.histogram(
                "etcd_debugging_lease_ttl_total",
                "Times to live that leases were granted, in seconds.",
                1.0,
                24,
            ),
            slow_read_indexes: make
                .counter("etcd_server_slow_read_indexes_total", "Reads that waited long for their round."),
            compaction_last: make.gauge(
                "etcd_debugging_mvcc_db_compaction_last",
                "When the last compaction was over, in seconds since 1970.",
            ),
            client_received: make.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes received on client connections.",
            ),
            client_sent: make
                .counter("etcd_network_client_grpc_sent_bytes_total", "Bytes sent on client connections."),
            compacted_keys: make.counter(
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Versions that compaction took away.",
            ),
            compaction_total: make.histogram(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Time of whole compactions.",
                100.0,
                14,
            ),
            hash: make.histogram(
                "etcd_mvcc_hash_duration_seconds",
                "Time of a hash over the backend.",
                0.01,
                15,
            ),
            hash_rev: make.histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "Time of a hash over keys and values up to a revision.",
                0.01,
                15,
            ),
            events: make.counter("etcd_debugging_mvcc_events_total", "Events sent by this member."),
            health_success: make.counter("etcd_server_health_success", "Health checks that went well."),
            health_failures: make.counter("etcd_server_health_failures", "Health checks that failed."),
            watch_streams: make.gauge("etcd_debugging_mvcc_watch_stream_total", "Open watch streams."),
            watchers: make.gauge("etcd_debugging_mvcc_watcher_total", "Watchers on all streams."),
            slow_watchers: make
                .gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind the present."),
            pending_events: make.gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Events that wait to be sent to watchers.",
            ),
            registry,
        }
    }

    /// Notes that a note of what the backend covers was saved: the times to encode it and to sync it. What
    /// etcd writes to a file of its own then, and calls a snapshot, is a record of the WAL here.
    pub(crate) fn covered(&self, encoding: Duration, syncing: Duration) {
        self.snap_encoding.observe(encoding.as_secs_f64());
        self.snap_fsync.observe(syncing.as_secs_f64());
        self.snap_save.observe((encoding + syncing).as_secs_f64());
    }

    /// An entry was applied: what it asked for, whether it was granted, and how long that took.
    pub(crate) fn applied(&self, op: Op, success: bool, took: Duration) {
        self.apply.observe(place(op as usize, success), took);
    }

    /// A request was answered. For what went through the log, success is that it was applied, whatever it
    /// came to.
    pub fn answered(&self, op: Op, success: bool, took: Duration) {
        self.requests.observe(place(op as usize, success), took);
    }

    /// A transaction that only reads was answered.
    pub fn answered_read_only(&self, success: bool, took: Duration) {
        self.requests.observe(place(READ_ONLY_TXN, success), took);
    }

    /// A range was read.
    pub fn ranged(&self, success: bool, took: Duration) {
        self.range_times.observe(usize::from(success), took);
    }

    /// Counts a transaction that only read.
    pub fn count_read_only(&self, response: &TxnResponse) {
        tally::read_only(self, response);
    }

    /// Moves the gauges of watchers by what has changed in one hub.
    pub(crate) fn move_watchers(&self, from: watch::Counts, to: watch::Counts) {
        let change = |gauge: &IntGauge, from: usize, to: usize| {
            if from != to {
                gauge.add(to as i64 - from as i64);
            }
        };
        change(&self.watch_streams, from.streams, to.streams);
        change(&self.watchers, from.watchers, to.watchers);
        change(&self.slow_watchers, from.slow_watchers, to.slow_watchers);
        change(&self.pending_events, from.pending_events, to.pending_events);
    }

    /// Times on the roads to other members.
    pub(crate) fn peer_times(&self) -> &PeerTimes {
        &self.peer_times
    }

    /// The registry, for the rooms further out to enter theirs.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// All metrics of the member in Prometheus' text format.
pub fn scrape(member: &Member) -> Vec<u8> {
    let mut families = member.metrics().registry.gather();
    families.extend(read_elsewhere(member).gather());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut text = Vec::new();
    // Writing to memory fails only for a family without samples, which a registry never gathers.
    let _ = TextEncoder::new().encode(&families, &mut text);
    text
}

fn read_elsewhere(member: &Member) -> Registry {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, value: f64| {
        let gauge = Gauge::new(name, help).expect("a valid metric name");
        gauge.set(value);
        registry.register(Box::new(gauge)).expect("a metric name used once");
    };
    let counter = |name: &str, help: &str, value: f64| {
        let counter = Counter::new(name, help).expect("a valid metric name");
        counter.inc_by(value);
        registry.register(Box::new(counter)).expect("a metric name used once");
    };
    let labelled = |name: &str, help: &str, label: &str, value: &str| {
        let gauge = GaugeVec::new(Opts::new(name, help), &[label]).expect("a valid metric name");
        gauge.with_label_values(&[value]).set(1.0);
        registry.register(Box::new(gauge)).expect("a metric name used once");
    };
    let flag = |is: bool| if is { 1.0 } else { 0.0 };
    let raft = member.raft();
    gauge("etcd_server_has_leader", "Whether a leader is known.", flag(raft.leader() != 0));
    gauge("etcd_server_is_leader", "Whether this member leads.", flag(raft.is_leader()));
    gauge("etcd_server_is_learner", "Whether this member is a learner.", flag(member.is_learner()));
    gauge("etcd_server_proposals_committed_total", "The committed index.", raft.committed() as f64);
    gauge("etcd_server_proposals_applied_total", "The applied index.", raft.applied() as f64);
    gauge("etcd_server_proposals_pending", "Proposals that wait for their outcome.", raft.pending() as f64);
    counter("etcd_server_leader_changes_seen_total", "Leaders seen come.", raft.leader_changes() as f64);
    gauge("etcd_server_quota_backend_bytes", "The quota in force.", member.quota() as f64);
    gauge("etcd_disk_defrag_inflight", "Whether a defragmentation runs.", flag(member.defragmenting() > 0));
    let store = member.store();
    gauge("etcd_debugging_mvcc_current_revision", "The current revision.", store.current_revision() as f64);
    gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The revision compacted to.",
        store.compact_revision() as f64,
    );
    let auth = member.auth();
    gauge("etcd_debugging_auth_revision", "The revision of users and roles.", auth.revision() as f64);
    gauge("etcd_debugging_mvcc_keys_total", "Live keys.", store.live_keys() as f64);
    gauge(
        "etcd_mvcc_db_total_size_in_bytes",
        "Bytes that the backend's file takes.",
        member.backend().size() as f64,
    );
    gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of the backend that hold data.",
        member.backend().size_in_use() as f64,
    );
    gauge(
        "etcd_mvcc_db_open_read_transactions",
        "States of the backend that somebody reads, the newest included.",
        member.backend().open_reads() as f64,
    );
    let ranges = member.metrics().ranges.get() as f64;
    counter("etcd_debugging_mvcc_range_total", "Ranges seen by this member.", ranges);
    if let Some(alarms) = alarms(member) {
        registry.register(Box::new(alarms)).expect("a metric name used once");
    }
    labelled("etcd_server_id", "This member's id.", "server_id", &format!("{:x}", member.id()));
    labelled("etcd_server_version", "The etcd version whose API is served.", "server_version", ETCD_VERSION);
    // There is no Go in it.
    labelled("etcd_server_go_version", "The version of Go.", "server_go_version", "none");
    labelled("cairn_server_version", "Cairn's own version.", "server_version", env!("CARGO_PKG_VERSION"));
    if let Some(version) = &member.cluster().version {
        // Major and minor: patches do not change what a cluster can do.
        let version = version.rsplit_once('.').map_or(version.as_str(), |(feature, _)| feature);
        labelled("etcd_cluster_version", "The cluster's version.", "cluster_version", version);
    }
    let features = &member.config().features;
    if !features.is_empty() {
        let options = Opts::new("etcd_server_feature_enabled", "Feature gates, and whether they are on.");
        let gauges = GaugeVec::new(options, &["name", "stage"]).expect("a valid metric name");
        for feature in features {
            gauges.with_label_values(&[feature.name, feature.stage]).set(flag(feature.is_on));
        }
        registry.register(Box::new(gauges)).expect("a metric name used once");
    }
    crate::process::report(&gauge, &counter);
    peer_metrics::read(member, &registry);
    registry
}

/// One sample for each alarm in force, as etcd has it; none of them where there is no alarm.
fn alarms(member: &Member) -> Option<GaugeVec> {
    let options = Opts::new("etcd_debugging_server_alarms", "Alarms in force, by member and type.");
    let gauges = GaugeVec::new(options, &["server_id", "alarm_type"]).expect("a valid metric name");
    let mut any = false;
    for alarm in member.alarms().get(AlarmType::None.into()) {
        let kind = AlarmType::try_from(alarm.alarm).unwrap_or(AlarmType::None);
        gauges.with_label_values(&[format!("{:x}", alarm.member_id).as_str(), kind.as_str_name()]).set(1.0);
        any = true;
    }
    any.then_some(gauges)
}
