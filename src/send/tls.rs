//! Whom TLS trusts: the system's authorities, or what a subscription says of its own receiver.
//!
//! A certificate is verified in full always: chain, names, time, purpose. A subscription may narrow that (an
//! authority of its own instead of all others, pins besides) and may show a certificate of its own; nothing
//! loosens it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};

use super::SendError;
use crate::outcome::{Failure, TlsFault};

/// One for all: it is the same whoever is spoken to.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// What a pin begins with: as `curl --pinnedpubkey` writes it.
const PIN_PREFIX: &str = "sha256//";

/// What a subscription says of TLS with its receiver.
#[derive(Clone, Copy, Default)]
pub struct TlsOptions<'a> {
    /// PEM: trusted instead of every other authority.
    pub authority: Option<&'a str>,
    /// `sha256//` and the base64 of the SHA-256 of a public key (SubjectPublicKeyInfo): the receiver's
    /// certificate must have one of them. None pins nothing.
    pub pins: &'a [String],
    /// PEM: a certificate chain and its key, shown to a receiver that asks for one.
    pub identity: Option<&'a str>,
}

/// The authorities of the system and those of `extra_pem`.
pub(super) fn roots(extra_pem: Option<&[u8]>) -> Result<RootCertStore, SendError> {
    let mut roots = RootCertStore::empty();
    // Every system's store holds some certificate that some library rejects: take what can be read.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = extra_pem {
        add_pem(&mut roots, pem).map_err(SendError::ExtraRoots)?;
    }
    Ok(roots)
}

fn add_pem(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.len() == before { Err("no certificate in it".to_owned()) } else { Ok(()) }
}

/// The client's configuration for receivers of which nothing in particular is said.
pub(super) fn common(roots: Arc<RootCertStore>) -> Result<ClientConfig, SendError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(anew(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// No session is resumed. A receiver that resumes one shows no certificate, so that one which has expired since would
/// do for the week a ticket lasts; and its tickets, as large as it likes, would be kept for every subscription.
fn anew(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config
}

/// What verifies for all subscriptions without an authority of their own. None if there is nobody to trust.
pub(super) fn verifier(roots: Arc<RootCertStore>) -> Option<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(roots, provider()).build().ok()
}

/// The client's configuration for one subscription; `common` verifies if it has no authority of its own.
///
/// The error says which of the options is wrong and repeats nothing of it.
pub(super) fn own(common: Option<&Arc<WebPkiServerVerifier>>, options: TlsOptions<'_>) -> Result<ClientConfig, String> {
    let verifier = match options.authority {
        None => Arc::clone(common.ok_or("TLS cannot be set up: no certificate authority is trusted")?),
        Some(pem) => {
            let mut own = RootCertStore::empty();
            add_pem(&mut own, pem.as_bytes()).map_err(|error| format!("tls_ca cannot be read: {error}"))?;
            verifier(Arc::new(own)).ok_or("tls_ca cannot be used")?
        }
    };
    let unusable = |error: rustls::Error| format!("TLS cannot be set up: {error}");
    let pins = options.pins.iter().map(|pin| parse_pin(pin)).collect::<Option<Vec<_>>>();
    let pins = pins.ok_or("tls_pins holds something else than sha256// and 44 characters of base64")?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        // Nothing dangerous: it verifies all that webpki does, and the pins.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { verifier, pins }));
    let Some(pem) = options.identity else { return Ok(anew(builder.with_no_client_auth())) };
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| "the client certificate of tls_client is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
    let key = key.map_err(|_| "tls_client names a file without a private key in PEM")?;
    if chain.is_empty() {
        return Err("tls_client names a file without a certificate in PEM".to_owned());
    }
    builder.with_client_auth_cert(chain, key).map(anew).map_err(|error| format!("tls_client cannot be used: {error}"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

fn parse_pin(pin: &str) -> Option<[u8; 32]> {
    BASE64_STANDARD.decode(pin.strip_prefix(PIN_PREFIX)?).ok()?.try_into().ok()
}

/// webpki's verification, and then the pins: the certificate's own key must be among them. Not the chain's: a
/// receiver may send certificates along that nothing of the chain needs.
#[derive(Debug)]
struct Pinned {
    verifier: Arc<WebPkiServerVerifier>,
    pins: Vec<[u8; 32]>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if self.pins.is_empty() {
            return Ok(verified);
        }
        let key: [u8; 32] = Sha256::digest(ParsedCertificate::try_from(end_entity)?.subject_public_key_info()).into();
        if self.pins.contains(&key) {
            return Ok(verified);
        }
        let mismatch = PinMismatch { found: format!("{PIN_PREFIX}{}", BASE64_STANDARD.encode(key)) };
        Err(CertificateError::Other(OtherError(Arc::new(mismatch))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// The certificate is valid, and its key is none of those pinned.
#[derive(Debug)]
struct PinMismatch {
    found: String,
}

impl std::error::Error for PinMismatch {}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the receiver's key is {}, which tls_pins does not hold", self.found)
    }
}

/// What went wrong, for the attempt log.
pub(super) fn failure(error: &rustls::Error) -> Failure {
    let detail = match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.to_string(),
        other => other.to_string(),
    };
    Failure::Tls { fault: fault(error), detail }
}

fn fault(error: &rustls::Error) -> TlsFault {
    use CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            C::Expired | C::ExpiredContext { .. } => TlsFault::Expired,
            C::NotValidYet | C::NotValidYetContext { .. } => TlsFault::NotYetValid,
            C::NotValidForName | C::NotValidForNameContext { .. } => TlsFault::WrongName,
            C::UnknownIssuer => TlsFault::UnknownIssuer,
            C::Other(other) if other.0.is::<PinMismatch>() => TlsFault::Pin,
            _ => TlsFault::Certificate,
        },
        rustls::Error::NoCertificatesPresented => TlsFault::Certificate,
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => TlsFault::ClientCertificate,
        _ => TlsFault::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_roots_must_be_certificates() {
        for pem in [&b""[..], b"nonsense", b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(roots(Some(pem)), Err(SendError::ExtraRoots(_))));
        }
        assert!(roots(None).is_ok());
    }

    #[test]
    fn options_that_cannot_be_used_are_refused_without_being_repeated() {
        let common = verifier(Arc::new(roots(None).expect("the system's")));
        let pins = |pin: &str| vec![pin.to_owned()];
        let good = format!("{PIN_PREFIX}{}", BASE64_STANDARD.encode([7; 32]));
        let no_options = TlsOptions::default();
        for (options, words) in [
            (TlsOptions { authority: Some("hunter2"), ..no_options }, "tls_ca"),
            (TlsOptions { pins: &pins("hunter2"), ..no_options }, "tls_pins"),
            (TlsOptions { pins: &pins(&good[8..]), ..no_options }, "tls_pins"),
            (TlsOptions { pins: &pins(&good[..40]), ..no_options }, "tls_pins"),
            (TlsOptions { identity: Some("hunter2"), ..no_options }, "tls_client"),
        ] {
            let error = own(common.as_ref(), options).expect_err("it is not usable");
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
        assert!(own(common.as_ref(), TlsOptions { pins: &pins(&good), ..no_options }).is_ok());
    }
}
