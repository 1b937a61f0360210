//! Small questions to a peer's URL: `/members`, `/version`, `/leases` and the like.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The URL is none of ours: not `http://host:port/path`.
    Url(String),
    /// The time was over.
    TimedOut,
    /// The peer could not be reached, or the connection broke.
    Io(std::io::Error),
    /// What came was not HTTP, or too long.
    Malformed(String),
}

/// Asks with GET; `url` is whole, as in `http://10.0.0.1:2380/members`. The answer may have any status.
pub async fn get(url: &str, limit: Duration) -> Result<Response<Bytes>, ClientError> {
    let _ = limit;
    Err(ClientError::Url(url.to_owned()))
}

/// Sends a body with POST.
pub async fn post(
    url: &str,
    content_type: HeaderValue,
    body: Bytes,
    limit: Duration,
) -> Result<Response<Bytes>, ClientError> {
    let _ = (content_type, body, limit);
    Err(ClientError::Url(url.to_owned()))
}
