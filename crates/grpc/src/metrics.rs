//! Calls counted under the names of the Go gRPC middleware that etcd uses.

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue};
use parking_lot::RwLock;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::stats::Stats;
use crate::trace::Trace;

/// Every method that exists, with how the middleware names its kind.
pub(crate) const METHODS: &[(&str, &str, &str)] = &[
    ("etcdserverpb.KV", "Range", "unary"),
    ("etcdserverpb.KV", "RangeStream", "server_stream"),
    ("etcdserverpb.KV", "Put", "unary"),
    ("etcdserverpb.KV", "DeleteRange", "unary"),
    ("etcdserverpb.KV", "Txn", "unary"),
    ("etcdserverpb.KV", "Compact", "unary"),
    ("etcdserverpb.Watch", "Watch", "bidi_stream"),
    ("etcdserverpb.Lease", "LeaseGrant", "unary"),
    ("etcdserverpb.Lease", "LeaseRevoke", "unary"),
    ("etcdserverpb.Lease", "LeaseKeepAlive", "bidi_stream"),
    ("etcdserverpb.Lease", "LeaseTimeToLive", "unary"),
    ("etcdserverpb.Lease", "LeaseLeases", "unary"),
    ("etcdserverpb.Cluster", "MemberAdd", "unary"),
    ("etcdserverpb.Cluster", "MemberRemove", "unary"),
    ("etcdserverpb.Cluster", "MemberUpdate", "unary"),
    ("etcdserverpb.Cluster", "MemberList", "unary"),
    ("etcdserverpb.Cluster", "MemberPromote", "unary"),
    ("etcdserverpb.Maintenance", "Alarm", "unary"),
    ("etcdserverpb.Maintenance", "Status", "unary"),
    ("etcdserverpb.Maintenance", "Defragment", "unary"),
    ("etcdserverpb.Maintenance", "Hash", "unary"),
    ("etcdserverpb.Maintenance", "HashKV", "unary"),
    ("etcdserverpb.Maintenance", "Snapshot", "server_stream"),
    ("etcdserverpb.Maintenance", "MoveLeader", "unary"),
    ("etcdserverpb.Maintenance", "Downgrade", "unary"),
    ("v3lockpb.Lock", "Lock", "unary"),
    ("v3lockpb.Lock", "Unlock", "unary"),
    ("v3electionpb.Election", "Campaign", "unary"),
    ("v3electionpb.Election", "Proclaim", "unary"),
    ("v3electionpb.Election", "Leader", "unary"),
    ("v3electionpb.Election", "Observe", "server_stream"),
    ("v3electionpb.Election", "Resign", "unary"),
    ("etcdserverpb.Auth", "AuthEnable", "unary"),
    ("etcdserverpb.Auth", "AuthDisable", "unary"),
    ("etcdserverpb.Auth", "AuthStatus", "unary"),
    ("etcdserverpb.Auth", "Authenticate", "unary"),
    ("etcdserverpb.Auth", "UserAdd", "unary"),
    ("etcdserverpb.Auth", "UserGet", "unary"),
    ("etcdserverpb.Auth", "UserList", "unary"),
    ("etcdserverpb.Auth", "UserDelete", "unary"),
    ("etcdserverpb.Auth", "UserChangePassword", "unary"),
    ("etcdserverpb.Auth", "UserGrantRole", "unary"),
    ("etcdserverpb.Auth", "UserRevokeRole", "unary"),
    ("etcdserverpb.Auth", "RoleAdd", "unary"),
    ("etcdserverpb.Auth", "RoleGet", "unary"),
    ("etcdserverpb.Auth", "RoleList", "unary"),
    ("etcdserverpb.Auth", "RoleDelete", "unary"),
    ("etcdserverpb.Auth", "RoleGrantPermission", "unary"),
    ("etcdserverpb.Auth", "RoleRevokePermission", "unary"),
    ("grpc.health.v1.Health", "Check", "unary"),
    ("grpc.health.v1.Health", "List", "unary"),
    ("grpc.health.v1.Health", "Watch", "server_stream"),
];

/// The names of the gRPC codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The buckets of the Go middleware's histogram of handling times, in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Calls by method, and by method and code. The counters of the usual answer are looked up once,
/// at the start, since every call moves them.
pub struct RpcMetrics {
    methods: HashMap<String, Method>,
    handled: IntCounterVec,
    requests: Requests,
}

struct Method {
    labels: [&'static str; 3],
    started: IntCounter,
    succeeded: IntCounter,
    messages: Messages,
    /// With `--metrics extensive` only.
    handling: Option<Histogram>,
}

/// The messages of a method, for streams to count theirs.
#[derive(Clone)]
pub(crate) struct Messages {
    pub(crate) received: IntCounter,
    pub(crate) sent: IntCounter,
    /// By way and by kind of stream. etcd counts failures to send too; but where a stream is written it is
    /// its client that has gone, which does not count there either.
    failures: IntCounterVec,
}

impl Messages {
    /// Counts a message of a stream of this kind, in etcd's word, that could not be received, and warns of
    /// it: not where the client has taken its call back, or is gone.
    pub(crate) fn failed_to_receive(&self, stream: &'static str, error: &Status) {
        let is_over = matches!(error.code(), Code::Cancelled | Code::DeadlineExceeded);
        // What comes from the connection has it as its source.
        if is_over || error.source().is_some() {
            return;
        }
        tracing::warn!(%error, "failed to receive {stream} request from gRPC stream");
        self.failures.with_label_values(&["receive", stream]).inc();
    }
}

/// Where clients say which version of the API they speak.
const CLIENT_VERSION: &str = "client-api-version";

/// Calls by the version of the API that clients say they speak.
struct Requests {
    all: IntCounterVec,
    /// Of clients that say nothing, or nothing that is a version: unary calls and streams.
    unknown: [IntCounter; 2],
    /// Each version is a time series of its own, and anybody may name one.
    versions: RwLock<BTreeMap<String, [IntCounter; 2]>>,
}

impl Requests {
    /// The most versions that are told apart; further ones count as unknown.
    const MOST: usize = 64;

    fn new(all: IntCounterVec) -> Self {
        let unknown = Self::of(&all, "unknown");
        Self { all, unknown, versions: RwLock::default() }
    }

    fn of(all: &IntCounterVec, version: &str) -> [IntCounter; 2] {
        ["unary", "stream"].map(|kind| all.with_label_values(&[kind, version]))
    }

    fn count(&self, is_unary: bool, headers: &HeaderMap) {
        let kind = usize::from(!is_unary);
        let Some(version) = headers.get(CLIENT_VERSION).and_then(is_version) else {
            return self.unknown[kind].inc();
        };
        if let Some(counters) = self.versions.read().get(version) {
            return counters[kind].inc();
        }
        let mut versions = self.versions.write();
        if versions.len() >= Self::MOST && !versions.contains_key(version) {
            return self.unknown[kind].inc();
        }
        versions.entry(version.to_owned()).or_insert_with(|| Self::of(&self.all, version))[kind].inc();
    }
}

/// Whether what a client says of its version, if anything, is text at all. etcd looks at no more.
pub(crate) fn version_is_text(headers: &HeaderMap) -> bool {
    headers.get(CLIENT_VERSION).is_none_or(|version| std::str::from_utf8(version.as_bytes()).is_ok())
}

/// A header that holds numbers with points between them.
fn is_version(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok().filter(|text| (1..=16).contains(&text.len()))?;
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then_some(text)
}

/// A call on its way.
pub(crate) struct Call<'a> {
    metrics: &'a RpcMetrics,
    method: Option<&'a Method>,
    began: Instant,
    /// Whose it is, as far as the connection tells.
    pub(crate) remote: Option<SocketAddr>,
    /// None where it is not traced.
    pub(crate) trace: Option<Trace>,
}

impl RpcMetrics {
    /// Enters the counters into `registry`, and with `extensive` the histogram of handling times.
    ///
    /// Panics where a registry already has them: it belongs to one member, which has one set of
    /// services.
    pub fn new(registry: &Registry, extensive: bool) -> Self {
        let vector = |name: &str, help: &str, labels: &[&str]| {
            let vector = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric name");
            registry.register(Box::new(vector.clone())).expect("a metric name used once");
            vector
        };
        const NAMES: [&str; 3] = ["grpc_method", "grpc_service", "grpc_type"];
        let started = vector("grpc_server_started_total", "Calls begun.", &NAMES);
        let received = vector("grpc_server_msg_received_total", "Messages received in calls.", &NAMES);
        let sent = vector("grpc_server_msg_sent_total", "Messages sent in calls.", &NAMES);
        let failures = vector(
            "etcd_network_server_stream_failures_total",
            "Streams of clients that failed.",
            &["Type", "API"],
        );
        let handled = vector(
            "grpc_server_handled_total",
            "Calls answered.",
            &["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
        );
        let handling = extensive.then(|| {
            let options = HistogramOpts::new("grpc_server_handling_seconds", "Time from request to answer.");
            let vector =
                HistogramVec::new(options.buckets(BUCKETS.to_vec()), &NAMES).expect("a valid metric name");
            registry.register(Box::new(vector.clone())).expect("a metric name used once");
            vector
        });
        let methods = METHODS
            .iter()
            .map(|&(service, method, kind)| {
                let labels = [method, service, kind];
                let counters = Method {
                    labels,
                    started: started.with_label_values(&labels),
                    succeeded: handled.with_label_values(&["OK", method, service, kind]),
                    messages: Messages {
                        received: received.with_label_values(&labels),
                        sent: sent.with_label_values(&labels),
                        failures: failures.clone(),
                    },
                    handling: handling.as_ref().map(|vector| vector.with_label_values(&labels)),
                };
                (format!("/{service}/{method}"), counters)
            })
            .collect();
        let requests = Requests::new(vector(
            "etcd_server_client_requests_total",
            "Calls by the version of the API that the client says it speaks.",
            &["type", "client_api_version"],
        ));
        Self { methods, handled, requests }
    }

    pub(crate) fn start(&self, path: &str, headers: &HeaderMap) -> Call<'_> {
        let method = self.methods.get(path);
        if let Some(method) = method {
            method.started.inc();
            self.requests.count(method.labels[2] == "unary", headers);
        }
        Call { metrics: self, method, began: Instant::now(), remote: None, trace: None }
    }

    /// The message counters of a method that exists.
    pub(crate) fn messages(&self, path: &str) -> Messages {
        self.methods[path].messages.clone()
    }
}

impl Call<'_> {
    /// Whether the method exists.
    pub(crate) fn is_known(&self) -> bool {
        self.method.is_some()
    }

    /// Counts the answer, and warns in etcd's words of one that took longer than `slow`. A refused
    /// call carries its code in the headers; one that fails later, in a stream, counts as what it
    /// was when it began to answer.
    pub(crate) fn finish(mut self, response: http::Response<Body>, slow: Duration) -> http::Response<Body> {
        let Some(method) = self.method.take() else { return response };
        let [name, service, kind] = method.labels;
        let took = self.began.elapsed();
        let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok());
        let code = code.and_then(|code| code.parse::<usize>().ok()).filter(|code| *code != 0);
        if let Some(trace) = &self.trace {
            trace.end(code.unwrap_or(0) as i64);
        }
        let unary = kind == "unary";
        if unary {
            method.messages.received.inc();
        }
        match code {
            None => {
                method.succeeded.inc();
                if unary {
                    method.messages.sent.inc();
                }
            }
            Some(code) => {
                let code = CODES.get(code).copied().unwrap_or("Unknown");
                self.metrics.handled.with_label_values(&[code, name, service, kind]).inc();
            }
        }
        if let Some(handling) = &method.handling {
            handling.observe(took.as_secs_f64());
        }
        if unary && (took > slow || tracing::enabled!(tracing::Level::DEBUG)) {
            let unknown = Stats::UNKNOWN;
            let stats = Stats::left_with(&response).unwrap_or(&unknown);
            tell(&format!("/{service}/{name}"), took, slow, self.remote, stats);
        }
        response
    }
}

/// A call in the log: a warning if it was slow.
fn tell(name: &str, took: Duration, slow: Duration, remote: Option<SocketAddr>, stats: &Stats) {
    let start = SystemTime::now() - took;
    let remote = remote.map_or_else(|| "No remote client info.".to_owned(), |remote| remote.to_string());
    let Stats { request_count, request_size, response_count, response_size, content } = stats;
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                "start time" = ?start,
                "time spent" = ?took,
                remote,
                "response type" = name,
                "request count" = request_count,
                "request size" = request_size,
                "response count" = response_count,
                "response size" = response_size,
                "request content" = content,
                "request stats"
            )
        };
    }
    if tracing::enabled!(tracing::Level::DEBUG) {
        line!(debug)
    } else if took > slow {
        line!(warn)
    }
}

impl Drop for Call<'_> {
    /// A call that nobody finished was given up by its client.
    fn drop(&mut self) {
        if let Some(Method { labels: [name, service, kind], .. }) = self.method {
            self.metrics.handled.with_label_values(&["Canceled", name, service, kind]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_goes_is_no_failure_of_its_stream() {
        let metrics = RpcMetrics::new(&Registry::new(), false);
        let messages = metrics.messages("/etcdserverpb.Watch/Watch");
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let mut lost = Status::unknown("");
        lost.set_source(std::sync::Arc::new(gone));
        for error in [Status::cancelled(""), Status::deadline_exceeded(""), lost] {
            messages.failed_to_receive("watch", &error);
        }
        let failures = || messages.failures.with_label_values(&["receive", "watch"]).get();
        assert_eq!(failures(), 0);
        messages.failed_to_receive("watch", &Status::internal("failed to decode Protobuf message"));
        assert_eq!(failures(), 1);
    }

    #[test]
    fn every_call_that_starts_is_handled_once() {
        let metrics = RpcMetrics::new(&Registry::new(), false);
        let handled =
            |code: &str| metrics.handled.with_label_values(&[code, "Put", "etcdserverpb.KV", "unary"]).get();
        let headers = HeaderMap::new();
        let put = || metrics.start("/etcdserverpb.KV/Put", &headers);
        drop(put());
        put().finish(http::Response::new(Body::empty()), Duration::MAX);
        put().finish(tonic::Status::out_of_range("").into_http(), Duration::MAX);
        drop(metrics.start("/etcdserverpb.KV/Guess", &headers));
        assert_eq!((handled("Canceled"), handled("OK"), handled("OutOfRange")), (1, 1, 1));
        assert_eq!(metrics.methods["/etcdserverpb.KV/Put"].started.get(), 3);
    }

    #[test]
    fn calls_are_counted_by_the_version_that_clients_speak() {
        let metrics = RpcMetrics::new(&Registry::new(), false);
        let start = |path: &str, version: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(version) = version {
                headers.insert("client-api-version", version.parse().expect("a header"));
            }
            metrics.start(path, &headers).finish(http::Response::new(Body::empty()), Duration::MAX);
        };
        let (put, watch) = ("/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch");
        start(put, Some("3.7"));
        start(put, Some("3.7"));
        start(watch, Some("3.7"));
        start(put, None);
        for odd in ["", "latest", "3.7.1.2.3.4.5.6.7.8"] {
            start(put, Some(odd));
        }
        let count =
            |kind: &str, version: &str| metrics.requests.all.with_label_values(&[kind, version]).get();
        assert_eq!((count("unary", "3.7"), count("stream", "3.7"), count("unary", "unknown")), (2, 1, 4));
        for minor in 0..2 * Requests::MOST {
            start(put, Some(&format!("9.{minor}")));
        }
        assert_eq!(metrics.requests.versions.read().len(), Requests::MOST);
    }
}
