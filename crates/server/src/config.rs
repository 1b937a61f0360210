//! What a member is told at its start; flags, environment and YAML are the binary's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::auto_compaction::AutoCompaction;
use crate::passwords::DEFAULT_COST;
use crate::tokens::AuthToken;

/// `--initial-cluster-state`: what an empty data directory is the beginning of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// A new cluster.
    #[default]
    New,
    /// A new member of an existing cluster.
    Existing,
}

/// Settings of one member. Field by field the flag of the same name decides it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--name`.
    pub name: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--wal-dir`; inside the data directory where it is not given.
    pub wal_dir: Option<PathBuf>,
    /// `--initial-advertise-peer-urls`: the member's id is a hash over them.
    pub peer_urls: Vec<String>,
    /// `--advertise-client-urls`.
    pub client_urls: Vec<String>,
    /// `--initial-cluster`: the peer URLs of each member by its name, this one's too. Looked at only
    /// where the data directory holds no member yet.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// `--initial-cluster-state`; looked at likewise.
    pub cluster_state: ClusterState,
    /// `--initial-cluster-token`: part of the cluster's id.
    pub cluster_token: String,
    /// `--force-new-cluster`: drop what is not committed, and all other members.
    pub force_new_cluster: bool,
    /// `--initial-election-tick-advance`: whoever starts among reachable peers waits for one
    /// heartbeat of a leader, and not for a whole election timeout, before it campaigns.
    pub initial_election_tick_advance: bool,
    /// `--strict-reconfig-check`: refuse changes of members that would cost the quorum.
    pub strict_reconfig_check: bool,
    /// `--raft-read-timeout`: silence on a peer's connection after which it is dropped.
    pub raft_read_timeout: Duration,
    /// `--raft-write-timeout`: the time that a peer's connection has to take what is written.
    pub raft_write_timeout: Duration,
    /// `--bootstrap-timeout`: how long the founder of a cluster waits for what another member knows
    /// of it.
    pub bootstrap_timeout: Duration,
    /// How long a member without a leader keeps clients waiting at its start (etcd's
    /// `--wait-cluster-ready-timeout`).
    pub ready_timeout: Duration,
    /// `--heartbeat-interval`: one tick of the raft clock.
    pub heartbeat: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--snapshot-count`: entries between two snapshot records in the WAL.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`: entries kept in the WAL behind a snapshot record.
    pub catchup_entries: u64,
    /// `--quota-backend-bytes`, with etcd's default already put in; below 0 there is no limit.
    pub quota_bytes: i64,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--compaction-batch-limit`: rows per step of a compaction.
    pub compaction_batch: usize,
    /// `--compaction-sleep-interval`: the rest between two steps.
    pub compaction_sleep: Duration,
    /// `--downgrade-check-time`: how often a leader looks whether a downgrade is over; never, if it is zero.
    pub downgrade_check: Duration,
    /// `--auto-compaction-mode` and `--auto-compaction-retention`.
    pub auto_compaction: AutoCompaction,
    /// `--corrupt-check-time`: how often the leader compares all members' data; never, if it is zero.
    pub corrupt_check: Duration,
    /// The feature gate `InitialCorruptCheck`: compare with the others before anybody is served.
    pub initial_corrupt_check: bool,
    /// The feature gate `CompactHashCheck`: hash what is compacted, and have the leader compare that.
    pub compact_hash_check: bool,
    /// `--compact-hash-check-time`: how often the leader does.
    pub compact_hash_check_time: Duration,
    /// `--watch-progress-notify-interval`.
    pub progress_interval: Duration,
    /// `--warning-apply-duration`.
    pub warning_apply: Duration,
    /// `--warning-unary-request-duration`.
    pub warning_request: Duration,
    /// `--max-learners`: looked at before a change is proposed, so two that come at the same moment may
    /// exceed it by one. A flag must not decide what an entry does.
    pub max_learners: usize,
    /// How often the time that long leases have left is noted in the log, and so how much longer than
    /// granted a lease may last if leaders change. etcd has no flag for it either.
    pub checkpoint_interval: Duration,
    /// `--auth-token`.
    pub auth_token: AuthToken,
    /// `--auth-token-ttl`: how long a simple token may go unused.
    pub auth_token_ttl: Duration,
    /// `--bcrypt-cost`.
    pub bcrypt_cost: u32,
    /// `--client-cert-auth`: clients prove to own a certificate, and the common name in it is a user's.
    pub client_cert_auth: bool,
    /// How other members are believed, and what they are shown.
    pub peer_tls: tls::Client,
    /// `--metrics extensive`.
    pub extensive_metrics: bool,
    /// `--enable-pprof`: profiles are made for whoever asks over HTTP.
    pub pprof: bool,
    /// Where traces go, if `--enable-distributed-tracing` has them sent.
    pub traces: Option<Traces>,
    /// `--unsafe-no-fsync`.
    pub no_fsync: bool,
    /// The feature gate `StopGRPCServiceOnDefrag`: whether the health service says no meanwhile.
    pub not_serving_on_defrag: bool,
    /// `--feature-gates`: all that there are, for whoever looks at the numbers.
    pub features: Vec<Feature>,
    /// How many threads serve connections.
    pub shards: usize,
}

/// Where traces go, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// `--distributed-tracing-address`: the host and port of the collector.
    pub address: String,
    /// `--distributed-tracing-service-name`.
    pub service_name: String,
    /// `--distributed-tracing-instance-id`; empty where there is none.
    pub instance_id: String,
    /// `--distributed-tracing-sampling-rate`: of a million calls that no client has decided about.
    pub per_million: u32,
}

/// One of etcd's feature gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// How far it has come: `ALPHA`, `BETA`, or nothing.
    pub stage: &'static str,
    /// Whether it is on.
    pub is_on: bool,
}

impl Config {
    /// How often the time that long leases have left is noted, where nothing else is said (etcd's figure).
    pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

    /// What etcd's flags come to when none is given, but for the data directory; one thread serves.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            name: "default".to_owned(),
            data_dir,
            wal_dir: None,
            peer_urls: vec!["http://localhost:2380".to_owned()],
            initial_cluster: BTreeMap::from([(
                "default".to_owned(),
                vec!["http://localhost:2380".to_owned()],
            )]),
            cluster_state: ClusterState::New,
            force_new_cluster: false,
            initial_election_tick_advance: true,
            strict_reconfig_check: true,
            raft_read_timeout: Duration::from_secs(5),
            raft_write_timeout: Duration::from_secs(5),
            bootstrap_timeout: Duration::from_secs(1),
            ready_timeout: Duration::from_secs(5),
            client_urls: vec!["http://localhost:2379".to_owned()],
            cluster_token: "etcd-cluster".to_owned(),
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            pre_vote: true,
            snapshot_count: 10_000,
            catchup_entries: 5_000,
            quota_bytes: 0,
            max_txn_ops: 128,
            max_request_bytes: 1_572_864,
            compaction_batch: 1_000,
            compaction_sleep: Duration::from_millis(10),
            downgrade_check: Duration::from_secs(5),
            auto_compaction: AutoCompaction::Off,
            corrupt_check: Duration::ZERO,
            initial_corrupt_check: false,
            compact_hash_check: true,
            compact_hash_check_time: Duration::from_secs(60),
            progress_interval: Duration::from_secs(600),
            warning_apply: Duration::from_millis(100),
            warning_request: Duration::from_millis(300),
            max_learners: 1,
            checkpoint_interval: Self::CHECKPOINT_INTERVAL,
            auth_token: AuthToken::Simple,
            auth_token_ttl: Duration::from_secs(300),
            bcrypt_cost: DEFAULT_COST,
            client_cert_auth: false,
            peer_tls: tls::Client::default(),
            extensive_metrics: false,
            pprof: false,
            traces: None,
            no_fsync: false,
            not_serving_on_defrag: false,
            features: Vec::new(),
            shards: 1,
        }
    }

    /// Where the WAL lies.
    pub fn wal_dir(&self) -> PathBuf {
        match &self.wal_dir {
            // A mere name has an empty parent, which nobody can open to make the name durable.
            Some(name) if name.parent() == Some(Path::new("")) => Path::new(".").join(name),
            Some(dir) => dir.clone(),
            None => self.data_dir.join("member").join("wal"),
        }
    }

    /// Whether the data directory holds a member already; what concerns the founding of a cluster
    /// is of no interest then.
    pub fn holds_member(&self) -> bool {
        crate::bootstrap::has_wal(&self.wal_dir())
    }

    /// Where snapshots lie on their way from and to other members.
    pub fn snapshot_dir(&self) -> PathBuf {
        crate::snapshots::directory(&self.data_dir.join("member"))
    }

    /// How many ticks a leader may be silent.
    pub(crate) fn election_ticks(&self) -> u64 {
        let ticks = self.election_timeout.as_millis() / self.heartbeat.as_millis().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX).max(2)
    }

    /// Where redb's file lies.
    pub fn backend_path(&self) -> PathBuf {
        self.data_dir.join("member").join("cairn.redb")
    }

    /// How long a request may take before its outcome is reported as unknown: etcd's five seconds
    /// for a busy disk and two elections.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }
}
