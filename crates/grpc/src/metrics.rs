//! Calls counted under the names of the Go gRPC middleware that etcd uses.

use std::collections::HashMap;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tonic::body::Body;

/// Every method that exists, with how the middleware names its kind.
const METHODS: &[(&str, &str, &str)] = &[
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

/// Calls by method, and by method and code. The counters of the usual answer are looked up once,
/// at the start, since every call moves them.
pub struct RpcMetrics {
    methods: HashMap<String, Method>,
    handled: IntCounterVec,
}

struct Method {
    labels: [&'static str; 3],
    started: IntCounter,
    succeeded: IntCounter,
}

/// A call on its way.
pub(crate) struct Call<'a> {
    metrics: &'a RpcMetrics,
    method: Option<&'a Method>,
}

impl RpcMetrics {
    /// Enters the counters into `registry`.
    ///
    /// Panics where a registry already has them: it belongs to one member, which has one set of
    /// services.
    pub fn new(registry: &Registry) -> Self {
        let vector = |name: &str, help: &str, labels: &[&str]| {
            let vector = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric name");
            registry.register(Box::new(vector.clone())).expect("a metric name used once");
            vector
        };
        let started = vector(
            "grpc_server_started_total",
            "Calls begun.",
            &["grpc_method", "grpc_service", "grpc_type"],
        );
        let handled = vector(
            "grpc_server_handled_total",
            "Calls answered.",
            &["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
        );
        let methods = METHODS
            .iter()
            .map(|&(service, method, kind)| {
                let labels = [method, service, kind];
                let counters = Method {
                    labels,
                    started: started.with_label_values(&labels),
                    succeeded: handled.with_label_values(&["OK", method, service, kind]),
                };
                (format!("/{service}/{method}"), counters)
            })
            .collect();
        Self { methods, handled }
    }

    pub(crate) fn start(&self, path: &str) -> Call<'_> {
        let method = self.methods.get(path);
        if let Some(method) = method {
            method.started.inc();
        }
        Call { metrics: self, method }
    }
}

impl Call<'_> {
    /// Counts the answer. A refused call carries its code in the headers; one that fails later, in
    /// a stream, counts as what it was when it began to answer.
    pub(crate) fn finish(self, response: http::Response<Body>) -> http::Response<Body> {
        if let Some(method) = self.method {
            let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok());
            match code.and_then(|code| code.parse::<usize>().ok()) {
                None | Some(0) => method.succeeded.inc(),
                Some(code) => {
                    let [name, service, kind] = method.labels;
                    let code = CODES.get(code).copied().unwrap_or("Unknown");
                    self.metrics.handled.with_label_values(&[code, name, service, kind]).inc();
                }
            }
        }
        response
    }
}
