//! The side that calls.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::material;
use crate::reload::Reloading;
use crate::verify::Servers;
use crate::{Error, Settings, Socket, Stream};

/// Makes TLS connections of dialled ones. A handle: clones are the same. The default one shows no certificate,
/// and believes the system's authorities.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    number: u64,
    config: Reloading<ClientConfig>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.0.number)
    }
}

impl Default for Client {
    fn default() -> Client {
        Client::unread(Settings::default())
    }
}

impl Client {
    /// A client that shows its certificate to whoever asks. Its files are read.
    ///
    /// # Errors
    /// The settings make no sense, or a file does not.
    pub fn new(settings: Settings) -> Result<Client, Error> {
        if !settings.is_empty() {
            settings.check()?;
            config(&settings)?;
        } else if let Some(file) = &settings.trusted_ca_file {
            material::authorities(Some(file))?;
        }
        Ok(Client::unread(settings))
    }

    fn unread(settings: Settings) -> Client {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let files: Vec<PathBuf> = [
            &settings.cert_file,
            &settings.key_file,
            &settings.client_cert_file,
            &settings.client_key_file,
            &settings.trusted_ca_file,
        ]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
        let config = Reloading::new(files, move || config(&settings));
        Client(Arc::new(Inner { number: NUMBERS.fetch_add(1, Ordering::Relaxed), config }))
    }

    /// Tells clients of one process apart.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Shakes hands with a host: a name, or an address without brackets. Takes as long as the host does.
    ///
    /// # Errors
    /// It is somebody else, or does not believe us; or this side's own files make no sense.
    pub async fn connect(&self, socket: Socket, host: &str) -> io::Result<Stream> {
        let config = self.0.config.now_or_before().map_err(|error| io::Error::other(error.to_string()))?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("no host name: {host:?}")))?;
        let stream = TlsConnector::from(config).connect(name, socket).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

fn config(settings: &Settings) -> Result<ClientConfig, Error> {
    let provider = settings.provider();
    let servers = if settings.self_signed {
        Servers::anybody(&provider)
    } else {
        let authorities = material::authorities(settings.trusted_ca_file.as_deref())?;
        Servers::new(authorities, settings, Arc::clone(&provider))?
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&settings.versions.list())
        .map_err(|error| Error::Settings(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let shown = match (&settings.client_cert_file, &settings.client_key_file) {
        (Some(cert), Some(key)) => Some((cert, key)),
        _ => settings.cert_file.as_ref().zip(settings.key_file.as_ref()),
    };
    let mut config = match shown {
        Some((cert, key)) => {
            let pair = material::pair(cert, key, &provider)?;
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}
