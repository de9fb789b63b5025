//! The server's end of a TLS connection, on a plain thread.
#![allow(unreachable_pub, reason = "it is included by path")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::support::Peer;
use super::support::authority::Identity;

pub fn config(identity: &Identity) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from(identity.certificate_der.clone())];
    let key = PrivatePkcs8KeyDer::from(identity.key_der.clone());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_no_client_auth()
        .with_single_cert(chain, key.into())
        .expect("a key that fits");
    Arc::new(config)
}

pub struct TlsPeer<'a> {
    tcp: &'a mut TcpStream,
    session: ServerConnection,
    /// Sends single bytes.
    trickle: bool,
    unread: Vec<u8>,
}

impl<'a> TlsPeer<'a> {
    /// Shakes hands; `None` if that fails.
    pub fn accept(peer: &'a mut Peer, config: &Arc<ServerConfig>, trickle: bool) -> Option<Self> {
        Self::try_accept(peer, config, trickle).ok()
    }

    /// The error is `None` if it is the connection's.
    pub fn try_accept(
        peer: &'a mut Peer,
        config: &Arc<ServerConfig>,
        trickle: bool,
    ) -> Result<Self, Option<rustls::Error>> {
        let session = ServerConnection::new(Arc::clone(config)).expect("the configuration is good");
        let _ = peer.stream.set_nodelay(true);
        let mut this = Self { tcp: &mut peer.stream, session, trickle, unread: Vec::new() };
        while this.session.is_handshaking() {
            this.flush();
            this.receive()?;
        }
        this.flush();
        Ok(this)
    }

    /// Reads one request and answers its body; `None` at the client's end.
    pub fn request(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(body) = self.whole_request() {
                return Some(body);
            }
            self.receive().ok()?;
            self.flush();
        }
    }

    fn whole_request(&mut self) -> Option<Vec<u8>> {
        let end = self.unread.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.unread[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.map_or(0, |length| length.trim().parse().expect("a number"));
        if self.unread.len() < end + length {
            return None;
        }
        let rest = self.unread.split_off(end + length);
        let request = std::mem::replace(&mut self.unread, rest);
        Some(request[end..].to_vec())
    }

    /// Sends what it can: a client that is gone is no failure of the server.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.session.writer().write_all(bytes.as_ref());
        self.flush();
    }

    /// Sends bytes past TLS.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.tcp.write_all(bytes);
    }

    pub fn close_notify(&mut self) {
        self.session.send_close_notify();
        self.flush();
    }

    /// Sends a fatal alert, as if the client had sent a record that cannot be decrypted.
    pub fn alert(&mut self) {
        let record = [b"\x17\x03\x03\x00\x40".as_slice(), &[7; 64]].concat();
        let _ = self.session.read_tls(&mut record.as_slice());
        assert!(self.session.process_new_packets().is_err(), "nobody can decrypt it");
        self.flush();
    }

    pub fn update_keys(&mut self) {
        self.session.refresh_traffic_keys().expect("the handshake is over, and it is TLS 1.3");
        self.flush();
    }

    /// Has the close that comes with the handler's return be a reset in place of an end.
    pub fn reset(&self) {
        let _ = socket2::SockRef::from(&*self.tcp).set_linger(Some(Duration::ZERO));
    }

    pub fn until_closed(&mut self) {
        let mut buffer = [0; 4096];
        while self.tcp.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }

    fn receive(&mut self) -> Result<(), Option<rustls::Error>> {
        loop {
            match self.session.read_tls(self.tcp) {
                Ok(0) => return Err(None),
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(None),
            }
        }
        let state = self.session.process_new_packets();
        if let Err(error) = state {
            self.flush();
            return Err(Some(error));
        }
        let mut buffer = [0; 64 << 10];
        while let Ok(count @ 1..) = self.session.reader().read(&mut buffer) {
            self.unread.extend_from_slice(&buffer[..count]);
        }
        Ok(())
    }

    fn flush(&mut self) {
        let mut bytes = Vec::new();
        while self.session.wants_write() {
            let _ = self.session.write_tls(&mut bytes);
        }
        if !self.trickle {
            let _ = self.tcp.write_all(&bytes);
            return;
        }
        for byte in bytes {
            if self.tcp.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}
