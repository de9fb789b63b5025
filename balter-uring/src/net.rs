//! TCP on the shard's ring, for code inside scenarios.
//!
//! Everything here belongs to the shard on which it was made: streams are not `Send`. Operations
//! end with [`TimedOut`](io::ErrorKind::TimedOut) when the deadline of the transaction that waits
//! for them has passed, and note why they failed, so that a transaction which then returns its
//! failure side is counted in the right [class](crate::FailureClass).

mod resolve;
mod stream;
#[cfg(feature = "tls")]
pub(crate) mod tls;
mod transport;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;

use socket2::{Domain, Protocol, SockAddr, Type};

use crate::failure::{self, FailureClass};
use crate::ring::{self, Ring};

pub use resolve::resolve;
pub(crate) use stream::TcpListener;
pub use stream::TcpStream;
#[cfg(feature = "tls")]
pub use tls::TlsError;
pub(crate) use transport::{Outgoing, Transport};

/// Sockets take this many pending connections, where the system allows it.
const LISTEN_BACKLOG: i32 = 4096;

fn current_ring() -> io::Result<Rc<Ring>> {
    ring::current().ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            "sockets of balter_uring live on a shard: use them inside a #[scenario]",
        )
    })
}

fn stream_socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    // Blocking, as io_uring wants it: it then waits for a socket that is not ready, and never
    // blocks the thread.
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A request is sent whole; waiting for more of it would only add to its latency.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn listening_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = stream_socket(address)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Ends an operation at its transaction's deadline, and notes why it failed.
fn watched<T>(polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    match polled {
        Poll::Pending if failure::expired() => {
            failure::note(FailureClass::Timeout);
            Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the transaction's deadline has passed",
            )))
        }
        Poll::Ready(Err(error)) => {
            failure::note(FailureClass::of_io(&error));
            Poll::Ready(Err(error))
        }
        polled => polled,
    }
}
