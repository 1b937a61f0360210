//! Errors as the gateway tells them.

use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Serialize;
use tonic::body::Body;
use tonic::{Code, Status};

/// An error where an answer would be.
#[derive(Serialize)]
struct Whole<'a> {
    error: &'a str,
    code: i32,
    message: &'a str,
}

/// An error where the next answer of a stream would be: what etcd 3.5's library says, and `code`, as the
/// later one calls the first of them.
#[derive(Serialize)]
struct InStream<'a> {
    grpc_code: i32,
    http_code: u16,
    message: &'a str,
    http_status: &'a str,
    code: i32,
}

/// The whole answer is that there is none.
pub(super) fn whole(status: &Status) -> Response<Body> {
    let (code, message) = (status.code() as i32, status.message());
    let text = serde_json::to_vec(&Whole { error: message, code, message }).unwrap_or_default();
    super::json(http_status(status.code()), Body::new(Full::new(Bytes::from(text))))
}

/// A stream that ends before it has begun.
pub(super) fn of_stream(status: &Status) -> Response<Body> {
    super::json(http_status(status.code()), Body::new(Full::new(Bytes::from(in_stream(status)))))
}

/// The last line of a stream that ends in an error.
pub(super) fn in_stream(status: &Status) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        error: InStream<'a>,
    }
    let http = http_status(status.code());
    let error = InStream {
        grpc_code: status.code() as i32,
        http_code: http.as_u16(),
        message: status.message(),
        http_status: http.canonical_reason().unwrap_or_default(),
        code: status.code() as i32,
    };
    let mut line = serde_json::to_vec(&Line { error }).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The HTTP status that stands for a gRPC code.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // nginx's number for a client that has closed the request.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
