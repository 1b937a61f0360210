//! The member's configuration: what the flags mean, checked and with types.
//!
//! `load.rs` finds out what was asked for (command line, environment, file); [`Config::new`] turns it into
//! something a server can be started with, or says in etcd's words why not. Nothing here touches the disk or
//! the network, apart from what `load.rs` is handed to do so.

pub(crate) mod cluster;
mod features;
pub(crate) mod gates;
pub(crate) mod load;
mod security;
#[cfg(test)]
mod tests;
pub(crate) mod url;
mod yaml;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use server::AutoCompaction;

use crate::flags::{self, Given, Status, help, number};
use crate::logging;
use crate::note::{Level, Note};
use security::Security;
use url::Url;

/// The quota that 0 stands for, in bytes.
const DEFAULT_QUOTA: i64 = 2 * 1024 * 1024 * 1024;
const NANOS_PER_HOUR: i64 = 3_600_000_000_000;
/// The longest election timeout, in milliseconds.
const MAX_ELECTION_MS: u64 = 50_000;
/// Requests beyond this many bytes are known to go badly.
const RECOMMENDED_REQUEST_BYTES: u64 = 10 * 1024 * 1024;
/// Connections between members get at least this long, for reading and for writing.
const MIN_RAFT_TIMEOUT: Duration = Duration::from_secs(5);
/// Watches are not told of their progress more often than this.
const MIN_PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Everything a member needs to know to start.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The member's name.
    pub name: String,
    /// Where the member keeps its data.
    pub data_dir: PathBuf,
    /// Where the write-ahead log is, if not below `data_dir`.
    pub wal_dir: Option<PathBuf>,

    /// Where to listen for peers. Each has a [`Url::socket_addr`], or is a path.
    pub listen_peer_urls: Vec<Url>,
    /// Where to listen for clients, likewise.
    pub listen_client_urls: Vec<Url>,
    /// Where to listen for HTTP alone, likewise; `listen_client_urls` are for gRPC alone if there are any.
    pub listen_client_http_urls: Vec<Url>,
    /// Where peers are told to find this member.
    pub advertise_peer_urls: Vec<Url>,
    /// Where clients are told to find this member.
    pub advertise_client_urls: Vec<Url>,
    /// TLS, for those who listen and those who connect.
    pub security: Security,
    /// Set SO_REUSEPORT when listening.
    pub socket_reuse_port: bool,
    /// Set SO_REUSEADDR when listening.
    pub socket_reuse_address: bool,

    /// `name=url,name=url`, not looked at before [`Config::bootstrap`]: a member that has data ignores it.
    pub initial_cluster: String,
    /// Whether an empty data directory begins a cluster or joins one; ignored likewise.
    pub initial_cluster_state: ClusterState,
    /// Goes into the ids of the cluster and its members.
    pub initial_cluster_token: String,

    /// The length of a tick: one heartbeat.
    pub heartbeat_interval: Duration,
    /// How many ticks a leader may be silent.
    pub election_ticks: u64,
    /// Ask whether an election could be won before holding it.
    pub pre_vote: bool,
    /// Shorten the first wait for a leader.
    pub initial_election_tick_advance: bool,
    /// How long a connection between members may be silent.
    pub raft_read_timeout: Duration,
    /// How long bytes may take to leave on a connection between members.
    pub raft_write_timeout: Duration,
    /// Refuse a change of members that would cost the quorum.
    pub strict_reconfig_check: bool,
    /// How many learners the cluster may have.
    pub max_learners: u64,
    /// Be the only member from now on, whoever else there was.
    pub force_new_cluster: bool,

    /// How many applied entries may pass before the log is cut back.
    pub snapshot_count: u64,
    /// How many entries stay in the log when it is cut back.
    pub snapshot_catchup_entries: u64,
    /// Do not wait for the disk.
    pub unsafe_no_fsync: bool,
    /// Have the health service say no while a defragmentation runs.
    pub not_serving_on_defrag: bool,
    /// All feature gates, for whoever looks at the numbers.
    pub features: Vec<server::Feature>,

    /// How much the database may hold, in bytes; none for no limit.
    pub quota_backend_bytes: Option<u64>,
    /// How many operations a list of a transaction may hold.
    pub max_txn_ops: u64,
    /// How long a request may be, in bytes.
    pub max_request_bytes: u64,

    /// The kind of tokens that stand for passwords, with its options.
    pub auth_token: String,
    /// How long a simple token may go unused.
    pub auth_token_ttl: Duration,
    /// How costly hashing a password is.
    pub bcrypt_cost: u32,

    /// How many streams a client may have open on one connection.
    pub max_concurrent_streams: u32,
    /// How long a client must wait between pings; zero for as it likes.
    pub grpc_keepalive_min_time: Duration,
    /// When to ping silent connections; none for never.
    pub grpc_keepalive: Option<KeepAlive>,

    /// Whether the API is there as JSON too.
    pub enable_grpc_gateway: bool,
    /// The origins whose pages may use what is not gRPC.
    pub cors: Vec<String>,
    /// The names that requests for what is not gRPC may give to the member.
    pub host_whitelist: Vec<String>,

    /// How many revisions a step of a compaction removes.
    pub compaction_batch_limit: usize,
    /// How long a compaction rests between two steps.
    pub compaction_sleep_interval: Duration,
    /// How much history to keep.
    pub auto_compaction: AutoCompaction,
    /// How often the leader compares all members' data; 0 for never.
    pub corrupt_check_time: Duration,
    /// How often the leader compares what members hashed when they compacted.
    pub compact_hash_check_time: Duration,
    /// Whether they do.
    pub compact_hash_check: bool,
    /// Whether a member compares its data with the others' before it serves.
    pub initial_corrupt_check: bool,
    /// How often a leader looks whether a downgrade is over; 0 for never.
    pub downgrade_check_time: Duration,
    /// How often idle watches are told how far they have come.
    pub watch_progress_notify_interval: Duration,

    /// Make profiles for whoever asks over HTTP.
    pub enable_pprof: bool,
    /// Where traces go; none for nowhere.
    pub traces: Option<server::Traces>,
    /// How much to measure.
    pub metrics: Metrics,
    /// How long applying an entry may take before the log warns of it.
    pub warning_apply_duration: Duration,
    /// How long a call may take before the log warns of it.
    pub warning_unary_request_duration: Duration,

    /// Where and how to log.
    pub log: logging::Options,
}

/// What an empty data directory is the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterState {
    /// A new cluster.
    New,
    /// A new member of an existing cluster.
    Existing,
}

/// How connections that have fallen silent are found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeepAlive {
    /// How long a connection may be silent before it is pinged.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metrics {
    /// Counters and the histograms that are always there.
    Basic,
    /// A histogram for every kind of call too.
    Extensive,
}

/// Where the flags came from. The two differ in what a missing `advertise-client-urls` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The command line and the environment.
    CommandLine,
    /// `--config-file`.
    File,
}

/// What etcd says when clients would be told an address that nobody listens at.
pub(crate) const UNSET_ADVERTISE: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

impl Config {
    /// Checks what was given, in etcd's order.
    ///
    /// # Errors
    /// The first thing that is wrong, in etcd's words; or the first flag that does nothing yet.
    pub(crate) fn new(given: &Given, source: Source, notes: &mut Vec<Note>) -> Result<Config, String> {
        let log = logging::Options::new(given)?;
        one_source_of_members(given, source)?;
        refuse_what_has_no_effect(given)?;

        let listen_peer_urls = given.urls("listen-peer-urls");
        let listen_client_urls = given.urls("listen-client-urls");
        let listen_client_http_urls = given.urls("listen-client-http-urls");
        let advertise_peer_urls = given.urls("initial-advertise-peer-urls");
        let advertise_client_urls = given.urls("advertise-client-urls");
        listen_peer_urls
            .iter()
            .chain(&listen_client_urls)
            .chain(&listen_client_http_urls)
            .try_for_each(Url::check_bind)?;
        advertisable("--initial-advertise-peer-urls", "\"host:port\"", &advertise_peer_urls)?;
        advertisable(
            "--advertise-client-urls",
            "in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\"",
            &advertise_client_urls,
        )?;

        let (heartbeat_interval, election_ticks) = timing(given)?;
        if source == Source::CommandLine
            && given.has("listen-client-urls")
            && !given.has("advertise-client-urls")
        {
            return Err(UNSET_ADVERTISE.to_owned());
        }
        let auto_compaction = auto_compaction(given)?;

        let security = Security::new(given, source)?;

        let taken = listen_client_http_urls
            .iter()
            .find(|url| listen_client_urls.iter().any(|other| other.is_at(url)));
        if let Some(url) = taken {
            return Err(format!(
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
            ));
        }

        let max_request_bytes = given.unsigned("max-request-bytes");
        if max_request_bytes > RECOMMENDED_REQUEST_BYTES {
            notes.push(
                Note::new(Level::Warn, "exceeded recommended request limit")
                    .with("max-request-bytes", max_request_bytes)
                    .with("recommended-request-bytes", RECOMMENDED_REQUEST_BYTES),
            );
        }

        Ok(Config {
            data_dir: data_dir(given, notes),
            wal_dir: Some(given.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            name: given.text("name"),
            listen_peer_urls,
            listen_client_urls,
            listen_client_http_urls,
            advertise_peer_urls,
            advertise_client_urls,
            security,
            socket_reuse_port: given.bool("socket-reuse-port"),
            socket_reuse_address: given.bool("socket-reuse-address"),
            initial_cluster: given.text("initial-cluster"),
            initial_cluster_state: match given.text("initial-cluster-state").as_str() {
                "existing" => ClusterState::Existing,
                _ => ClusterState::New,
            },
            initial_cluster_token: given.text("initial-cluster-token"),
            heartbeat_interval,
            election_ticks,
            pre_vote: given.bool("pre-vote"),
            initial_election_tick_advance: given.bool("initial-election-tick-advance"),
            raft_read_timeout: raft_timeout(given, "raft-read-timeout", notes)?,
            raft_write_timeout: raft_timeout(given, "raft-write-timeout", notes)?,
            strict_reconfig_check: given.bool("strict-reconfig-check"),
            max_learners: positive(given, "max-learners")?,
            force_new_cluster: given.bool("force-new-cluster"),
            snapshot_count: or_default(given.unsigned("snapshot-count"), 10_000),
            snapshot_catchup_entries: or_default(given.unsigned("snapshot-catchup-entries"), 5_000),
            unsafe_no_fsync: given.bool("unsafe-no-fsync"),
            not_serving_on_defrag: gates::is_on(&given.text("feature-gates"), "StopGRPCServiceOnDefrag"),
            features: features::list(&given.text("feature-gates"))?,
            quota_backend_bytes: quota(given),
            max_txn_ops: given.unsigned("max-txn-ops"),
            max_request_bytes,
            auth_token: given.text("auth-token"),
            auth_token_ttl: Duration::from_secs(or_default(given.unsigned("auth-token-ttl"), 300)),
            bcrypt_cost: u32::try_from(given.unsigned("bcrypt-cost")).unwrap_or(u32::MAX),
            max_concurrent_streams: u32::try_from(given.number("max-concurrent-streams"))
                .map_err(|_| "--max-concurrent-streams is out of range".to_owned())?,
            grpc_keepalive_min_time: given.duration("grpc-keepalive-min-time")?,
            grpc_keepalive: keepalive(given)?,
            enable_grpc_gateway: given.bool("enable-grpc-gateway"),
            cors: given.words("cors"),
            host_whitelist: given.words("host-whitelist"),
            compaction_batch_limit: compaction_batch_limit(given)?,
            compaction_sleep_interval: or_duration(
                given,
                "compaction-sleep-interval",
                Duration::from_millis(10),
            )?,
            auto_compaction,
            corrupt_check_time: given.duration("corrupt-check-time")?,
            compact_hash_check_time: compact_hash_check_time(given)?,
            compact_hash_check: gates::stays_on(&given.text("feature-gates"), "CompactHashCheck"),
            initial_corrupt_check: gates::is_on(&given.text("feature-gates"), "InitialCorruptCheck"),
            downgrade_check_time: given.duration("downgrade-check-time")?,
            watch_progress_notify_interval: progress_interval(given, notes)?,
            enable_pprof: given.bool("enable-pprof"),
            traces: traces(given)?,
            metrics: match given.text("metrics").as_str() {
                "extensive" => Metrics::Extensive,
                _ => Metrics::Basic,
            },
            warning_apply_duration: given.duration("warning-apply-duration")?,
            warning_unary_request_duration: or_duration(
                given,
                "warning-unary-request-duration",
                Duration::from_millis(300),
            )?,
            log,
        })
    }

    /// The line that says with what a member starts; names and shapes are those of etcd's.
    pub(crate) fn note(&self) -> Note {
        let nanos = |duration: Duration| {
            number::show_duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
        };
        let wal_dir = self.wal_dir.as_deref().unwrap_or_else(|| Path::new("")).to_string_lossy();
        let state = match self.initial_cluster_state {
            ClusterState::New => "new",
            ClusterState::Existing => "existing",
        };
        Note::new(Level::Info, "starting an etcd server")
            .text("etcd-version", help::ETCD_VERSION)
            .text("cairn-version", env!("CARGO_PKG_VERSION"))
            .with("max-cpu-available", std::thread::available_parallelism().map_or(1, usize::from))
            .text("name", &self.name)
            .text("data-dir", &self.data_dir.to_string_lossy())
            .text("wal-dir", &wal_dir)
            .text("heartbeat-interval", &nanos(self.heartbeat_interval))
            .text("election-timeout", &nanos(self.election_timeout()))
            .with("snapshot-count", self.snapshot_count)
            .with("snapshot-catchup-entries", self.snapshot_catchup_entries)
            .with("initial-advertise-peer-urls", url::strings(&self.advertise_peer_urls))
            .with("listen-peer-urls", url::strings(&self.listen_peer_urls))
            .with("advertise-client-urls", url::strings(&self.advertise_client_urls))
            .with("listen-client-urls", url::strings(&self.listen_client_urls))
            .text("initial-cluster", &self.initial_cluster)
            .text("initial-cluster-state", state)
            .text("initial-cluster-token", &self.initial_cluster_token)
            .with("quota-backend-bytes", self.quota_backend_bytes.map_or(Value::from(-1), Value::from))
            .with("max-request-bytes", self.max_request_bytes)
            .with("max-concurrent-streams", self.max_concurrent_streams)
            .with("cors", self.cors.clone())
            .with("host-whitelist", self.host_whitelist.clone())
            .with("pre-vote", self.pre_vote)
            .with("max-learners", self.max_learners)
            .with("strict-reconfig-check", self.strict_reconfig_check)
            .with("force-new-cluster", self.force_new_cluster)
            .with("unsafe-no-fsync", self.unsafe_no_fsync)
    }

    /// How long a leader may be silent before an election.
    pub(crate) fn election_timeout(&self) -> Duration {
        self.heartbeat_interval * u32::try_from(self.election_ticks).unwrap_or(u32::MAX)
    }
}

/// Where the members of a cluster are named, they are not looked for as well. A file that names them by etcd's
/// default counts as naming none.
fn one_source_of_members(given: &Given, source: Source) -> Result<(), String> {
    let named = given.has("initial-cluster") && !given.text("initial-cluster").is_empty();
    let named = named && (source == Source::CommandLine || given.text("initial-cluster") != usual_cluster());
    let looked_up = !given.text("discovery-srv").is_empty();
    let discovered = given.words("discovery-endpoints").iter().any(|endpoint| !endpoint.is_empty());
    if [named, looked_up, discovered].iter().filter(|source| **source).count() > 1 {
        return Err("multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                    \"discovery-endpoints\" or \"discovery-srv\""
            .to_owned());
    }
    Ok(())
}

/// What `--initial-cluster` holds where it is not given.
fn usual_cluster() -> &'static str {
    flags::find("initial-cluster").map_or("", |flag| flag.default)
}

/// A flag that promises what is not there is refused; one that asks for what needs no doing is noted.
fn refuse_what_has_no_effect(given: &Given) -> Result<(), String> {
    for flag in given.unusual() {
        if let Status::NotYet(reason) = flag.status {
            return Err(format!(
                "--{} has no effect yet: {reason}. Leave it out, or give it its default, '{}'",
                flag.name, flag.default
            ));
        }
    }
    gates::check(&given.text("feature-gates"))
}

fn advertisable(flag: &str, shape: &str, urls: &[Url]) -> Result<(), String> {
    urls.iter()
        .try_for_each(Url::check_host)
        .map_err(|words| format!("{flag} {:?} must be {shape} ({words})", url::join(urls)))
}

/// The length of a tick, and how many of them an election timeout has.
fn timing(given: &Given) -> Result<(Duration, u64), String> {
    let tick = given.unsigned("heartbeat-interval");
    let election = given.unsigned("election-timeout");
    if tick == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
    }
    if election == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".to_owned());
    }
    if tick.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{tick}ms]"
        ));
    }
    if election > MAX_ELECTION_MS {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {MAX_ELECTION_MS}ms"
        ));
    }
    Ok((Duration::from_millis(tick), election / tick))
}

/// How much history to keep: a whole number counts hours or, in mode revision, revisions; anything else is a
/// duration, of which mode revision takes the nanoseconds for a number of revisions, as etcd does.
fn auto_compaction(given: &Given) -> Result<AutoCompaction, String> {
    let by_revision = match given.text("auto-compaction-mode").as_str() {
        "periodic" => false,
        "revision" => true,
        "" => return Err("undefined auto-compaction-mode".to_owned()),
        other => return Err(format!("unknown auto-compaction-mode {other:?}")),
    };
    let retention = given.text("auto-compaction-retention");
    let wrong = |words: &str| format!("error parsing CompactionRetention: time: {words} {retention:?}");
    let amount = match retention.parse::<i64>() {
        Ok(revisions) if revisions >= 0 && by_revision => revisions,
        Ok(hours) if hours >= 0 => {
            hours.checked_mul(NANOS_PER_HOUR).ok_or_else(|| wrong("duration out of range"))?
        }
        _ => number::duration(&retention).map_err(|_| wrong("invalid duration"))?,
    };
    match u64::try_from(amount) {
        Err(_) => Err(wrong("negative duration")),
        Ok(0) => Ok(AutoCompaction::Off),
        Ok(_) if by_revision => Ok(AutoCompaction::Revision(amount)),
        Ok(nanos) => Ok(AutoCompaction::Periodic(Duration::from_nanos(nanos))),
    }
}

/// Where traces go, if anywhere. What else is said of them counts only then.
fn traces(given: &Given) -> Result<Option<server::Traces>, String> {
    if !given.bool("enable-distributed-tracing") {
        return Ok(None);
    }
    let wrong = |why: &str| format!("distributed tracing configurition is not valid: ({why})");
    let rate = given.number("distributed-tracing-sampling-rate");
    let per_million = match u32::try_from(rate) {
        Err(_) if rate < 0 => return Err(wrong("tracing sampling rate must be positive")),
        Ok(rate @ 0..=1_000_000) => rate,
        _ => return Err(wrong("tracing sampling rate must be less than 1000000")),
    };
    Ok(Some(server::Traces {
        address: given.text("distributed-tracing-address"),
        service_name: given.text("distributed-tracing-service-name"),
        instance_id: given.text("distributed-tracing-instance-id"),
        per_million,
    }))
}

fn data_dir(given: &Given, notes: &mut Vec<Note>) -> PathBuf {
    let dir = given.text("data-dir");
    if given.has("data-dir") && !dir.is_empty() {
        return PathBuf::from(dir);
    }
    let dir = format!("{}.etcd", given.text("name"));
    notes.push(Note::new(Level::Warn, "'data-dir' was empty; using default").text("data-dir", &dir));
    PathBuf::from(dir)
}

fn quota(given: &Given) -> Option<u64> {
    match given.number("quota-backend-bytes") {
        0 => u64::try_from(DEFAULT_QUOTA).ok(),
        bytes => u64::try_from(bytes).ok(),
    }
}

fn keepalive(given: &Given) -> Result<Option<KeepAlive>, String> {
    let interval = given.duration("grpc-keepalive-interval")?;
    let timeout = given.duration("grpc-keepalive-timeout")?;
    let on = !interval.is_zero() && !timeout.is_zero();
    Ok(on.then_some(KeepAlive { interval, timeout }))
}

fn compaction_batch_limit(given: &Given) -> Result<usize, String> {
    let limit = or_default(positive(given, "compaction-batch-limit")?, 1000);
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

fn compact_hash_check_time(given: &Given) -> Result<Duration, String> {
    let interval = given.duration("compact-hash-check-time").map_err(|words| words.replace(">=0", ">0"))?;
    match interval.is_zero() {
        true => Err("--compact-hash-check-time must be >0 (set to 0s)".to_owned()),
        false => Ok(interval),
    }
}

fn progress_interval(given: &Given, notes: &mut Vec<Note>) -> Result<Duration, String> {
    let name = "watch-progress-notify-interval";
    let interval = or_duration(given, name, Duration::from_secs(600))?;
    if interval < MIN_PROGRESS_INTERVAL {
        notes.push(
            Note::new(Level::Warn, "adjusting watch progress notify interval to minimum period")
                .text("duration", &format!("{interval:?}"))
                .text("minimum-watch-progress-notify-interval", "100ms"),
        );
    }
    Ok(interval.max(MIN_PROGRESS_INTERVAL))
}

fn raft_timeout(given: &Given, name: &str, notes: &mut Vec<Note>) -> Result<Duration, String> {
    let timeout = given.duration(name)?;
    if timeout < MIN_RAFT_TIMEOUT {
        let words = format!("{name} increased to minimum value: {MIN_RAFT_TIMEOUT:?}");
        notes.push(Note::new(Level::Info, &words));
    }
    Ok(timeout.max(MIN_RAFT_TIMEOUT))
}

fn positive(given: &Given, name: &str) -> Result<u64, String> {
    let number = given.number(name);
    u64::try_from(number).map_err(|_| format!("--{name} must be >=0 (set to {number})"))
}

/// In several places etcd takes 0 for "the usual".
fn or_default(number: u64, usual: u64) -> u64 {
    if number == 0 { usual } else { number }
}

fn or_duration(given: &Given, name: &str, usual: Duration) -> Result<Duration, String> {
    let duration = given.duration(name)?;
    Ok(if duration.is_zero() { usual } else { duration })
}
