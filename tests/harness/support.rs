//! What several suites need: a plain HTTP client, a refusal's code and text, numbers that look
//! random, and counts that a faster machine may raise.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// An answer over HTTP/1.1.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// What follows the headers.
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Sends one request and reads the answer to its end.
///
/// # Errors
/// When nobody answers, or not in HTTP.
pub fn request(port: u16, method: &str, path: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an end of the headers")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status line")?.parse()?;
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: body.to_owned() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = joined(body)?;
    }
    Ok(answer)
}

/// A body that came in chunks, each behind its length in hexadecimal; etcd's long answers do.
fn joined(mut chunks: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n").context("the length of a chunk")?;
        let length = usize::from_str_radix(length, 16)?;
        if length == 0 {
            return Ok(body);
        }
        body.push_str(rest.get(..length).context("a whole chunk")?);
        chunks = rest.get(length..).and_then(|rest| rest.strip_prefix("\r\n")).context("a chunk's end")?;
    }
}

#[test]
fn chunks_are_joined() {
    assert_eq!(joined("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n").ok().as_deref(), Some("abc0123456789"));
    assert!(joined("5\r\nabc\r\n").is_err());
}

/// Asks for a path on the port.
///
/// # Errors
/// As [`request`].
pub fn get(port: u16, path: &str) -> Result<Answer> {
    request(port, "GET", path)
}

/// The gRPC code and text of a refusal.
///
/// # Panics
/// When it is none.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, etcd_client::Error>) -> (i32, String) {
    match result {
        Err(etcd_client::Error::GRpcStatus(status)) => (status.code() as i32, status.message().to_owned()),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// A count that a machine with more time may raise.
pub fn count(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

/// Numbers without a pattern, the same in every run.
pub struct Dice(pub u64);

impl Dice {
    /// Any number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) ^ self.0 >> 11
    }

    /// One below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
