//! Connections: who may hold one, and for how long without doing anything.

use anyhow::Result;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 4096;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// Header fields of a request.
const HEADERS: usize = 100;
/// So long a head may take to come, and a connection may wait for its next request.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// So long a client may take nothing of what it is sent.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// So long it is waited when the system has no connection to give.
const RETRY: Duration = Duration::from_millis(50);
/// So long open connections have to end after `over`.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves connections until `over`; those that are open then end with the response that they send.
pub async fn serve(listener: TcpListener, router: Router, over: impl Future<Output = ()>) -> Result<()> {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut over = std::pin::pin!(over);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &free) => accepted?,
            () = &mut over => break,
        };
        let Some((stream, place)) = accepted else { continue };
        // Events are small, and nobody should wait for the next to fill a packet.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
        builder.max_buf_size(HEAD_BYTES).max_headers(HEADERS);
        let connection = builder.serve_connection(TokioIo::new(Patient::new(stream)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A connection that ends badly is its client's affair, and its requests are cancelled with it.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(FAREWELL) => {}
    }
    Ok(())
}

/// The next connection; none if the system had none to give.
async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> Result<Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)>> {
    let place = free.clone().acquire_owned().await?;
    match listener.accept().await {
        Ok((stream, _)) => Ok(Some((stream, place))),
        Err(_) => {
            // A client that left before it was served, or no file descriptor: neither ends the server.
            tokio::time::sleep(RETRY).await;
            Ok(None)
        }
    }
}

/// A connection whose client must take what it is sent, a little at least from time to time.
struct Patient {
    stream: TcpStream,
    /// When patience ends; none while nothing waits to be taken.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, deadline: None }
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        let fresh = || Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIME));
        ready!(self.deadline.get_or_insert_with(fresh).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wait(cx, polled)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wait(cx, polled)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
