//! A connection that has to say something soon.
//!
//! Which HTTP is spoken shows in the first bytes, and hyper waits for these without end; the limits that it has
//! begin behind them. Who connects and is silent, or brings the preface in drops, is cut off here.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long the first bytes may take, and the head of a request over HTTP/1.1.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// The bytes of HTTP/2's preface. One over HTTP/1.1 may be shorter, and is told by its answer.
const PREFACE: usize = 24;

/// A stream that fails if its first bytes do not come.
pub(crate) struct Greeting<T> {
    inner: T,
    /// None once they have.
    timer: Option<Pin<Box<Sleep>>>,
    heard: usize,
}

impl<T> Greeting<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, timer: Some(Box::pin(sleep(LIMIT))), heard: 0 }
    }

    /// What was written is an answer to something.
    fn told(&mut self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.timer = None;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Greeting<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        let Some(timer) = &mut self.timer else { return read };
        if read.is_pending() && timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it does not say what it wants",
            )));
        }
        self.heard += buffer.filled().len() - before;
        if self.heard >= PREFACE {
            self.timer = None;
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Greeting<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.told(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.told(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
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

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    /// Reads from somebody who sends `drops` bytes, one a second; after how many seconds that has failed.
    async fn patience(drops: usize) -> Option<u64> {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Greeting::new(near);
        let began = Instant::now();
        let sending = tokio::spawn(async move {
            for _ in 0..drops {
                sleep(Duration::from_secs(1)).await;
                let _ = far.write_all(b"P").await;
            }
            sleep(Duration::from_secs(60)).await;
        });
        let read = near.read_to_end(&mut Vec::new()).await;
        sending.abort();
        read.is_err().then(|| began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_drops_are_cut_off() {
        assert_eq!(patience(0).await, Some(10));
        assert_eq!(patience(3).await, Some(10));
        assert_eq!(patience(100).await, Some(10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_spoken_or_was_answered_may_be_silent() {
        for spoken in [true, false] {
            let (near, mut far) = tokio::io::duplex(64);
            let mut near = Greeting::new(near);
            if spoken {
                far.write_all(&[0; PREFACE]).await.unwrap();
                near.read_exact(&mut [0; PREFACE]).await.unwrap();
            } else {
                near.write_all(b"an answer").await.unwrap();
            }
            let silence = tokio::time::timeout(6 * LIMIT, near.read_u8()).await;
            assert!(silence.is_err(), "{silence:?}");
        }
    }
}
