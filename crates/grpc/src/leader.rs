//! Clients that would rather be refused than served by a member without a leader (V10).
//!
//! They say so by `hasleader` in a call's metadata. A call is refused at once; a stream that was
//! opened before is ended only after three election timeouts without a leader, since opening all of
//! them again costs more than a short election does.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::error::Error as Etcd;
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use server::Member;
use tokio::sync::watch;
use tonic::body::Body;

use crate::status;

/// Election timeouts without a leader until streams end (etcd's number).
const MOST_WITHOUT: u32 = 3;

/// Whether the metadata of a call ask for a leader.
pub(crate) fn is_required(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

/// Knows when to end the streams that want a leader.
#[derive(Clone)]
pub(crate) struct LeaderWatch {
    /// Counts the times that streams were ended.
    lost: watch::Sender<u64>,
}

impl LeaderWatch {
    pub(crate) fn new() -> Self {
        Self { lost: watch::Sender::new(0) }
    }

    /// Looks at the leader until the member stops.
    pub(crate) async fn monitor(self, member: Arc<Member>) {
        let mut without = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(member.config().election_timeout) => {}
                () = member.stopping() => return,
            }
            without = if member.raft().leader() == 0 { without + 1 } else { 0 };
            if without >= MOST_WITHOUT {
                self.end_streams();
            }
        }
    }

    fn end_streams(&self) {
        self.lost.send_modify(|times| *times += 1);
    }

    /// The same answer, which ends in a word when the leader is lost for too long.
    pub(crate) fn bind(&self, response: Response<Body>) -> Response<Body> {
        // A call that was refused has no body that could go on.
        if response.body().is_end_stream() {
            return response;
        }
        let mut lost = self.lost.subscribe();
        let lost = Box::pin(async move {
            // The sender lives as long as the services.
            let _ = lost.changed().await;
        });
        response.map(|body| Body::new(Bound { body, lost: Some(lost) }))
    }
}

/// A stream of answers that is cut off when the leader is lost.
struct Bound {
    body: Body,
    /// None once it was cut off.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Bound {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let Some(lost) = &mut self.lost else { return Poll::Ready(None) };
        if lost.as_mut().poll(context).is_ready() {
            self.lost = None;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(match status::etcd(Etcd::NoLeader).add_header(&mut trailers) {
                Ok(()) => Some(Ok(Frame::trailers(trailers))),
                Err(status) => Some(Err(status)),
            });
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lost.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt as _;

    use super::*;

    /// A body that says one word and then nothing for ever.
    fn open() -> Response<Body> {
        struct Word(Option<&'static str>);
        impl http_body::Body for Word {
            type Data = Bytes;
            type Error = tonic::Status;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
                match self.0.take() {
                    Some(word) => Poll::Ready(Some(Ok(Frame::data(Bytes::from(word))))),
                    None => Poll::Pending,
                }
            }
        }
        Response::new(Body::new(Word(Some("event"))))
    }

    fn next(body: &mut Body) -> Option<Option<Frame<Bytes>>> {
        std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context))
            .now_or_never()
            .map(|frame| frame.transpose().unwrap())
    }

    #[test]
    fn streams_end_when_the_leader_is_lost_and_those_opened_later_do_not() {
        let watch = LeaderWatch::new();
        let mut early = watch.bind(open()).into_body();
        assert_eq!(next(&mut early).unwrap().unwrap().into_data().unwrap(), "event");
        assert!(next(&mut early).is_none(), "nothing to say");
        watch.end_streams();
        let mut late = watch.bind(open()).into_body();
        let trailers = next(&mut early).unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        let status = tonic::Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.message(), "etcdserver: no leader");
        assert!(next(&mut early).unwrap().is_none() && early.is_end_stream());
        assert_eq!(next(&mut late).unwrap().unwrap().into_data().unwrap(), "event");
        assert!(next(&mut late).is_none());
    }

    #[test]
    fn only_the_word_true_asks_for_a_leader() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("hasleader", value.parse().unwrap());
            is_required(&headers)
        };
        assert!(asked("true") && !asked("false") && !asked("1"));
        assert!(!is_required(&HeaderMap::new()));
    }
}
