//! The node's port: HTTP/1.1 and HTTP/2, plain or over TLS, with bounds on what strangers can hold.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS: usize = 1024;

/// Time for a TLS handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a connection that are read before its protocol is known.
const FIRST: usize = 8 * 1024;

/// Streams of one HTTP/2 connection at a time.
const STREAMS: u32 = 64;

/// Serves until told to leave, and then lets what is under way end.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    mut leaving: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let acceptor = tls.map(TlsAcceptor::from);
    loop {
        let accepted = tokio::select! {
            _ = leaving.wait_for(|&leaving| leaving) => return,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
        };
        let (Ok((stream, _)), Ok(place)) = accepted else {
            // No descriptors: those that are in use come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (router, acceptor, leaving) = (router.clone(), acceptor.clone(), leaving.clone());
        tokio::spawn(async move {
            match acceptor {
                None => connection(stream, router, leaving).await,
                Some(acceptor) => {
                    if let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await {
                        connection(stream, router, leaving).await;
                    }
                }
            }
            drop(place);
        });
    }
}

async fn connection<S>(stream: S, router: Router, mut leaving: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Which protocol it is shows in the first bytes, for which nothing else waits in vain.
    let mut stream = BufReader::with_capacity(FIRST, stream);
    if !matches!(timeout(PATIENCE, stream.fill_buf()).await, Ok(Ok([_, ..]))) {
        return;
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A connection that breaks is its client's affair.
        _ = connection.as_mut() => return,
        _ = leaving.wait_for(|&leaving| leaving) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(PATIENCE, connection).await;
}
