//! The messages that OpenTelemetry's collectors take, and sending them: OTLP over gRPC.
//!
//! Of the messages this has what is sent. A collector that cannot keep up, or is not there, costs spans and
//! nothing else: they wait in a queue with a bound, and go in batches, as often as Go's exporter sends them.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Spans in a message, how long the first of them waits for more, and how long a message may be on its way
/// (the numbers of Go's exporter).
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(10);

/// The end of the member does not wait longer for the last batch.
const LAST: Duration = Duration::from_millis(500);

/// Sends spans on a thread of its own, until `stopping` and the last of them.
pub(crate) fn start(
    address: &str,
    resource: Vec<KeyValue>,
    spans: Receiver<Span>,
    stopping: impl Future<Output = ()> + Send + 'static,
) {
    let address = format!("http://{address}");
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match (runtime, Endpoint::from_shared(address.clone())) {
            (Ok(runtime), Ok(endpoint)) => {
                runtime.block_on(async {
                    // Connected when there is something to send, and again after it was lost.
                    let collector = Grpc::new(endpoint.connect_timeout(LIMIT).connect_lazy());
                    Exporter { collector, resource, held: Vec::new(), told: false }
                        .run(spans, stopping)
                        .await;
                });
            }
            (Err(error), _) => tracing::warn!(%error, "cannot send traces"),
            (_, Err(error)) => tracing::warn!(address, %error, "cannot send traces"),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("traces".to_owned()).spawn(run) {
        tracing::warn!(%error, "cannot send traces");
    }
}

struct Exporter {
    collector: Grpc<Channel>,
    resource: Vec<KeyValue>,
    held: Vec<Span>,
    /// Whether it was said that the collector does not take them.
    told: bool,
}

impl Exporter {
    async fn run(mut self, mut spans: Receiver<Span>, stopping: impl Future<Output = ()>) {
        let mut stopping = std::pin::pin!(stopping);
        let mut tick = interval(DELAY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                taken = spans.recv_many(&mut self.held, BATCH) => {
                    if taken == 0 {
                        // Nobody is left who could have more.
                        break;
                    }
                    if self.held.len() >= BATCH {
                        self.send().await;
                    }
                }
                _ = tick.tick() => self.send().await,
                () = &mut stopping => break,
            }
        }
        while let Ok(span) = spans.try_recv() {
            self.held.push(span);
        }
        let _ = timeout(LAST, self.send()).await;
    }

    async fn send(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let scope = Scope { name: "cairn".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let spans = ScopeSpans { scope: Some(scope), spans: std::mem::take(&mut self.held) };
        let resource = Some(Resource { attributes: self.resource.clone() });
        let message = Export { resource_spans: vec![ResourceSpans { resource, scope_spans: vec![spans] }] };
        let sent = timeout(LIMIT, self.export(message)).await;
        let failure = match sent {
            Ok(Ok(())) => None,
            Ok(Err(status)) => Some(status.message().to_owned()),
            Err(_) => Some("it took too long".to_owned()),
        };
        if let Some(error) = failure.as_ref().filter(|_| !self.told) {
            tracing::warn!(error, "failed to send traces; they are lost until the collector takes them");
        }
        self.told = failure.is_some();
    }

    async fn export(&mut self, message: Export) -> Result<(), Status> {
        self.collector.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<Export, Exported>::default();
        let path = http::uri::PathAndQuery::from_static(PATH);
        self.collector.unary(Request::new(message), path, codec).await.map(drop)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Export {
    #[prost(message, repeated, tag = "1")]
    pub(crate) resource_spans: Vec<ResourceSpans>,
}

/// The answer; what a collector has to say in it is not looked at.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Exported {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(crate) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(crate) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(crate) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Scope {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(crate) name: String,
    #[prost(int32, tag = "6")]
    pub(crate) kind: i32,
    /// Nanoseconds since 1970, as the next.
    #[prost(fixed64, tag = "7")]
    pub(crate) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(crate) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(crate) attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) events: Vec<Event>,
    #[prost(message, optional, tag = "15")]
    pub(crate) status: Option<SpanStatus>,
}

impl Span {
    pub(crate) const INTERNAL: i32 = 1;
    pub(crate) const SERVER: i32 = 2;
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Event {
    #[prost(fixed64, tag = "1")]
    pub(crate) time_unix_nano: u64,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SpanStatus {
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(int32, tag = "3")]
    pub(crate) code: i32,
}

impl SpanStatus {
    pub(crate) const ERROR: i32 = 2;
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    pub(crate) value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// An attribute.
pub(crate) fn attribute(key: &str, value: impl Into<Value>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value.into()) }) }
}
