//! TLS of a node: as a server, and towards the other nodes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::{RuntimeConfig, RuntimeError};

/// Certificates of a node, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    authority: Option<PathBuf>,
}

impl Tls {
    /// The node's certificate, with those that lead from it to an authority, and its private key. The
    /// certificate has to be for the address that the node advertises.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into(), authority: None }
    }

    /// The authority that the certificates of all nodes are from, where it is not one that the
    /// system trusts. With it everybody who connects, clients of the API too, has to show a
    /// certificate of this authority (mutual TLS).
    #[must_use]
    pub fn authority(mut self, authority: impl Into<PathBuf>) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// The side of the server.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, RuntimeError> {
        let fails =
            |path: &Path, reason: String| RuntimeError::Tls { path: path.to_owned(), reason };
        let pem = read(&self.certificate)?;
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| fails(&self.certificate, error.to_string()))?;
        if chain.is_empty() {
            return Err(fails(&self.certificate, "there is no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|error| fails(&self.key, error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| fails(&self.certificate, error.to_string()))?;
        let builder = match &self.authority {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
                    let certificate =
                        certificate.map_err(|error| fails(path, error.to_string()))?;
                    roots.add(certificate).map_err(|error| fails(path, error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .build()
                    .map_err(|error| fails(path, error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| fails(&self.certificate, error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn client(&self, address: SocketAddr) -> Result<ClientTlsConfig, RuntimeError> {
        let identity = Identity::from_pem(read(&self.certificate)?, read(&self.key)?);
        let config =
            ClientTlsConfig::new().identity(identity).domain_name(address.ip().to_string());
        Ok(match &self.authority {
            Some(path) => config.ca_certificate(Certificate::from_pem(read(path)?)),
            None => config.with_native_roots(),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RuntimeError> {
    std::fs::read(path).map_err(|error| RuntimeError::File { path: path.to_owned(), error })
}

impl RuntimeConfig {
    /// How to connect to another node.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Result<Endpoint, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|error| error.to_string())?
            .tcp_nodelay(true);
        match &self.tls {
            None => Ok(endpoint),
            Some(tls) => {
                let config = tls.client(address).map_err(|error| error.to_string())?;
                endpoint.tls_config(config).map_err(|error| error.to_string())
            }
        }
    }
}
