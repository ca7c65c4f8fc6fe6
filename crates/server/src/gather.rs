//! A connection whose answer leaves in one piece.
//!
//! HTTP/2 has the end of an answer in a frame of its own, behind that of the message. What writes the frames sends a message of
//! more than some hundred bytes before it looks at the next frame, so each answer would take two system calls and two packets, and
//! would wake its client twice. Here they wait for one another.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// So much is gathered at most.
const MOST: usize = 64 << 10;
/// A write of so many bytes is that of a message, which the end of the answer follows: shorter ones are among the frames.
const MESSAGE: usize = 1024;

/// A TCP connection that gathers what is written until it is flushed.
#[derive(Debug)]
pub(crate) struct Gathered<T = TcpStream> {
    inner: T,
    /// Written, not yet sent from `sent` on.
    written: Vec<u8>,
    sent: usize,
    /// The last write was that of a message: what follows is still to be written.
    ends_in_message: bool,
    /// A flush was answered before anything was sent; if nothing follows, the next time that the connection is looked at
    /// sends it.
    waits: bool,
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            written: Vec::new(),
            sent: 0,
            ends_in_message: false,
            waits: false,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waits = false;
        while let Some(rest) = self
            .written
            .get(self.sent..)
            .filter(|rest| !rest.is_empty())
        {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.written.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.waits
            && let Poll::Ready(Err(error)) = self.poll_send(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.written.len() >= MOST {
            ready!(self.poll_send(cx))?;
        }
        self.written.extend_from_slice(buf);
        self.ends_in_message = buf.len() >= MESSAGE;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if mem::take(&mut self.ends_in_message) {
            self.waits = true;
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Connected for Gathered {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use proptest::prelude::*;

    use super::*;

    /// Has nothing to read; takes so many bytes of each write in turn, of none when it is not ready.
    #[derive(Default)]
    struct Peer {
        writes: Vec<Vec<u8>>,
        takes: Vec<usize>,
        refuses: bool,
    }

    impl AsyncRead for Peer {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Peer {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.refuses {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let takes = self.takes.pop().unwrap_or(usize::MAX).min(buf.len());
            if takes == 0 {
                return Poll::Pending;
            }
            self.writes.push(buf[..takes].to_vec());
            Poll::Ready(Ok(takes))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(to: &mut Gathered<Peer>, len: usize) -> usize {
        let cx = &mut Context::from_waker(Waker::noop());
        match Pin::new(to).poll_write(cx, &vec![7; len]) {
            Poll::Ready(Ok(written)) => written,
            other => panic!("{other:?}"),
        }
    }

    fn flush(to: &mut Gathered<Peer>, waker: &Waker) -> bool {
        let flushed = Pin::new(to).poll_flush(&mut Context::from_waker(waker));
        matches!(flushed, Poll::Ready(Ok(())))
    }

    fn read(from: &mut Gathered<Peer>) -> Poll<io::Result<()>> {
        let cx = &mut Context::from_waker(Waker::noop());
        Pin::new(from).poll_read(cx, &mut ReadBuf::new(&mut [0; 8]))
    }

    fn lens(of: &Gathered<Peer>) -> Vec<usize> {
        of.inner.writes.iter().map(Vec::len).collect()
    }

    #[test]
    fn an_answer_leaves_in_one_piece() {
        for message in [30, 2_000] {
            let woken = Arc::new(Woken::default());
            let waker = Arc::clone(&woken).into();
            let mut connection = Gathered::new(Peer::default());
            write(&mut connection, 60);
            write(&mut connection, message);
            // What writes the frames flushes between a message and what ends the answer, when the message is long.
            assert!(message == 30 || flush(&mut connection, &waker));
            assert_eq!(lens(&connection), [0; 0]);
            write(&mut connection, 20);
            assert!(flush(&mut connection, &waker));
            assert_eq!(lens(&connection), [80 + message]);
            assert_eq!(woken.0.load(Ordering::Relaxed), usize::from(message > 30));
        }
    }

    #[test]
    fn a_message_that_nothing_follows_leaves_when_the_connection_is_looked_at_next() {
        let woken = Arc::new(Woken::default());
        let mut connection = Gathered::new(Peer::default());
        write(&mut connection, 2_000);
        assert!(flush(&mut connection, &Arc::clone(&woken).into()));
        assert_eq!(
            (lens(&connection), woken.0.load(Ordering::Relaxed)),
            (Vec::new(), 1)
        );
        assert!(read(&mut connection).is_pending());
        assert_eq!(lens(&connection), [2_000]);
        // A second flush does not wait.
        write(&mut connection, 2_000);
        assert!((0..2).all(|_| flush(&mut connection, Waker::noop())));
        assert_eq!(lens(&connection), [2_000, 2_000]);
    }

    #[test]
    fn a_peer_that_is_gone_is_an_error_of_whoever_looks() {
        let peer = || Peer {
            refuses: true,
            ..Peer::default()
        };
        let mut connection = Gathered::new(peer());
        write(&mut connection, 10);
        assert!(!flush(&mut connection, Waker::noop()));
        let mut connection = Gathered::new(peer());
        write(&mut connection, 2_000);
        assert!(flush(&mut connection, Waker::noop()));
        assert!(matches!(read(&mut connection), Poll::Ready(Err(_))));
    }

    proptest! {
        /// However the peer takes it, it gets what was written, in order, once.
        #[test]
        fn nothing_is_lost(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3_000), 0_u8..3), 0..20),
            takes in prop::collection::vec(0_usize..2_000, 0..40),
        ) {
            let mut connection = Gathered::new(Peer { takes, ..Peer::default() });
            let cx = &mut Context::from_waker(Waker::noop());
            let mut expected = Vec::new();
            for (bytes, then) in &steps {
                match Pin::new(&mut connection).poll_write(cx, bytes) {
                    Poll::Ready(written) => expected.extend_from_slice(&bytes[..written.unwrap()]),
                    Poll::Pending => {}
                }
                match then {
                    0 => _ = flush(&mut connection, Waker::noop()),
                    1 => prop_assert!(read(&mut connection).is_pending()),
                    _ => {}
                }
            }
            while Pin::new(&mut connection).poll_shutdown(cx).is_pending() {}
            prop_assert_eq!(connection.inner.writes.concat(), expected);
        }
    }
}
