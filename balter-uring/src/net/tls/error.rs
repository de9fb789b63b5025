//! Why TLS failed.

use std::io;

use rustls::CertificateError;

use crate::failure::{self, FailureClass};

/// Why a TLS connection could not be made, or used on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The target's certificate is no longer valid, or not yet.
    #[error(
        "the target's certificate has expired or is not valid yet: renew it, set this machine's clock, or accept invalid certificates ({reason})"
    )]
    Expired {
        /// Since when, or from when on.
        reason: String,
    },
    /// None of the roots has issued the target's certificate: it is self-signed, or of an
    /// authority of one's own.
    #[error(
        "the issuer of the target's certificate is not trusted: add its root certificate, or accept invalid certificates"
    )]
    UnknownIssuer,
    /// The target's certificate is for other names.
    #[error(
        "the target's certificate is for another name: use a URL with a name that is in it, or accept invalid certificates ({reason})"
    )]
    WrongName {
        /// The names.
        reason: String,
    },
    /// The target's certificate is not accepted for another reason.
    #[error(
        "the target's certificate is not accepted: replace it, or accept invalid certificates ({reason})"
    )]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The target ended the connection with a fatal alert.
    #[error("the target sent the alert {description}: its log says why")]
    Alert {
        /// The alert, by its name in the RFC.
        description: String,
    },
    /// The target ended the connection before the handshake was over.
    #[error(
        "the target closed the connection in the TLS handshake: does it speak TLS on this port?"
    )]
    ClosedInHandshake,
    /// The target ended the connection without the announcement that TLS asks for, so that what
    /// was received may have been cut.
    #[error("the target closed the connection without `close_notify`: what it sent may be cut")]
    Truncated,
    /// What the target sent is no TLS, or not of a version or with a cipher that is spoken here.
    #[error("the target does not speak TLS 1.2 or 1.3 as it should: {reason}")]
    Protocol {
        /// What is wrong with it.
        reason: String,
    },
    /// The host's name cannot be one in a certificate. Nothing was sent.
    #[error("`{name}` is no name that a certificate can have: use a DNS name or an IP address")]
    ServerName {
        /// The name.
        name: String,
    },
    /// The system has no root certificates. Nothing was sent.
    #[error(
        "this machine has no root certificates: install the package `ca-certificates`, set SSL_CERT_FILE, or add roots of your own and leave out the built-in ones ({reason})"
    )]
    NoRoots {
        /// Where they were looked for, and what was found.
        reason: String,
    },
    /// What was given is no certificate.
    #[error(
        "this is no certificate: give one in PEM or DER as it was written to a file ({reason})"
    )]
    NotACertificate {
        /// What is wrong with it.
        reason: String,
    },
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::AlertReceived(alert) => {
                Self::Alert { description: format!("{alert:?}") }
            }
            error => Self::Protocol { reason: error.to_string() },
        }
    }
}

impl TlsError {
    fn of_certificate(error: CertificateError) -> Self {
        let reason = error.to_string();
        match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired { reason },
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName { reason }
            }
            _ => Self::Certificate { reason },
        }
    }

    /// As an error of the stream; noted as the target's fault.
    pub(super) fn noted(self) -> io::Error {
        failure::note(FailureClass::Tls);
        let kind = match self {
            Self::Truncated | Self::ClosedInHandshake => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}
