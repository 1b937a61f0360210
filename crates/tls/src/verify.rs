//! Whether a certificate is believed.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::Settings;
use crate::certificate::{self, Certificate, Use};
use crate::material::Authorities;

/// Names of which a certificate must have one; any certificate will do if there are none.
#[derive(Debug)]
struct Allowed {
    common_names: Vec<String>,
    hosts: Vec<String>,
}

impl Allowed {
    fn new(settings: &Settings) -> Allowed {
        Allowed { common_names: settings.allowed_cns.clone(), hosts: settings.allowed_hostnames.clone() }
    }

    fn check(&self, der: &CertificateDer<'_>) -> Result<(), Error> {
        if self.common_names.is_empty() && self.hosts.is_empty() {
            return Ok(());
        }
        let name = Certificate::read(der).map(|certificate| certificate.common_name());
        let named = name.is_some_and(|name| self.common_names.contains(&name));
        if named || self.hosts.iter().any(|host| certificate::is_of_host(der, host)) {
            return Ok(());
        }
        Err(other("client certificate authentication failed"))
    }
}

fn other(words: &'static str) -> Error {
    let error: Box<dyn std::error::Error + Send + Sync> = words.into();
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::from(error))))
}

/// Whether this very certificate is trusted: one who has signed for themselves is their own authority, and
/// webpki does not take an authority's certificate for anybody's own.
fn is_trusted_itself(
    trusted: &[CertificateDer<'_>],
    der: &CertificateDer<'_>,
    use_: Use,
    now: UnixTime,
) -> bool {
    trusted.contains(der)
        && Certificate::read(der).is_some_and(|certificate| certificate.is_good_for(use_, now))
}

/// What a server asks of its clients.
#[derive(Debug)]
pub(crate) struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    allowed: Allowed,
}

impl Clients {
    pub(crate) fn new(
        authorities: Authorities,
        settings: &Settings,
        provider: Arc<CryptoProvider>,
    ) -> Result<Clients, crate::Error> {
        let inner = WebPkiClientVerifier::builder_with_provider(authorities.roots, provider)
            .build()
            .map_err(|error| crate::Error::Settings(format!("no clients can be believed: {error}")))?;
        Ok(Clients { inner, trusted: authorities.all, allowed: Allowed::new(settings) })
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !is_trusted_itself(&self.trusted, end_entity, Use::Client, now) {
            self.inner.verify_client_cert(end_entity, intermediates, now)?;
        }
        self.allowed.check(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What a client asks of a server.
#[derive(Debug)]
pub(crate) struct Servers {
    /// None where the certificate of none is looked at.
    believed: Option<Believed>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Believed {
    inner: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    allowed: Allowed,
}

impl Servers {
    pub(crate) fn new(
        authorities: Authorities,
        settings: &Settings,
        provider: Arc<CryptoProvider>,
    ) -> Result<Servers, crate::Error> {
        let algorithms = provider.signature_verification_algorithms;
        let inner = WebPkiServerVerifier::builder_with_provider(authorities.roots, provider)
            .build()
            .map_err(|error| crate::Error::Settings(format!("no servers can be believed: {error}")))?;
        let believed = Believed { inner, trusted: authorities.all, allowed: Allowed::new(settings) };
        Ok(Servers { believed: Some(believed), algorithms })
    }

    /// Takes anybody's word: encryption without knowing for whom.
    pub(crate) fn anybody(provider: &CryptoProvider) -> Servers {
        Servers { believed: None, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(believed) = &self.believed else { return Ok(ServerCertVerified::assertion()) };
        if is_trusted_itself(&believed.trusted, end_entity, Use::Server, now) {
            if !certificate::is_of_host(end_entity, &server_name.to_str()) {
                return Err(CertificateError::NotValidForName.into());
            }
        } else {
            believed.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        believed.allowed.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
