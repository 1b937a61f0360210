//! The side that is called.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::address::{self, System};
use crate::certificate::Certificate;
use crate::material::{self, Revoked};
use crate::reload::Reloading;
use crate::verify::Clients;
use crate::{Error, Settings, Socket, Stream};

/// How long a handshake may take (etcd's figure).
const HANDSHAKE: Duration = Duration::from_secs(10);

/// With what a handshake begins.
const HELLO: u8 = 22;

/// Makes TLS connections of accepted ones. A handle: clones are the same.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    config: Reloading<ServerConfig>,
    revoked: Option<Reloading<Revoked>>,
    check_addresses: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

/// Somebody who was not let in.
#[derive(Debug)]
pub struct Rejection {
    /// Where they are, if anywhere.
    pub remote: Option<SocketAddr>,
    /// Why.
    pub why: String,
}

impl Server {
    /// A server that speaks these protocols inside (ALPN), the first one best. Its files are read.
    ///
    /// # Errors
    /// The settings make no sense, or a file does not.
    pub fn new(settings: Settings, protocols: &[&str]) -> Result<Server, Error> {
        settings.check()?;
        if let (Some(cert), Some(key)) = (&settings.client_cert_file, &settings.client_key_file) {
            material::pair(cert, key, &settings.provider())?;
        }
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        // So that the very first error is told as it is.
        config(&settings, &protocols)?;
        let revoked = settings.crl_file.clone().map(|path| {
            let files = vec![path.clone()];
            Reloading::new(files, move || Revoked::read(&path))
        });
        let check_addresses = settings.check_addresses;
        let files: Vec<PathBuf> = [&settings.cert_file, &settings.key_file, &settings.trusted_ca_file]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let config = Reloading::new(files, move || config(&settings, &protocols));
        Ok(Server(Arc::new(Inner { config, revoked, check_addresses })))
    }

    /// Shakes hands with somebody who has connected, and looks whether they are who they say.
    ///
    /// # Errors
    /// They are not, or do not say, or not in time. The connection is closed.
    pub async fn accept(&self, socket: Socket) -> Result<Stream, Rejection> {
        let remote = socket.remote();
        timeout(HANDSHAKE, self.try_accept(socket, remote))
            .await
            .unwrap_or_else(|_| Err("TLS handshake timed out".to_owned()))
            .map_err(|why| Rejection { remote, why })
    }

    async fn try_accept(&self, socket: Socket, remote: Option<SocketAddr>) -> Result<Stream, String> {
        let config = self.0.config.now_or_before().map_err(|error| error.to_string())?;
        let stream = TlsAcceptor::from(config).accept(socket).await.map_err(|error| error.to_string())?;
        let shown: Vec<CertificateDer<'static>> = stream
            .get_ref()
            .1
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|der| der.clone().into_owned())
            .collect();
        if let Some(first) = shown.first() {
            if let (true, Some(remote)) = (self.0.check_addresses, remote) {
                let names =
                    Certificate::read(first).map(|certificate| certificate.names()).unwrap_or_default();
                address::check(&names, remote.ip(), &System).await?;
            }
            self.look_for_revoked(&shown)?;
        }
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    /// A list that cannot be read believes nobody: who knows who would be on it.
    fn look_for_revoked(&self, shown: &[CertificateDer<'_>]) -> Result<(), String> {
        let Some(revoked) = &self.0.revoked else { return Ok(()) };
        let revoked = revoked.now().map_err(|error| error.to_string())?;
        for der in shown {
            let certificate = Certificate::read(der).ok_or("a certificate cannot be read")?;
            if revoked.has(certificate.serial()) {
                let serial: String = certificate.serial().iter().map(|byte| format!("{byte:02x}")).collect();
                return Err(format!("transport: certificate serial {serial} revoked"));
            }
        }
        Ok(())
    }
}

fn config(settings: &Settings, protocols: &[Vec<u8>]) -> Result<ServerConfig, Error> {
    let (Some(cert), Some(key)) = (&settings.cert_file, &settings.key_file) else {
        return Err(Error::Settings("there is no certificate".to_owned()));
    };
    let provider = settings.provider();
    let pair = material::pair(cert, key, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&settings.versions.list())
        .map_err(|error| Error::Settings(error.to_string()))?;
    let builder = if settings.asks_clients() {
        let authorities = material::authorities(settings.trusted_ca_file.as_deref())?;
        builder.with_client_cert_verifier(Arc::new(Clients::new(authorities, settings, provider)?))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = protocols.to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// How those who connect to one address are taken in.
#[derive(Clone, Debug)]
pub struct Door {
    /// Whether they may do without TLS.
    pub plain: bool,
    /// Whether they may use it.
    pub tls: Option<Server>,
}

impl Door {
    /// Without TLS.
    pub fn plain() -> Door {
        Door { plain: true, tls: None }
    }

    /// With TLS alone.
    pub fn tls(server: Server) -> Door {
        Door { plain: false, tls: Some(server) }
    }

    /// Whether there is nothing to wait for before a connection is served.
    pub fn is_open(&self) -> bool {
        self.plain && self.tls.is_none()
    }

    /// Takes a connection in.
    ///
    /// # Errors
    /// As [`Server::accept`].
    pub async fn enter(&self, socket: Socket) -> Result<Stream, Rejection> {
        let Some(server) = &self.tls else { return Ok(Stream::Plain(socket)) };
        if self.plain {
            let remote = socket.remote();
            let refuse = |why: &str| Err(Rejection { remote, why: why.to_owned() });
            match timeout(HANDSHAKE, socket.peek()).await {
                Ok(Ok(Some(HELLO))) => {}
                Ok(Ok(Some(_))) => return Ok(Stream::Plain(socket)),
                Ok(Ok(None)) => return refuse("EOF"),
                Ok(Err(error)) => return refuse(&error.to_string()),
                Err(_) => return refuse("nothing was said"),
            }
        }
        server.accept(socket).await
    }
}
