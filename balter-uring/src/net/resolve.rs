//! Names to addresses, off the shard: the system's resolver blocks.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use futures_channel::oneshot;

use crate::failure::{self, FailureClass};

/// Addresses of a host, in the order of the system's resolver. A literal address is its own.
///
/// # Errors
/// What the resolver answers, noted as [`FailureClass::Resolve`].
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let looked_up = look_up(host.to_owned(), port).await;
    if looked_up.is_err() {
        failure::note(FailureClass::Resolve);
    }
    looked_up
}

async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (done, answer) = oneshot::channel();
    std::thread::Builder::new().name("balter-resolve".to_owned()).spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        let _ = done.send(addresses.and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(addresses),
        }));
    })?;
    answer.await.unwrap_or_else(|_| Err(io::Error::other("the resolver's thread ended early")))
}
