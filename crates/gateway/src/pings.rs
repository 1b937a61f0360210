//! Clients that ping too often are sent away, by the rules of Go's gRPC server, which are etcd's.
//!
//! Neither hyper nor h2 tells of the pings that it answers. So this stands between them and the connection,
//! and reads the heads of the frames that pass: nine bytes each, of which it keeps nothing but which streams
//! are open. Bytes are never changed; a client that has to go is sent a frame of its own, between two others.
//!
//! A ping is one too many where it comes within `--grpc-keepalive-min-time` of the one before or, while no
//! stream is open, within two hours. What the server sends meanwhile clears the account, since libraries measure
//! by pings how fast data come. After the third in a row the client is told `too_many_pings`, and the
//! connection ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client that speaks HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How far apart pings are to be while no stream is open (Go's figure).
const IDLE: Duration = Duration::from_secs(2 * 60 * 60);
/// How many pings too many are put up with (Go's figure).
const PUT_UP_WITH: u32 = 2;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// Of DATA and HEADERS, that the stream ends; of PING, that it is an answer.
const LAST_OR_ANSWER: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds the heads in what passes in one direction.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; 9],
    /// How much of it is there.
    have: usize,
    /// How much of the frame is still to pass.
    rest: usize,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (self.head.len() - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.head.len() {
                let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
                self.rest = u32::from_be_bytes([0, a, b, c]) as usize;
                self.have = 0;
                each(Head { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1) });
            }
        }
    }

    /// Whether nothing is between its beginning and its end.
    fn is_between(&self) -> bool {
        self.have == 0 && self.rest == 0
    }
}

/// What is known of a client.
#[derive(Debug)]
struct Account {
    least: Duration,
    clock: fn() -> Instant,
    /// Ascending: streams are opened in the order of their numbers.
    open: Vec<u32>,
    newest: u32,
    pinged: Option<Instant>,
    too_many: u32,
    /// Something was sent since the last ping.
    sent: bool,
}

impl Account {
    fn close(&mut self, stream: u32) {
        if let Ok(at) = self.open.binary_search(&stream) {
            self.open.remove(at);
        }
    }

    fn received(&mut self, head: Head) {
        match head.kind {
            HEADERS if head.stream > self.newest => {
                self.newest = head.stream;
                self.open.push(head.stream);
            }
            RST_STREAM => self.close(head.stream),
            PING if head.flags & LAST_OR_ANSWER == 0 => self.pinged((self.clock)()),
            _ => {}
        }
    }

    fn sent(&mut self, head: Head) {
        match head.kind {
            DATA | HEADERS => {
                self.sent = true;
                if head.flags & LAST_OR_ANSWER != 0 {
                    self.close(head.stream);
                }
            }
            RST_STREAM => self.close(head.stream),
            _ => {}
        }
    }

    fn pinged(&mut self, now: Instant) {
        let before = self.pinged.replace(now);
        if std::mem::take(&mut self.sent) {
            self.too_many = 0;
            return;
        }
        let least = if self.open.is_empty() { IDLE } else { self.least };
        if before.is_some_and(|before| now.duration_since(before) < least) {
            self.too_many += 1;
        }
    }

    fn must_go(&self) -> bool {
        self.too_many > PUT_UP_WITH
    }
}

/// A connection whose client is watched.
pub(crate) struct Watched<T> {
    inner: T,
    /// Nothing where nobody is watched: the flag says so, or HTTP/2 is not spoken.
    account: Option<Account>,
    /// How much of the preface has come.
    greeted: usize,
    inward: Frames,
    outward: Frames,
    /// What is still to be said to a client that has to go.
    farewell: Option<Vec<u8>>,
}

impl<T> Watched<T> {
    /// Pings are to be `least` apart; zero for as they like.
    pub(crate) fn new(inner: T, least: Duration) -> Self {
        Self::by(inner, least, Instant::now)
    }

    fn by(inner: T, least: Duration, clock: fn() -> Instant) -> Self {
        let account =
            Account { least, clock, open: Vec::new(), newest: 0, pinged: None, too_many: 0, sent: false };
        Self {
            inner,
            account: (!least.is_zero()).then_some(account),
            greeted: 0,
            inward: Frames::default(),
            outward: Frames::default(),
            farewell: None,
        }
    }

    fn received(&mut self, mut bytes: &[u8]) {
        let Some(account) = &mut self.account else { return };
        if self.greeted < PREFACE.len() {
            let expected = &PREFACE[self.greeted..];
            let common = expected.len().min(bytes.len());
            if bytes[..common] != expected[..common] {
                self.account = None;
                return;
            }
            self.greeted += common;
            bytes = &bytes[common..];
        }
        self.inward.pass(bytes, |head| account.received(head));
        if account.must_go() {
            let mut farewell = Vec::new();
            // In the middle of a frame there is no room for another.
            if self.outward.is_between() {
                let words = b"too_many_pings";
                farewell.extend([0, 0, 8 + words.len() as u8, GOAWAY, 0, 0, 0, 0, 0]);
                farewell.extend(account.newest.to_be_bytes());
                farewell.extend(ENHANCE_YOUR_CALM.to_be_bytes());
                farewell.extend(words);
            }
            self.farewell = Some(farewell);
        }
    }
}

impl<T: AsyncWrite + Unpin> Watched<T> {
    /// Says what is left to say, and ends the connection.
    fn part(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(farewell) = &mut self.farewell else { return Poll::Ready(Ok(())) };
        while !farewell.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(context, farewell))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            farewell.drain(..written);
        }
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
            self.received(&buffer.filled()[before..]);
            if self.farewell.is_none() {
                return Poll::Ready(Ok(()));
            }
            // What came with the last ping has no answer any more.
            buffer.set_filled(before);
        }
        // The end of what is read ends the connection.
        self.part(context)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.farewell.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        let this = &mut *self;
        if let Some(account) = &mut this.account {
            this.outward.pass(&bytes[..written], |head| account.sent(head));
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const LEAST: Duration = Duration::from_secs(5);

    thread_local! {
        static NOW: Cell<Instant> = Cell::new(Instant::now());
    }

    fn now() -> Instant {
        NOW.get()
    }

    fn advance(by: Duration) {
        NOW.set(now() + by);
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn ping() -> Vec<u8> {
        frame(PING, 0, 0, &[7; 8])
    }

    /// A client that has said hello, and the server's end of the connection.
    async fn connected(least: Duration) -> (DuplexStream, Watched<DuplexStream>) {
        let (mut client, server) = duplex(1 << 16);
        let mut server = Watched::by(server, least, now);
        client.write_all(PREFACE).await.unwrap();
        server.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
        (client, server)
    }

    /// Whether what the client sends arrives.
    async fn arrives(client: &mut DuplexStream, server: &mut Watched<DuplexStream>, bytes: &[u8]) -> bool {
        client.write_all(bytes).await.unwrap();
        let mut read = vec![0; bytes.len()];
        match server.read_exact(&mut read).await {
            Ok(_) => {
                assert_eq!(read, bytes, "nothing is changed");
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                false
            }
        }
    }

    async fn last_words(mut client: DuplexStream) -> Vec<u8> {
        let mut words = Vec::new();
        client.read_to_end(&mut words).await.unwrap();
        words
    }

    #[tokio::test]
    async fn a_client_that_pings_too_fast_is_told_and_sent_away() {
        let (mut client, mut server) = connected(LEAST).await;
        assert!(arrives(&mut client, &mut server, &frame(HEADERS, 4, 3, b"head")).await);
        for _ in 0..3 {
            assert!(arrives(&mut client, &mut server, &ping()).await);
            advance(LEAST - Duration::from_millis(1));
        }
        assert!(
            !arrives(&mut client, &mut server, &ping()).await,
            "the first is free, the next two are forgiven"
        );
        assert_eq!(server.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut expected = frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 11]);
        expected[2] += 14;
        expected.extend(b"too_many_pings");
        assert_eq!(last_words(client).await, expected);
    }

    #[tokio::test]
    async fn pings_far_enough_apart_are_welcome_while_a_stream_is_open() {
        let (mut client, mut server) = connected(LEAST).await;
        assert!(arrives(&mut client, &mut server, &frame(HEADERS, 5, 1, b"")).await);
        for _ in 0..20 {
            assert!(arrives(&mut client, &mut server, &ping()).await);
            advance(LEAST);
        }
        // The stream ends, from either side: now nobody has a reason to ping.
        server.write_all(&frame(DATA, 1, 1, b"end")).await.unwrap();
        assert!(arrives(&mut client, &mut server, &frame(HEADERS, 4, 3, b"")).await);
        assert!(arrives(&mut client, &mut server, &frame(RST_STREAM, 0, 3, &[0; 4])).await);
        for number in 0..4 {
            // What was sent clears the account once.
            assert_eq!(arrives(&mut client, &mut server, &ping()).await, number < 3, "{number}");
            advance(LEAST);
        }
    }

    #[tokio::test]
    async fn what_is_sent_clears_the_account() {
        let (mut client, mut server) = connected(LEAST).await;
        assert!(arrives(&mut client, &mut server, &frame(HEADERS, 4, 1, b"")).await);
        for _ in 0..20 {
            assert!(arrives(&mut client, &mut server, &ping()).await);
            server.write_all(&frame(DATA, 0, 1, b"data")).await.unwrap();
        }
        // Answers to pings are no pings.
        for _ in 0..20 {
            assert!(arrives(&mut client, &mut server, &frame(PING, 1, 0, &[7; 8])).await);
        }
    }

    #[tokio::test]
    async fn nobody_is_watched_where_the_flag_says_so_or_http_is_another() {
        let (mut client, mut server) = connected(Duration::ZERO).await;
        for _ in 0..20 {
            assert!(arrives(&mut client, &mut server, &ping()).await);
        }
        let (mut client, server) = duplex(1 << 16);
        let mut server = Watched::by(server, LEAST, now);
        assert!(arrives(&mut client, &mut server, b"PRI / HTTP/1.1\r\n").await);
        for _ in 0..20 {
            assert!(arrives(&mut client, &mut server, &ping()).await);
        }
    }

    /// However the bytes are cut, the heads are the same.
    #[test]
    fn heads_are_found_in_pieces_of_any_size() {
        let mut bytes = Vec::new();
        for (kind, payload) in
            [(HEADERS, vec![1; 4]), (DATA, vec![]), (PING, vec![0; 8]), (DATA, vec![6; 200])]
        {
            bytes.extend(frame(kind, 0, 0x8000_0001, &payload));
        }
        for size in 1..bytes.len() {
            let (mut frames, mut kinds) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.pass(piece, |head| {
                    assert_eq!(head.stream, 1, "the first bit is reserved");
                    kinds.push(head.kind);
                });
            }
            assert_eq!(kinds, [HEADERS, DATA, PING, DATA]);
            assert!(frames.is_between());
        }
    }
}
