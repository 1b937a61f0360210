//! Traces: what a call was busy with, for an OpenTelemetry collector, if `--enable-distributed-tracing` says so.
//!
//! A call is a span; what its client traces (its `traceparent`) is that span's parent and decides whether it is
//! told of at all. Where no client has decided, chance does, at the rate that the flags say. Below it is a span
//! of the operation, with the moments at which one part of it was over and the next began. A call that is not
//! traced carries nothing along, and where traces are off nothing is looked at.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api::etcdserverpb::{InternalRaftRequest, RangeRequest, TxnRequest};
use http::HeaderMap;
use prost::Message as _;
use server::Member;
use tokio::sync::mpsc::{Sender, channel};

use crate::otlp::{self, Event, KeyValue, Span, SpanStatus, attribute};
use crate::range::Clock;
use crate::slow;
use crate::stats::length;

/// Spans that may wait to be sent; more are dropped (the number of Go's exporter).
const WAITING: usize = 2048;

/// A million: sampling rates are of so many.
const MILLION: u128 = 1_000_000;

/// Where traces go.
#[derive(Clone)]
pub(crate) struct Tracer {
    spans: Sender<Span>,
    /// Of the 63 bits of a trace's id that decide, those below this are traced.
    below: u64,
}

impl Tracer {
    /// What the flags ask for; nothing, most often.
    pub(crate) fn new(member: &Arc<Member>) -> Option<Self> {
        let settings = member.config().traces.as_ref()?;
        let (spans, queue) = channel(WAITING);
        let mut resource = vec![attribute("service.name", settings.service_name.as_str())];
        if !settings.instance_id.is_empty() {
            resource.push(attribute("service.instance.id", settings.instance_id.as_str()));
        }
        let member = Arc::clone(member);
        otlp::start(&settings.address, resource, queue, async move { member.stopping().await });
        Some(Self { spans, below: threshold(settings.per_million) })
    }

    /// A call begins.
    pub(crate) fn begin(&self, path: &str, headers: &HeaderMap) -> Option<Trace> {
        let parent = headers.get("traceparent").and_then(|value| Parent::read(value.to_str().ok()?));
        let random = || getrandom::u64().unwrap_or_default().max(1);
        let (trace, parent) = match parent {
            Some(Parent { sampled: false, .. }) => return None,
            Some(Parent { trace, span, .. }) => (trace, span),
            None => {
                if self.below == 0 {
                    return None;
                }
                let trace = u128::from(random()) << 64 | u128::from(random());
                if (trace as u64) >> 1 >= self.below {
                    return None;
                }
                (trace, 0)
            }
        };
        let (began, at) = (Instant::now(), SystemTime::now());
        let name = path.trim_start_matches('/').to_owned();
        Some(Trace(Arc::new(Call { tracer: self.clone(), trace, parent, span: random(), name, began, at })))
    }
}

/// How many of the ids below 2⁶³ are so many of a million.
fn threshold(per_million: u32) -> u64 {
    (u128::from(per_million).min(MILLION) * (1 << 63) / MILLION) as u64
}

/// A call that is traced.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Call>);

struct Call {
    tracer: Tracer,
    trace: u128,
    /// 0 where there is none.
    parent: u64,
    span: u64,
    /// The service and the method.
    name: String,
    began: Instant,
    at: SystemTime,
}

impl Trace {
    /// The call was answered, with this code of gRPC's.
    pub(crate) fn end(&self, code: i64) {
        let call = &*self.0;
        let (service, method) = call.name.rsplit_once('/').unwrap_or((&call.name, ""));
        let attributes = vec![
            attribute("rpc.system", "grpc"),
            attribute("rpc.service", service),
            attribute("rpc.method", method),
            attribute("rpc.grpc.status_code", code),
        ];
        // As by OpenTelemetry's rules for servers: what is the client's own mistake is no error of the call.
        let failed = matches!(code, 2 | 4 | 12..=15);
        let span = call.span(call.span, call.parent, &call.name, call.began, Instant::now());
        let status = failed.then(|| SpanStatus { code: SpanStatus::ERROR, ..SpanStatus::default() });
        call.send(Span { kind: Span::SERVER, attributes, status, ..span });
    }

    /// A part of the call, from `began` to now, with what happened in it when. `error`: what came of it.
    pub(crate) fn part(
        &self,
        name: &str,
        began: Instant,
        attributes: Vec<KeyValue>,
        events: &[(&str, Instant)],
        error: Option<&str>,
    ) {
        let call = &*self.0;
        let events = events
            .iter()
            .map(|(name, at)| Event { time_unix_nano: call.nanos(*at), name: (*name).to_owned() })
            .collect();
        let status = error.map(|message| SpanStatus { message: message.to_owned(), code: SpanStatus::ERROR });
        let id = getrandom::u64().unwrap_or_default().max(1);
        let span = call.span(id, call.span, name, began, Instant::now());
        call.send(Span { kind: Span::INTERNAL, attributes, events, status, ..span });
    }
}

/// What is told of a transaction.
fn txn(request: &TxnRequest, read_only: bool) -> Vec<KeyValue> {
    vec![
        attribute("compare_len", length(request.compare.len())),
        attribute("success_len", length(request.success.len())),
        attribute("failure_len", length(request.failure.len())),
        attribute("read_only", read_only),
    ]
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Trace {
    /// A range was read.
    pub(crate) fn range(&self, request: &RangeRequest, clock: &Clock, error: Option<&str>) {
        let attributes = vec![
            attribute("range_begin", text(&request.key)),
            attribute("range_end", text(&request.range_end)),
            attribute("rev", request.revision),
            attribute("limit", request.limit),
            attribute("count_only", request.count_only),
            attribute("keys_only", request.keys_only),
        ];
        let events =
            [(slow::AGREED, clock.agreed), (slow::PERMITTED, clock.permitted), (slow::READ, clock.read)];
        self.part("range", clock.began, attributes, &events, error);
    }

    /// A transaction that only reads was answered: when it began, was agreed to, and permitted.
    pub(crate) fn txn(&self, request: &TxnRequest, times: [Instant; 3], error: Option<&str>) {
        let [began, agreed, permitted] = times;
        let events = [(slow::AGREED, agreed), (slow::PERMITTED, permitted), (slow::READ, Instant::now())];
        self.part("txn", began, txn(request, true), &events, error);
    }

    /// Something went through the log, or did not.
    pub(crate) fn entry(&self, data: &[u8], began: Instant, error: Option<&str>) {
        let Ok(request) = InternalRaftRequest::decode(data) else { return };
        let (name, attributes) = if let Some(put) = &request.put {
            ("put", vec![attribute("key", text(&put.key)), attribute("lease", put.lease)])
        } else if let Some(delete) = &request.delete_range {
            let end = attribute("range_end", text(&delete.range_end));
            ("delete_range", vec![attribute("key", text(&delete.key)), end])
        } else if let Some(request) = &request.txn {
            ("txn", txn(request, false))
        } else if let Some(compaction) = &request.compaction {
            let physical = attribute("is_physical", compaction.physical);
            ("compact", vec![attribute("rev", compaction.revision), physical])
        } else if let Some(grant) = &request.lease_grant {
            ("lease_grant", vec![attribute("id", grant.id), attribute("ttl", grant.ttl)])
        } else if let Some(revoke) = &request.lease_revoke {
            ("lease_revoke", vec![attribute("id", revoke.id)])
        } else {
            return;
        };
        let events = [("Send raft proposal", began), ("Receive raft result", Instant::now())];
        self.part(name, began, attributes, &events, error);
    }
}

impl Call {
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO) + since;
        u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
    }

    fn span(&self, id: u64, parent: u64, name: &str, began: Instant, ended: Instant) -> Span {
        Span {
            trace_id: self.trace.to_be_bytes().to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
            name: name.to_owned(),
            start_time_unix_nano: self.nanos(began),
            end_time_unix_nano: self.nanos(ended),
            ..Span::default()
        }
    }

    fn send(&self, span: Span) {
        // A collector that is too slow, or is not there.
        let _ = self.tracer.spans.try_send(span);
    }
}

/// What a client says of its own span: W3C's `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace: u128,
    span: u64,
    sampled: bool,
}

impl Parent {
    /// Nothing, where it is not what it should be.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            u128::from_str_radix(part, 16).ok().filter(|_| is_hex)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        // A later version may say more, of which nothing is known.
        let is_whole = version != 0 || parts.next().is_none();
        let is_valid = version != 255 && trace != 0 && span != 0 && is_whole;
        is_valid.then_some(Self { trace, span: span as u64, sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_believed_if_it_is_well_formed() {
        let parent = Parent {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span: 0x00f0_67aa_0ba9_02b7,
            sampled: true,
        };
        assert_eq!(Parent::read(PARENT), Some(parent));
        let later = PARENT.replacen("00", "01", 1) + "-more";
        assert_eq!(Parent::read(&later), Some(parent));
        let unsampled = PARENT.trim_end_matches("01").to_owned() + "00";
        assert_eq!(Parent::read(&unsampled), Some(Parent { sampled: false, ..parent }));
        for odd in [
            "",
            "00",
            "00-0-0-0",
            &(PARENT.to_owned() + "-more"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::read(odd), None, "{odd}");
        }
    }

    fn tracer(per_million: u32) -> (Tracer, tokio::sync::mpsc::Receiver<Span>) {
        let (spans, queue) = channel(8);
        (Tracer { spans, below: threshold(per_million) }, queue)
    }

    fn headers(parent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().expect("a header"));
        headers
    }

    #[test]
    fn the_client_decides_and_then_the_rate() {
        let none = HeaderMap::new();
        let traced = |rate, headers: &HeaderMap| tracer(rate).0.begin("/s/m", headers).is_some();
        assert!(!traced(0, &none) && traced(1_000_000, &none));
        assert!(traced(0, &headers(PARENT)));
        assert!(!traced(1_000_000, &headers(&(PARENT.trim_end_matches("01").to_owned() + "00"))));
        let (half, _queue) = tracer(500_000);
        let some = (0..1000).filter(|_| half.begin("/s/m", &none).is_some()).count();
        assert!((300..700).contains(&some), "{some} of 1000");
    }

    #[test]
    fn spans_hang_together() {
        let (tracer, mut queue) = tracer(0);
        let trace = tracer.begin("/etcdserverpb.KV/Put", &headers(PARENT)).expect("it is traced");
        let began = Instant::now();
        trace.part("put", began, vec![attribute("key", "k")], &[("Send raft proposal", began)], Some("no"));
        trace.end(14);
        let (part, call) = (queue.try_recv().expect("a span"), queue.try_recv().expect("a span"));
        assert_eq!(part.trace_id, call.trace_id);
        assert_eq!(part.parent_span_id, call.span_id);
        assert_eq!(call.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert_eq!((call.name.as_str(), call.kind), ("etcdserverpb.KV/Put", Span::SERVER));
        assert!(call.start_time_unix_nano <= part.start_time_unix_nano);
        assert!(part.end_time_unix_nano <= call.end_time_unix_nano);
        assert_eq!(part.events.len(), 1);
        assert!(part.status.is_some() && call.status.is_some());
    }
}
