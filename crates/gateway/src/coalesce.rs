//! A connection that sends small pieces together.
//!
//! HTTP/2 hands a payload of more than 256 bytes to the socket by itself where a socket takes several
//! pieces at once, so that answers to many small requests, ready at the same moment, would cost a system
//! call each. Here they wait for the flush that follows, and pieces that are not small are sent with what
//! waits before them, without being copied.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that wait: as many as fit a frame of HTTP/2.
const MOST: usize = 16 << 10;

/// Holds small writes back until a flush, or until there are [`MOST`] bytes of them.
pub(crate) struct Coalesced<T> {
    inner: T,
    held: Vec<u8>,
    /// How much of `held` has been sent.
    sent: usize,
}

impl<T: AsyncWrite + Unpin> Coalesced<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, held: Vec::new(), sent: 0 }
    }

    /// Sends what waits, and with it as much of `next` as goes; how much of that went.
    fn send(&mut self, context: &mut Context<'_>, next: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let waits = &self.held[self.sent..];
            let pieces = [IoSlice::new(waits), IoSlice::new(next)];
            let (before, all) = (waits.len(), waits.len() + next.len());
            if all == 0 {
                return Poll::Ready(Ok(0));
            }
            let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, &pieces))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written < before {
                self.sent += written;
                continue;
            }
            self.held.clear();
            self.sent = 0;
            if written > before || next.is_empty() {
                return Poll::Ready(Ok(written - before));
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() <= MOST {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.send(context, bytes)
    }

    /// False, or HTTP/2 would copy less into one piece than it can.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(context, &[]))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(context, &[]))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// Counts the writes that arrive, and takes a few bytes of each at most.
    struct Narrow {
        to: DuplexStream,
        writes: usize,
        width: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let some = &bytes[..bytes.len().min(self.width)];
            let written = Pin::new(&mut self.to).poll_write(context, some);
            self.writes += usize::from(written.is_ready());
            written
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let some: Vec<u8> =
                pieces.iter().flat_map(|piece| piece.iter().copied()).take(self.width).collect();
            self.poll_write(context, &some)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.to).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.to).poll_shutdown(context)
        }
    }

    fn pair(width: usize, room: usize) -> (Coalesced<Narrow>, DuplexStream) {
        let (near, far) = tokio::io::duplex(room);
        (Coalesced::new(Narrow { to: near, writes: 0, width }), far)
    }

    #[tokio::test]
    async fn small_pieces_go_together_at_the_flush() {
        let (mut near, mut far) = pair(usize::MAX, 1 << 20);
        for _ in 0..20 {
            near.write_all(&[7; 300]).await.unwrap();
        }
        assert_eq!(near.inner.writes, 0);
        near.flush().await.unwrap();
        assert_eq!(near.inner.writes, 1);
        near.flush().await.unwrap();
        assert_eq!(near.inner.writes, 1, "nothing waits any more");
        let mut all = [0; 6_000];
        far.read_exact(&mut all).await.unwrap();
        assert_eq!(all, [7; 6_000]);
    }

    #[tokio::test]
    async fn what_is_large_goes_at_once_behind_what_waits() {
        let (mut near, mut far) = pair(usize::MAX, 1 << 20);
        near.write_all(b"head").await.unwrap();
        near.write_all(&[1; MOST]).await.unwrap();
        assert_eq!(near.inner.writes, 1);
        let mut head = [0; 4];
        far.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"head");
    }

    #[tokio::test]
    async fn every_byte_arrives_once_and_in_order_on_a_narrow_way() {
        for (width, room) in [(7, 1 << 20), (300, 64), (5_000, 100), (usize::MAX, 1_000)] {
            let (mut near, mut far) = pair(width, room);
            let all: Vec<u8> = (0..60_000_u32).map(|number| (number % 251) as u8).collect();
            let sent = all.clone();
            let writer = tokio::spawn(async move {
                let (mut rest, mut length) = (&sent[..], 1);
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(rest.len().min(length));
                    near.write_all(piece).await.unwrap();
                    if length % 3 == 0 {
                        near.flush().await.unwrap();
                    }
                    (rest, length) = (after, length * 7 % 40_009);
                }
                near.shutdown().await.unwrap();
            });
            let mut came = Vec::new();
            far.read_to_end(&mut came).await.unwrap();
            writer.await.unwrap();
            assert!(came == all, "width {width}, room {room}");
        }
    }
}
