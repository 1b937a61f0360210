//! A gRPC call that goes through no socket.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use grpc::Services;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use http_body::Body as _;
use tonic::Status;
use tonic::body::Body;

use crate::json::requests::FRAME;
use crate::json::routes::Route;

/// What HTTP clients put before the names of gRPC metadata.
const METADATA: &str = "grpc-metadata-";

/// By which a service knows calls that have come through the gateway, as in etcd.
const GATEWAY: HeaderName = HeaderName::from_static("grpcgateway-accept");

/// Has the services begin to answer a call.
pub(super) async fn begin(services: &Services, route: &Route, headers: &HeaderMap, body: Body) -> Answers {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(route.method);
    *request.headers_mut() = metadata(headers);
    let response = services.call(request).await;
    // A call that is refused at once has its status where another one has its metadata.
    let refused =
        Status::from_header_map(response.headers()).filter(|status| status.code() != tonic::Code::Ok);
    Answers { refused, body: Some(response.into_body()), buffer: BytesMut::new() }
}

/// The metadata of a call, by the headers of the HTTP request: who asks, and what is marked as metadata.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let name = match name.as_str().strip_prefix(METADATA) {
            // Those that say how the message is written are this module's own.
            Some(name) if name.starts_with("grpc-") || name == "content-type" || name == "te" => continue,
            Some(name) => HeaderName::from_bytes(name.as_bytes()).ok(),
            None => (*name == AUTHORIZATION).then_some(AUTHORIZATION),
        };
        if let Some(name) = name {
            metadata.append(name, value.clone());
        }
    }
    // The certificate of whoever has made the connection is not that of a client by this road.
    metadata.insert(GATEWAY, headers.get(ACCEPT).cloned().unwrap_or(HeaderValue::from_static("*/*")));
    metadata.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(TE, HeaderValue::from_static("trailers"));
    metadata
}

/// The answers of a call. If this is dropped, the call is given up.
pub(super) struct Answers {
    refused: Option<Status>,
    /// None once it has ended.
    body: Option<Body>,
    buffer: BytesMut,
}

impl Answers {
    /// The next message; an error is the last.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(status) = self.refused.take() {
            self.body = None;
            return Poll::Ready(Some(Err(status)));
        }
        loop {
            if let Some(message) = self.message() {
                return Poll::Ready(Some(Ok(message)));
            }
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => self.buffer.extend_from_slice(&piece),
                    Err(frame) => {
                        self.body = None;
                        let status = frame.trailers_ref().and_then(Status::from_header_map);
                        let failure = status.filter(|status| status.code() != tonic::Code::Ok);
                        return Poll::Ready(failure.map(Err));
                    }
                },
                Some(Err(status)) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(status)));
                }
                None => self.body = None,
            }
        }
    }

    /// The first message of the buffer, if it is there as a whole. None is ever compressed: nobody has said
    /// that it could be.
    fn message(&mut self) -> Option<Bytes> {
        let length = self.buffer.get(1..FRAME)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        if self.buffer.len() < FRAME + length {
            return None;
        }
        self.buffer.advance(FRAME);
        Some(self.buffer.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn metadata_are_what_is_marked_and_who_asks() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "token"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-grpc-encoding", "gzip"),
            ("grpc-metadata-content-type", "text/html"),
            ("grpc-metadata-", "empty"),
            ("cookie", "secret"),
            ("content-length", "7"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let metadata = metadata(&headers);
        assert_eq!(
            (&metadata["authorization"], &metadata["hasleader"]),
            (&"token".parse().unwrap(), &"true".parse().unwrap())
        );
        assert_eq!(metadata["content-type"], "application/grpc");
        assert_eq!(metadata["grpcgateway-accept"], "*/*");
        assert_eq!(metadata.len(), 5, "{metadata:?}");
    }
}
