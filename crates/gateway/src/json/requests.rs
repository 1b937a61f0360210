//! The body of a request: JSON values in, framed messages out.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame};
use prost_reflect::MessageDescriptor;
use prost_reflect::prost::Message as _;
use tonic::Status;

use crate::json::split::Splitter;
use crate::json::translate;

/// What comes before a message in gRPC: a byte that says that it is not compressed, and its length.
pub(super) const FRAME: usize = 5;

/// A body of JSON values as one of gRPC messages.
pub(crate) struct Requests<B> {
    /// None once it has ended.
    body: Option<B>,
    values: Splitter,
    kind: MessageDescriptor,
}

impl<B> Requests<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    /// Values of up to `limit` bytes, each of which stands for a message of this kind.
    pub(super) fn new(body: B, kind: MessageDescriptor, limit: usize) -> Self {
        Self { body: Some(body), values: Splitter::new(limit), kind }
    }

    /// The first message; an empty one if there is none.
    pub(super) async fn first(mut self) -> Result<Bytes, Status> {
        match std::future::poll_fn(|context| self.poll_next(context)).await {
            Some(message) => message,
            None => self.framed(b"null"),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.values.next() {
                Ok(Some(value)) => return Poll::Ready(Some(self.framed(&value))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match std::task::ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        self.values.push(&piece);
                    }
                }
                Some(Err(error)) => {
                    self.body = None;
                    // As what it is: who counts failures must see that it is the client's connection.
                    return Poll::Ready(Some(Err(Status::from_error(Box::new(error)))));
                }
                None => {
                    self.body = None;
                    return Poll::Ready(match self.values.finish() {
                        Ok(None) => None,
                        Ok(Some(value)) => Some(self.framed(&value)),
                        Err(status) => Some(Err(status)),
                    });
                }
            }
        }
    }

    fn framed(&self, value: &[u8]) -> Result<Bytes, Status> {
        let message = translate::from_json(&self.kind, value)?;
        let length = message.encoded_len();
        let words = || Status::resource_exhausted("grpc: received message larger than max");
        let mut framed = BytesMut::with_capacity(FRAME + length);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(length).map_err(|_| words())?);
        message.encode(&mut framed).map_err(|error| Status::internal(error.to_string()))?;
        Ok(framed.freeze())
    }
}

impl<B> Body for Requests<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.poll_next(context).map_ok(Frame::data)
    }
}
