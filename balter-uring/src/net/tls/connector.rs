//! Whom to trust, and the sessions that connections share.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::TlsError;

/// A certificate of an authority that is to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate(CertificateDer<'static>);

impl Certificate {
    /// The first certificate in a text in PEM.
    ///
    /// # Errors
    /// [`TlsError::NotACertificate`] if there is none that can be a root.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        Self::checked(CertificateDer::from_pem_slice(pem).map_err(not_one)?)
    }

    /// All certificates in a text in PEM.
    ///
    /// # Errors
    /// [`TlsError::NotACertificate`] if there is none, or one that cannot be a root.
    pub fn from_pem_bundle(pem: &[u8]) -> Result<Vec<Self>, TlsError> {
        let each = CertificateDer::pem_slice_iter(pem);
        let all: Vec<_> =
            each.map(|der| Self::checked(der.map_err(not_one)?)).collect::<Result<_, _>>()?;
        if all.is_empty() {
            return Err(not_one("there is none in the text"));
        }
        Ok(all)
    }

    /// A certificate in DER.
    ///
    /// # Errors
    /// [`TlsError::NotACertificate`] if it cannot be a root.
    pub fn from_der(der: &[u8]) -> Result<Self, TlsError> {
        Self::checked(CertificateDer::from(der.to_vec()))
    }

    /// What is wrong with it shows here rather than at the first request.
    fn checked(der: CertificateDer<'static>) -> Result<Self, TlsError> {
        RootCertStore::empty().add(der.clone()).map_err(not_one)?;
        Ok(Self(der))
    }
}

fn not_one(reason: impl std::fmt::Display) -> TlsError {
    TlsError::NotACertificate { reason: reason.to_string() }
}

/// Whom a [`Connector`] trusts.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    pub(crate) built_in_roots: bool,
    pub(crate) roots: Vec<Certificate>,
    pub(crate) accept_invalid: bool,
}

impl Default for Trust {
    fn default() -> Self {
        Self { built_in_roots: true, roots: Vec::new(), accept_invalid: false }
    }
}

/// Makes TLS connections that resume each other's sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    config: Arc<ClientConfig>,
}

impl Connector {
    /// `protocols` are those offered in the handshake (ALPN), the best first.
    ///
    /// # Errors
    /// [`TlsError::NoRoots`] if the system's roots are wanted and there are none.
    pub(crate) fn new(trust: &Trust, protocols: &[&[u8]]) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::from)?;
        let mut config = if trust.accept_invalid {
            let verifier = Arc::new(AcceptAll(provider()));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            builder.with_root_certificates(roots(trust)?).with_no_client_auth()
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { config: Arc::new(config) })
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// The name that a target's certificate must have, of a host as in a URL.
///
/// # Errors
/// [`TlsError::ServerName`] if it is neither a DNS name nor an address.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(literal.to_owned())
        .map_err(|_| TlsError::ServerName { name: host.to_owned() })
}

/// One for the process: its lists of ciphers would be copied for each client.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

fn roots(trust: &Trust) -> Result<Arc<RootCertStore>, TlsError> {
    if trust.built_in_roots && trust.roots.is_empty() {
        return system_roots();
    }
    let mut roots = match trust.built_in_roots {
        true => RootCertStore::clone(&*system_roots()?),
        false => RootCertStore::empty(),
    };
    for Certificate(der) in &trust.roots {
        // Each has been checked when it was made.
        roots.add(der.clone()).map_err(not_one)?;
    }
    Ok(Arc::new(roots))
}

/// The system's roots, read once a process, by the first who asks. That takes some milliseconds.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    static ROOTS: OnceLock<Result<Arc<RootCertStore>, TlsError>> = OnceLock::new();
    let load = || {
        let loaded = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Some systems have roots among the others that are none; those others still are.
        let (_, ignored) = roots.add_parsable_certificates(loaded.certs);
        if roots.is_empty() {
            let errors: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
            let errors = errors.join("; ");
            return Err(TlsError::NoRoots { reason: format!("{ignored} unreadable; {errors}") });
        }
        Ok(Arc::new(roots))
    };
    ROOTS.get_or_init(load).clone()
}

/// Takes any certificate for any name.
#[derive(Debug)]
struct AcceptAll(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // That the target has the certificate's key is no comfort where any certificate will do.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
