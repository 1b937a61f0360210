//! The Watch service: one stream's requests in, the frames of its watchers out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use ::watch::{Frame, WatchRequest as Create};
use api::error::Error as Etcd;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCreateRequest, WatchRequest};
use apply::permission::Need;
use auth::Access;
use bytes::BufMut;
use server::{Credentials, Member, WatchStream};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::codec::Wire;
use crate::metrics::Messages;
use crate::status;

/// A `WatchResponse`, in pieces.
pub(crate) struct WatchReply(Frame);

impl Wire for WatchReply {
    fn length(&self) -> usize {
        self.0.encoded_len()
    }

    fn write(&self, to: &mut impl BufMut) {
        self.0.write_to(to);
    }
}

/// Both directions of a stream as one: whenever the connection has room for an answer, first the
/// client's requests are taken, then the next frame. A client that does not read is not read
/// from either.
pub(crate) struct WatchFrames {
    member: Arc<Member>,
    credentials: Credentials,
    requests: Option<Streaming<WatchRequest>>,
    watchers: WatchStream,
    messages: Messages,
    /// What was handed out last, and when: until more is asked for, it is on its way.
    leaving: Option<(Instant, Kind)>,
}

/// What a response is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// So many changes.
    Events(u32),
    /// Where a watcher is, or all of them are.
    Progress,
    /// A watcher that begins or ends.
    Control,
}

impl Kind {
    fn of(frame: &Frame) -> Self {
        match (frame.events(), frame.is_control()) {
            (_, true) => Self::Control,
            (0, false) => Self::Progress,
            (events, false) => Self::Events(u32::try_from(events).unwrap_or(u32::MAX)),
        }
    }
}

/// Opens a stream on the calling runtime thread.
pub(crate) fn frames(
    member: Arc<Member>,
    credentials: Credentials,
    requests: Streaming<WatchRequest>,
    messages: Messages,
) -> WatchFrames {
    let watchers = WatchStream::open(Arc::clone(&member));
    WatchFrames { watchers, member, credentials, requests: Some(requests), messages, leaving: None }
}

impl WatchFrames {
    fn take_requests(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        while let Some(requests) = &mut self.requests {
            if self.watchers.is_backed_up() {
                return Ok(());
            }
            match Pin::new(requests).poll_next(context) {
                Poll::Ready(Some(Ok(request))) => {
                    self.messages.received.inc();
                    self.ask(request);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.messages.failed_to_receive("watch", &error);
                    return Err(status::received(error));
                }
                // The client has said all it wants to say; it still listens.
                Poll::Ready(None) => self.requests = None,
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// The last response has left; `next` follows. The clock is read once for each.
    fn left(&mut self, next: Option<Kind>) {
        if next.is_none() && self.leaving.is_none() {
            return;
        }
        let now = Instant::now();
        let Some((since, kind)) = std::mem::replace(&mut self.leaving, next.map(|kind| (now, kind))) else {
            return;
        };
        let (metrics, took) = (self.member.metrics(), now - since);
        match kind {
            Kind::Events(events) => {
                metrics.watch_events.observe(0, took);
                metrics.watch_event.observe(0, took / events.max(1));
            }
            Kind::Progress => metrics.watch_progress.observe(0, took),
            Kind::Control => metrics.watch_control.observe(0, took),
        }
    }

    fn ask(&self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                // What is refused for its revision is so whoever asks.
                let permitted = create.start_revision < 0 || self.auth_is_off();
                let refusal = if permitted { None } else { self.refusal(&create) };
                self.watchers.with(|hub, stream, revision| match refusal {
                    Some(reason) => hub.refuse(stream, &reason, revision),
                    None => hub.create(stream, Create::from_message(&create), revision),
                });
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                self.watchers.with(|hub, stream, revision| hub.cancel(stream, cancel.watch_id, revision));
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.watchers.with(|hub, stream, revision| hub.request_progress(stream, revision));
            }
            // etcd passes over what it does not know.
            None => {}
        }
    }
}

impl WatchFrames {
    fn auth_is_off(&self) -> bool {
        !self.member.auth().is_enabled()
    }

    /// Why a watcher is not created, in the words that its client is told: each by itself, by what the
    /// stream's client showed when it opened it and what that is worth now.
    fn refusal(&self, create: &WatchCreateRequest) -> Option<String> {
        let key: &[u8] = if create.key.is_empty() { b"\0" } else { &create.key };
        let caller = self.member.caller(&self.credentials);
        let need = Need::Keys(Access::Read, key, &create.range_end);
        let refusal = caller.and_then(|caller| self.member.allow(&caller, &[need])).err()?;
        // As Go prints a status.
        let status = status::auth(refusal);
        Some(format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message()))
    }
}

/// A code as Go's gRPC library prints it.
fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Unauthenticated => "Unauthenticated",
        tonic::Code::InvalidArgument => "InvalidArgument",
        tonic::Code::PermissionDenied => "PermissionDenied",
        _ => "Unknown",
    }
}

impl Stream for WatchFrames {
    type Item = Result<WatchReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(error) = self.take_requests(context) {
            return Poll::Ready(Some(Err(error)));
        }
        let next = self.watchers.poll_next(context);
        let frame = match &next {
            Poll::Ready(Some(frame)) => Some(Kind::of(frame)),
            _ => None,
        };
        self.left(frame);
        match next {
            Poll::Ready(Some(frame)) => {
                self.messages.sent.inc();
                self.member.metrics().events.inc_by(frame.events() as u64);
                Poll::Ready(Some(Ok(WatchReply(frame))))
            }
            Poll::Ready(None) => Poll::Ready(Some(Err(status::etcd(Etcd::Stopped)))),
            Poll::Pending => Poll::Pending,
        }
    }
}
