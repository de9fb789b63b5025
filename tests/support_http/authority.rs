//! Certificates, made when a test wants them.
#![allow(dead_code, unreachable_pub, reason = "each test binary and bench uses a part of this")]

use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// A certificate and its key, as a server has them.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate_pem: String,
    pub certificate_der: Vec<u8>,
    pub key_pem: String,
    pub key_der: Vec<u8>,
}

/// Who issues certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        // Issuers are told apart by their names.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {} of a test", COUNT.fetch_add(1, Ordering::SeqCst));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("it can be made");
        Self { issuer }
    }

    /// Its own certificate, to be trusted.
    pub fn root_pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn root_der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    pub fn issue(&self, name: &str) -> Identity {
        self.issue_for(params(name))
    }

    pub fn issue_expired(&self, name: &str) -> Identity {
        let mut params = params(name);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.issue_for(params)
    }

    fn issue_for(&self, params: CertificateParams) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be made");
        identity(&certificate, &key)
    }
}

pub fn self_signed(name: &str) -> Identity {
    let key = key();
    identity(&params(name).self_signed(&key).expect("it can be made"), &key)
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).expect("a name that a certificate can have")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the system has random bytes")
}

fn identity(certificate: &rcgen::Certificate, key: &KeyPair) -> Identity {
    Identity {
        certificate_pem: certificate.pem(),
        certificate_der: certificate.der().to_vec(),
        key_pem: key.serialize_pem(),
        key_der: key.serialize_der(),
    }
}
