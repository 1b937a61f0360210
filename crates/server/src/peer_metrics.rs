//! The numbers of the roads to other members, under etcd's names.
//!
//! What the peers count is read at scrape time; only what is measured as it happens is kept here.

use peer::{Measured, PeerStatus};
use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::member::Member;
use crate::metrics;

/// Times, by member.
pub(crate) struct PeerTimes {
    round_trip: HistogramVec,
    sent: HistogramVec,
    received: HistogramVec,
    saved: Histogram,
    synced: Histogram,
}

impl PeerTimes {
    pub(crate) fn new(registry: &Registry) -> Self {
        let histogram = |name: &str, help: &str, label: &str, first: f64, count: usize| {
            let buckets = prometheus::exponential_buckets(first, 2.0, count).expect("a valid bucket layout");
            let histogram = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &[label])
                .expect("a valid metric name");
            registry.register(Box::new(histogram.clone())).expect("a metric name used once");
            histogram
        };
        Self {
            round_trip: histogram(
                "etcd_network_peer_round_trip_time_seconds",
                "Round-trip times to other members.",
                "To",
                0.0001,
                16,
            ),
            sent: histogram(
                "etcd_network_snapshot_send_total_duration_seconds",
                "Times to send snapshots.",
                "To",
                0.1,
                10,
            ),
            received: histogram(
                "etcd_network_snapshot_receive_total_duration_seconds",
                "Times to receive snapshots.",
                "From",
                0.1,
                10,
            ),
            saved: metrics::histogram(
                registry,
                "etcd_snap_db_save_total_duration_seconds",
                "Times to receive and save databases that other members have sent.",
                0.1,
                10,
            ),
            synced: metrics::histogram(
                registry,
                "etcd_snap_db_fsync_duration_seconds",
                "How much of these times went into syncs.",
                0.001,
                14,
            ),
        }
    }

    /// Something was measured.
    pub(crate) fn observe(&self, id: u64, what: Measured) {
        let (histogram, took) = match what {
            Measured::RoundTrip(took) => (&self.round_trip, took),
            Measured::SnapshotSent(took) => (&self.sent, took),
            Measured::SnapshotReceived { took, syncing } => {
                self.saved.observe(took.as_secs_f64());
                self.synced.observe(syncing.as_secs_f64());
                (&self.received, took)
            }
        };
        histogram.with_label_values(&[format!("{id:x}").as_str()]).observe(took.as_secs_f64());
    }
}

/// A counter of each peer: its name, what it counts, its label, and where its value is.
type Counter = (&'static str, &'static str, &'static str, fn(&PeerStatus) -> u64);

const COUNTERS: [Counter; 8] = [
    ("etcd_network_peer_sent_bytes_total", "Bytes sent.", "To", |peer| peer.sent_bytes),
    ("etcd_network_peer_sent_failures_total", "Messages not sent.", "To", |peer| peer.sent_failures),
    ("etcd_network_peer_received_bytes_total", "Bytes received.", "From", |peer| peer.received_bytes),
    ("etcd_network_peer_received_failures_total", "Messages of no use.", "From", |peer| {
        peer.received_failures
    }),
    ("etcd_network_snapshot_send_success", "Snapshots sent.", "To", |peer| peer.snapshots_sent),
    ("etcd_network_snapshot_send_failures", "Snapshots not sent.", "To", |peer| peer.snapshot_send_failures),
    ("etcd_network_snapshot_receive_success", "Snapshots received.", "From", |peer| peer.snapshots_received),
    ("etcd_network_snapshot_receive_failures", "Snapshots not received.", "From", |peer| {
        peer.snapshot_receive_failures
    }),
];

/// A gauge likewise.
const GAUGES: [Counter; 2] = [
    ("etcd_network_snapshot_send_inflights_total", "Snapshots being sent.", "To", |peer| {
        peer.snapshots_sending
    }),
    ("etcd_network_snapshot_receive_inflights_total", "Snapshots being received.", "From", |peer| {
        peer.snapshots_receiving
    }),
];

/// Enters what the peers count.
pub(crate) fn read(member: &Member, registry: &Registry) {
    let peers = member.peers().status();
    if peers.is_empty() {
        return;
    }
    let own = format!("{:x}", member.id());
    let counter = |name: &str, help: &str, labels: &[&str]| {
        let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric name");
        registry.register(Box::new(counters.clone())).expect("a metric name used once");
        counters
    };
    let gauge = |name: &str, help: &str, labels: &[&str]| {
        let gauges = GaugeVec::new(Opts::new(name, help), labels).expect("a valid metric name");
        registry.register(Box::new(gauges.clone())).expect("a metric name used once");
        gauges
    };
    for (name, help, label, value) in COUNTERS {
        let counters = counter(name, help, &[label]);
        for peer in &peers {
            counters.with_label_values(&[format!("{:x}", peer.id).as_str()]).inc_by(value(peer));
        }
    }
    for (name, help, label, value) in GAUGES {
        let gauges = gauge(name, help, &[label]);
        for peer in &peers {
            gauges.with_label_values(&[format!("{:x}", peer.id).as_str()]).set(value(peer) as f64);
        }
    }
    let between = ["Local", "Remote"];
    let known = gauge("etcd_network_known_peers", "Members that are known.", &between);
    let active = gauge("etcd_network_active_peers", "Members that can be reached.", &between);
    let lost = counter("etcd_network_disconnected_peers_total", "Members that were lost.", &between);
    for peer in &peers {
        let other = format!("{:x}", peer.id);
        let labels = [own.as_str(), other.as_str()];
        known.with_label_values(&labels).set(1.0);
        active.with_label_values(&labels).set(if peer.active_since.is_some() { 1.0 } else { 0.0 });
        lost.with_label_values(&labels).inc_by(peer.disconnects);
    }
}
