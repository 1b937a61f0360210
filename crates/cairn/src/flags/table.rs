//! Every flag, once. The order is that of `--help`.

use super::Kind::{
    Bool, Choice, Choices, Duration, Gates, List, Origins, Set, Signed, Text, Unsigned, Unsigned32, Urls,
};
use super::Status::{self, Accepted, Active, NotYet};
use super::{Flag, Kind};

const COMPARED: &str = "Cairn does not compare its members' data by itself yet";
const DISCOVERY: &str = "Cairn finds the members of a cluster by --initial-cluster alone";
const TRACING: &str = "Cairn does not send traces yet";

const MEMBER: &str = "Member";
const CLUSTERING: &str = "Clustering";
const SECURITY: &str = "Security";
const LOGGING: &str = "Logging";
const MONITORING: &str = "Profiling and Monitoring";
const SPANS: &str = "Distributed tracing";
const FEATURES: &str = "Features";
const UNSAFE: &str = "Unsafe feature";

/// Flags of etcd's first versions. etcd still takes them, warns about nothing and does nothing, and so do we.
pub(crate) const IGNORED: [&str; 15] = [
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
];

/// A row: section, name, kind, default, standing, help.
const fn row(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    status: Status,
    help: &'static str,
) -> Flag {
    Flag { name, section, kind, default, status, help }
}

/// The table.
#[rustfmt::skip]
pub(crate) const FLAGS: &[Flag] = &[
    row("", "config-file", Text, "", Active,
        "Read everything from this YAML file. Other flags and the environment are then ignored."),
    row("", "version", Bool, "false", Active, "Print the version and exit."),
    row("", "help", Bool, "false", Active, "Print this help and exit."),

    row(MEMBER, "name", Text, "default", Active, "The member's name, for people."),
    row(MEMBER, "data-dir", Text, "${name}.etcd", Active, "Where the member keeps its data."),
    row(MEMBER, "wal-dir", Text, "", Active,
        "Where the member keeps its write-ahead log, if not inside the data directory."),
    row(MEMBER, "snapshot-count", Unsigned, "10000", Active,
        "How many applied entries may pass before the log is cut back."),
    row(MEMBER, "heartbeat-interval", Unsigned, "100", Active, "How often a leader shows that it lives, in milliseconds."),
    row(MEMBER, "election-timeout", Unsigned, "1000", Active,
        "How long a leader may be silent before an election, in milliseconds. At least five heartbeats."),
    row(MEMBER, "initial-election-tick-advance", Bool, "true",
        Active,
        "Whether a member that starts shortens its first wait for a leader."),
    row(MEMBER, "listen-peer-urls", Urls, "http://localhost:2380", Active, "Where to listen for other members."),
    row(MEMBER, "listen-client-urls", Urls, "http://localhost:2379", Active, "Where to listen for clients, gRPC and HTTP alike."),
    row(MEMBER, "listen-client-http-urls", Urls, "", NotYet("HTTP is served beside gRPC, on --listen-client-urls"),
        "Where to listen for HTTP alone; --listen-client-urls then serves gRPC alone."),
    row(MEMBER, "max-snapshots", Unsigned, "5", Accepted("there are no old snapshot files to keep"),
        "How many snapshot files to keep."),
    row(MEMBER, "max-wals", Unsigned, "5", Accepted("log files go as soon as they are not needed"),
        "How many files of the write-ahead log to keep."),
    row(MEMBER, "memory-mlock", Bool, "false", NotYet("Cairn does not lock memory yet"),
        "Keep the member's memory from being swapped out."),
    row(MEMBER, "quota-backend-bytes", Signed, "0", Active,
        "How much the database may hold, in bytes in use. Past it only deletes and compactions are taken. 0 stands for 2 GiB; a negative number lifts the limit."),
    row(MEMBER, "backend-bbolt-freelist-type", Text, "map", Accepted("there is no bbolt here"),
        "How etcd's database keeps track of its free pages."),
    row(MEMBER, "backend-batch-interval", Duration, "0", Accepted("the database is written in the background, when it pays"),
        "How long etcd's database may hold back a batch. 0 stands for 100ms."),
    row(MEMBER, "backend-batch-limit", Signed, "0", Accepted("the database is written in the background, when it pays"),
        "How large a batch of etcd's database may grow. 0 stands for 10000."),
    row(MEMBER, "max-txn-ops", Unsigned, "128", Active, "How many operations a list of a transaction may hold."),
    row(MEMBER, "max-request-bytes", Unsigned, "1572864", Active, "How long a request may be, in bytes."),
    row(MEMBER, "max-concurrent-streams", Unsigned32, "4294967295", Active,
        "How many streams a client may have open on one connection."),
    row(MEMBER, "grpc-keepalive-min-time", Duration, "5s", Accepted("clients may ping as often as they like, so far"),
        "How long a client must wait between pings. One that pings faster is sent away."),
    row(MEMBER, "grpc-keepalive-interval", Duration, "2h", Active,
        "How long a connection may be silent before the server pings it. 0 for never."),
    row(MEMBER, "grpc-keepalive-timeout", Duration, "20s", Active,
        "How long the server waits for the answer to a ping before it closes the connection. 0 for never."),
    row(MEMBER, "socket-reuse-port", Bool, "false", Active, "Listen with SO_REUSEPORT."),
    row(MEMBER, "socket-reuse-address", Bool, "false", Active, "Listen with SO_REUSEADDR."),
    row(MEMBER, "enable-grpc-gateway", Bool, "true", Active,
        "Serve the API as JSON over HTTP too."),
    row(MEMBER, "raft-read-timeout", Duration, "5s", Active, "How long to wait for bytes from a peer. At least 5s."),
    row(MEMBER, "raft-write-timeout", Duration, "5s", Active, "How long to wait for bytes to a peer to leave. At least 5s."),
    row(MEMBER, "feature-gates", Gates, "", Active,
        "Switch etcd's optional features on or off, as name=true,name=false. Gates that Cairn has no counterpart for yet are refused when they are switched away from their default."),

    row(CLUSTERING, "initial-advertise-peer-urls", Urls, "http://localhost:2380", Active,
        "Where other members reach this one."),
    row(CLUSTERING, "initial-cluster", Text, "default=http://localhost:2380", Active,
        "The members of the cluster, as name=url,name=url. A name stands there once for each of its URLs."),
    row(CLUSTERING, "initial-cluster-state", Choice(&["new", "existing"]), "new", Active,
        "Whether an empty data directory begins a new cluster or joins an existing one."),
    row(CLUSTERING, "initial-cluster-token", Text, "etcd-cluster", Active,
        "Keeps clusters that are set up alike from mistaking each other's members for their own."),
    row(CLUSTERING, "advertise-client-urls", Urls, "http://localhost:2379", Active,
        "Where clients reach this member. Must be given whenever --listen-client-urls is."),
    row(CLUSTERING, "discovery", Text, "", NotYet(DISCOVERY), "The URL of a v2 discovery service."),
    row(CLUSTERING, "discovery-token", Text, "", NotYet(DISCOVERY), "The cluster's token at the discovery service."),
    row(CLUSTERING, "discovery-endpoints", Set, "", NotYet(DISCOVERY), "Where the discovery service is."),
    row(CLUSTERING, "discovery-dial-timeout", Duration, "2s", NotYet(DISCOVERY), "How long to wait for a connection to the discovery service."),
    row(CLUSTERING, "discovery-request-timeout", Duration, "5s", NotYet(DISCOVERY), "How long to wait for an answer of the discovery service."),
    row(CLUSTERING, "discovery-keepalive-time", Duration, "2s", NotYet(DISCOVERY), "How often to ping the discovery service."),
    row(CLUSTERING, "discovery-keepalive-timeout", Duration, "6s", NotYet(DISCOVERY), "How long to wait for the answer to such a ping."),
    row(CLUSTERING, "discovery-insecure-transport", Bool, "true", NotYet(DISCOVERY), "Talk to the discovery service without TLS."),
    row(CLUSTERING, "discovery-insecure-skip-tls-verify", Bool, "false", NotYet(DISCOVERY), "Do not check the discovery service's certificate."),
    row(CLUSTERING, "discovery-cert", Text, "", NotYet(DISCOVERY), "The certificate to show the discovery service."),
    row(CLUSTERING, "discovery-key", Text, "", NotYet(DISCOVERY), "The key to that certificate."),
    row(CLUSTERING, "discovery-cacert", Text, "", NotYet(DISCOVERY), "The authorities to check the discovery service's certificate with."),
    row(CLUSTERING, "discovery-user", Text, "", NotYet(DISCOVERY), "The user to be for the discovery service."),
    row(CLUSTERING, "discovery-password", Text, "", NotYet(DISCOVERY), "That user's password."),
    row(CLUSTERING, "discovery-fallback", Choice(&["exit", "proxy"]), "exit", NotYet(DISCOVERY), "What to do when discovery fails."),
    row(CLUSTERING, "discovery-proxy", Text, "", NotYet(DISCOVERY), "The HTTP proxy to reach the v2 discovery service through."),
    row(CLUSTERING, "discovery-srv", Text, "", NotYet(DISCOVERY), "The DNS domain whose SRV records name the members."),
    row(CLUSTERING, "discovery-srv-name", Text, "", NotYet(DISCOVERY), "A suffix to the names of those records."),
    row(CLUSTERING, "strict-reconfig-check", Bool, "true", Active, "Refuse a change of members that would cost the quorum."),
    row(CLUSTERING, "pre-vote", Bool, "true", Active, "Ask whether an election could be won before holding it."),
    row(CLUSTERING, "auto-compaction-retention", Text, "0", Active,
        "How much history to keep: a duration or, in mode revision, a number of revisions. 0 keeps all of it, and is all that Cairn takes so far."),
    row(CLUSTERING, "auto-compaction-mode", Text, "periodic", Active,
        "How to read --auto-compaction-retention: periodic or revision."),
    row(CLUSTERING, "v2-deprecation", Choices(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]), "write-only",
        Accepted("there is no v2 store here"), "How far etcd has left its v2 store behind."),

    row(SECURITY, "cert-file", Text, "", Active, "The certificate to show clients."),
    row(SECURITY, "key-file", Text, "", Active, "The key to that certificate."),
    row(SECURITY, "client-cert-auth", Bool, "false", Active, "Ask clients for a certificate."),
    row(SECURITY, "client-cert-file", Text, "", Active, "The certificate to use as a client, if not --cert-file."),
    row(SECURITY, "client-key-file", Text, "", Active, "The key to that certificate."),
    row(SECURITY, "client-crl-file", Text, "", Active, "The list of revoked client certificates."),
    row(SECURITY, "client-cert-allowed-hostname", List, "", Active, "The host names to look for in a client's certificate."),
    row(SECURITY, "trusted-ca-file", Text, "", Active, "The authorities to check clients' certificates with."),
    row(SECURITY, "auto-tls", Bool, "false", Active, "Serve clients with a certificate made on the spot."),
    row(SECURITY, "peer-cert-file", Text, "", Active, "The certificate to show peers."),
    row(SECURITY, "peer-key-file", Text, "", Active, "The key to that certificate."),
    row(SECURITY, "peer-client-cert-auth", Bool, "false", Active, "Ask peers for a certificate."),
    row(SECURITY, "peer-client-cert-file", Text, "", Active, "The certificate to use towards peers, if not --peer-cert-file."),
    row(SECURITY, "peer-client-key-file", Text, "", Active, "The key to that certificate."),
    row(SECURITY, "peer-trusted-ca-file", Text, "", Active, "The authorities to check peers' certificates with."),
    row(SECURITY, "peer-cert-allowed-cn", List, "", Active, "The common names to look for in a peer's certificate."),
    row(SECURITY, "peer-cert-allowed-hostname", List, "", Active, "The host names to look for in a peer's certificate."),
    row(SECURITY, "peer-auto-tls", Bool, "false", Active, "Serve peers with a certificate made on the spot."),
    row(SECURITY, "self-signed-cert-validity", Unsigned, "1", Active, "How many years certificates made on the spot are good for."),
    row(SECURITY, "peer-crl-file", Text, "", Active, "The list of revoked peer certificates."),
    row(SECURITY, "cipher-suites", List, "", Active, "The cipher suites to agree to."),
    row(SECURITY, "cors", Origins, "*", Active,
        "The origins whose pages may use the JSON gateway and the other paths that are not gRPC."),
    row(SECURITY, "host-whitelist", Set, "*", Active,
        "The host names that plain HTTP requests may name."),
    row(SECURITY, "tls-min-version", Text, "TLS1.2", Active, "The lowest version of TLS to agree to."),
    row(SECURITY, "tls-max-version", Text, "", Active, "The highest version of TLS to agree to."),

    row("Auth", "auth-token", Text, "simple", Active, "The kind of tokens: simple, or jwt with its options."),
    row("Auth", "bcrypt-cost", Unsigned, "10", Active, "How costly hashing a password is to be."),
    row("Auth", "auth-token-ttl", Unsigned, "300", Active, "How long a simple token lasts, in seconds."),

    row(MONITORING, "enable-pprof", Bool, "false", NotYet("Cairn has no profiler built in"), "Serve profiles over HTTP."),
    row(MONITORING, "metrics", Text, "basic", Active,
        "How much to measure: basic, or extensive for histograms of every call."),
    row(MONITORING, "listen-metrics-urls", Urls, "", NotYet("metrics are served on --listen-client-urls"),
        "Where else to serve metrics and health."),

    row(LOGGING, "logger", Text, "zap", Active, "The shape of the log; zap is the only one."),
    row(LOGGING, "log-outputs", Set, "default", Active, "Where the log goes: stderr (which default means too), stdout, or paths of files."),
    row(LOGGING, "log-level", Text, "info", Active, "The least a line must matter: debug, info, warn, error, panic or fatal."),
    row(LOGGING, "log-format", Text, "json", Active, "How lines look: json or console."),
    row(LOGGING, "enable-log-rotation", Bool, "false", Active, "Begin a new log file when the old one is full; --log-outputs must name one file."),
    row(LOGGING, "log-rotation-config-json", Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#, Active,
        "When to do so, in MiB, and which full files to keep: days and number, 0 for no limit; named by local time, or UTC; compressed, or not."),
    row(LOGGING, "warning-unary-request-duration", Duration, "300ms", Active, "How long a call may take before the log warns of it."),

    row(SPANS, "enable-distributed-tracing", Bool, "false", NotYet(TRACING), "Send traces to an OpenTelemetry collector."),
    row(SPANS, "distributed-tracing-address", Text, "localhost:4317", NotYet(TRACING), "Where the collector is."),
    row(SPANS, "distributed-tracing-service-name", Text, "etcd", NotYet(TRACING), "The service that traces name."),
    row(SPANS, "distributed-tracing-instance-id", Text, "", NotYet(TRACING), "The instance that traces name."),
    row(SPANS, "distributed-tracing-sampling-rate", Signed, "0", NotYet(TRACING), "How many of a million calls to trace."),

    row(FEATURES, "corrupt-check-time", Duration, "0s", NotYet(COMPARED), "How often members compare their data. 0 for never."),
    row(FEATURES, "compact-hash-check-time", Duration, "1m", NotYet(COMPARED), "How often the leader compares the members' hashes of compacted history."),
    row(FEATURES, "compaction-batch-limit", Signed, "1000", Active, "How many revisions a step of a compaction removes. 0 stands for 1000."),
    row(FEATURES, "peer-skip-client-san-verification", Bool, "false", Active, "Do not check the names in a peer's certificate."),
    row(FEATURES, "watch-progress-notify-interval", Duration, "10m", Active,
        "How often idle watches that asked for it are told how far they have come. At least 100ms; 0 stands for 10m."),
    row(FEATURES, "warning-apply-duration", Duration, "100ms", Active, "How long applying an entry may take before the log warns of it."),
    row(FEATURES, "bootstrap-defrag-threshold-megabytes", Unsigned, "0", Accepted("free space goes back to the file system by itself"),
        "Defragment at the start if that frees as much."),
    row(FEATURES, "max-learners", Signed, "1", Active, "How many learners the cluster may have."),
    row(FEATURES, "compaction-sleep-interval", Duration, "10ms", Active, "How long a compaction rests between two steps. 0 stands for 10ms."),
    row(FEATURES, "downgrade-check-time", Duration, "5s", Active, "How often to look whether a downgrade is done."),
    row(FEATURES, "snapshot-catchup-entries", Unsigned, "5000", Active, "How many entries to keep for slow followers when the log is cut back."),

    row(UNSAFE, "force-new-cluster", Bool, "false", Active, "Start as the only member of the cluster, whatever it was before."),
    row(UNSAFE, "unsafe-no-fsync", Bool, "false", Active, "Do not wait for the disk. A power cut will lose what was acknowledged."),
];
