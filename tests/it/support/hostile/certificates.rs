//! A certificate authority of the tests' own, and the certificates it should not have made.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Which certificate a receiver shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certificate {
    /// Of the trusted authority, for 127.0.0.1.
    Good,
    SelfSigned,
    Expired,
    NotYetValid,
    /// Of the trusted authority, for another address.
    WrongName,
    /// The same, and for a thousand names.
    AThousandNames,
    /// Of an authority nobody trusts.
    UnknownIssuer,
    /// Good, and it wants to see the client's.
    WantsOurs,
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// The authority that the relay is told to trust.
pub(crate) struct Certificates {
    trusted: Issuer,
    stranger: Issuer,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        Self { trusted: authority("the tests' authority"), stranger: authority("a stranger") }
    }

    /// The trusted authority, for `http.ca_file`.
    pub(crate) fn ca_pem(&self) -> String {
        self.trusted.pem()
    }

    pub(super) fn acceptor(&self, which: Certificate, alpn: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let names = match which {
            Certificate::WrongName => vec!["127.0.0.99".to_owned(), "elsewhere.example".to_owned()],
            Certificate::AThousandNames => (0..1000).map(|n| format!("host-{n}.elsewhere.example")).collect(),
            _ => vec!["127.0.0.1".to_owned()],
        };
        let mut params = CertificateParams::new(names).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "a receiver");
        match which {
            Certificate::Expired => {
                (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
            }
            Certificate::NotYetValid => {
                (params.not_before, params.not_after) = (date_time_ymd(2095, 1, 1), date_time_ymd(2096, 1, 1));
            }
            _ => {}
        }
        let certificate = match which {
            Certificate::SelfSigned => params.self_signed(&key),
            Certificate::UnknownIssuer => params.signed_by(&key, &self.stranger),
            _ => params.signed_by(&key, &self.trusted),
        };
        let certificate = certificate.expect("a certificate").der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if which == Certificate::WantsOurs {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from(self.trusted.der().to_vec())).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(vec![certificate], key).expect("a certificate and its key");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::new([]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}
