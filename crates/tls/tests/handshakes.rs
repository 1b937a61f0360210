//! Both sides of a connection, with certificates made for each test: who is believed and who is not.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use authority::{Authority, Pair, Subject, replace};
use rustls::{CipherSuite, ProtocolVersion};
use tempfile::TempDir;
use tls::{
    Ciphers, Client, Door, Listener, Listening, Rejection, Server, Settings, Stream, Version, Versions,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// A directory with an authority, and what it has issued.
struct Scene {
    dir: TempDir,
    authority: Authority,
}

impl Scene {
    fn new() -> Scene {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
        authority.write(&dir.path().join("ca.crt"));
        Scene { dir, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Settings of one that `subject` is the certificate of, and that believes this authority.
    fn of(&self, name: &str, subject: Subject<'_>) -> Settings {
        self.with(name, &self.authority.issue(subject))
    }

    fn with(&self, name: &str, pair: &Pair) -> Settings {
        let (cert, key) = pair.write(self.dir.path(), name);
        Settings {
            cert_file: Some(cert),
            key_file: Some(key),
            trusted_ca_file: Some(self.path("ca.crt")),
            ..Settings::default()
        }
    }

    /// A server on localhost that asks nobody for a certificate.
    fn open(&self) -> Settings {
        let settings =
            self.of("server", Subject { names: &["localhost", "127.0.0.1"], ..Subject::default() });
        Settings { trusted_ca_file: None, ..settings }
    }

    /// A client that shows nothing.
    fn nobody(&self) -> Settings {
        Settings { trusted_ca_file: Some(self.path("ca.crt")), ..Settings::default() }
    }

    fn client(&self, subject: Subject<'_>) -> Settings {
        self.of("client", subject)
    }
}

const ANN: Subject<'static> = Subject { common_name: "ann", names: &["ann.example.org"], serial: 7 };

fn server(settings: Settings) -> Server {
    Server::new(settings, &["h2", "http/1.1"]).unwrap()
}

/// How it went at either side; a client is through when the server has answered.
struct Met {
    server: Result<Stream, Rejection>,
    client: Result<Stream, String>,
}

impl Met {
    fn through(self) -> Stream {
        self.client.unwrap();
        self.server.unwrap()
    }

    /// Why the server has turned somebody away, who knows of it.
    fn refused(self) -> String {
        assert!(self.client.is_err());
        self.server.unwrap_err().why
    }
}

/// Has a client call a server, and a byte go both ways.
async fn meet(server: &Server, client: Settings, host: &str) -> Met {
    let client = Client::new(client).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let listening = Listener::tcp(listener, Door::tls(server.clone())).listen().unwrap();
    let serving = async {
        let (socket, door) = listening.accept().await.unwrap().settle().unwrap();
        let mut stream = door.enter(socket).await?;
        let mut byte = [0];
        let read = stream.read_exact(&mut byte).await;
        let refuse = |error: std::io::Error| Rejection { remote: None, why: error.to_string() };
        read.map_err(refuse)?;
        stream.write_all(&byte).await.map_err(refuse)?;
        stream.flush().await.map_err(refuse)?;
        Ok(stream)
    };
    let calling = async {
        let words = |error: std::io::Error| error.to_string();
        let socket = TcpStream::connect(address).await.map_err(words)?;
        let mut stream = client.connect(socket.into(), host).await.map_err(words)?;
        stream.write_all(b"x").await.map_err(words)?;
        stream.flush().await.map_err(words)?;
        stream.read_exact(&mut [0]).await.map_err(words)?;
        Ok(stream)
    };
    let (server, client) = tokio::join!(serving, calling);
    Met { server, client }
}

fn session(stream: &Stream) -> (Option<ProtocolVersion>, Option<CipherSuite>) {
    let Stream::Tls(stream) = stream else { panic!("plain") };
    let (_, session) = stream.get_ref();
    (session.protocol_version(), session.negotiated_cipher_suite().map(|suite| suite.suite()))
}

#[tokio::test]
async fn a_server_is_believed_by_its_authority_and_its_name() {
    let scene = Scene::new();
    let open = server(scene.open());
    let stream = meet(&open, scene.nobody(), "localhost").await.through();
    assert!(stream.is_secure());
    assert_eq!(stream.common_name(), None);
    meet(&open, scene.nobody(), "127.0.0.1").await.through();
    let other_name = meet(&open, scene.nobody(), "example.org").await;
    assert!(other_name.client.unwrap_err().contains("not valid for name"));
    let stranger = Settings {
        trusted_ca_file: Some(Authority::new("other").write(&scene.path("other.crt"))),
        ..Settings::default()
    };
    let unknown = meet(&open, stranger, "localhost").await;
    assert!(unknown.client.unwrap_err().contains("UnknownIssuer") && unknown.server.is_err());
}

#[tokio::test]
async fn a_client_has_to_show_a_certificate_that_is_believed() {
    let scene = Scene::new();
    let server = server(Settings {
        trusted_ca_file: Some(scene.path("ca.crt")),
        client_cert_auth: true,
        ..scene.open()
    });
    let ann = meet(&server, scene.client(ANN), "localhost").await.through();
    assert_eq!(ann.common_name().as_deref(), Some("ann"));
    let nameless = Subject { names: &["x"], ..Subject::default() };
    let nameless = meet(&server, scene.client(nameless), "localhost").await.through();
    assert_eq!(nameless.common_name().as_deref(), Some(""));
    let none = meet(&server, scene.nobody(), "localhost").await.refused();
    assert!(none.contains("no certificates"), "{none}");
    let forged = scene.with("forged", &Authority::new("authority").issue(ANN));
    let forged = meet(&server, forged, "localhost").await.refused();
    assert!(forged.contains("invalid peer certificate"), "{forged}");
}

#[tokio::test]
async fn what_a_client_shows_may_be_another_pair() {
    let scene = Scene::new();
    let server = server(Settings { trusted_ca_file: Some(scene.path("ca.crt")), ..scene.open() });
    let (cert, key) = scene.authority.issue(ANN).write(scene.dir.path(), "as-client");
    let other = Subject { common_name: "other", ..Subject::default() };
    let client =
        Settings { client_cert_file: Some(cert), client_key_file: Some(key), ..scene.of("own", other) };
    assert_eq!(meet(&server, client, "localhost").await.through().common_name().as_deref(), Some("ann"));
}

#[tokio::test]
async fn only_names_of_a_list_are_let_in() {
    let scene = Scene::new();
    let base = Settings { trusted_ca_file: Some(scene.path("ca.crt")), ..scene.open() };
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    for (settings, is_let_in) in [
        (Settings { allowed_cns: list(&["bob", "ann"]), ..base.clone() }, true),
        (Settings { allowed_cns: list(&["bob"]), ..base.clone() }, false),
        (Settings { allowed_hostnames: list(&["x", "ann.example.org"]), ..base.clone() }, true),
        (Settings { allowed_hostnames: list(&["example.org"]), ..base.clone() }, false),
    ] {
        let met = meet(&server(settings.clone()), scene.client(ANN), "localhost").await;
        match is_let_in {
            true => drop(met.through()),
            false => {
                assert!(met.refused().contains("client certificate authentication failed"), "{settings:?}")
            }
        }
    }
    // A client asks the same of its server.
    let wary = |names: &[&str]| Settings { allowed_hostnames: list(names), ..scene.client(ANN) };
    meet(&server(base.clone()), wary(&["127.0.0.1"]), "localhost").await.through();
    assert!(meet(&server(base), wary(&["127.0.0.2"]), "localhost").await.client.is_err());
}

#[tokio::test]
async fn what_is_revoked_is_not_believed_from_that_moment_on() {
    let scene = Scene::new();
    let list = scene.path("revoked.crl");
    let server = server(Settings {
        trusted_ca_file: Some(scene.path("ca.crt")),
        crl_file: Some(list.clone()),
        ..scene.open()
    });
    let lost = meet(&server, scene.client(ANN), "localhost").await.refused();
    assert!(lost.contains("No such file"), "without its list it believes nobody: {lost}");
    replace(&list, &scene.authority.revoke(&[8]).0);
    meet(&server, scene.client(ANN), "localhost").await.through();
    replace(&list, &scene.authority.revoke(&[7, 8]).0);
    let revoked = meet(&server, scene.client(ANN), "localhost").await.refused();
    assert_eq!(revoked, "transport: certificate serial 07 revoked");
    // The same in PEM, which etcd took once.
    replace(&list, scene.authority.revoke(&[9]).1.as_bytes());
    meet(&server, scene.client(ANN), "localhost").await.through();
    replace(&list, scene.authority.revoke(&[7]).1.as_bytes());
    meet(&server, scene.client(ANN), "localhost").await.refused();
    replace(&list, b"garbage");
    meet(&server, scene.client(ANN), "localhost").await.refused();
}

#[tokio::test]
async fn certificates_and_authorities_are_renewed_without_a_restart() {
    let scene = Scene::new();
    let settings = Settings { trusted_ca_file: Some(scene.path("ca.crt")), ..scene.open() };
    let server = server(settings);
    let old = scene.client(ANN);
    meet(&server, old.clone(), "localhost").await.through();
    // First the certificate, under another name.
    let renewed = scene.authority.issue(Subject { names: &["renewed"], ..Subject::default() });
    fs::write(scene.path("server.crt"), "half of it").unwrap();
    meet(&server, old.clone(), "localhost").await.through();
    renewed.write(scene.dir.path(), "server");
    meet(&server, old.clone(), "renewed").await.through();
    assert!(meet(&server, old.clone(), "localhost").await.client.is_err());
    // Then the authority, that of the client first.
    let next = Authority::new("next");
    let both = scene.authority.pem() + &next.pem();
    replace(&scene.path("ca.crt"), both.as_bytes());
    next.issue(Subject { names: &["renewed"], ..Subject::default() }).write(scene.dir.path(), "server");
    let new = scene.with("new", &next.issue(ANN));
    meet(&server, old.clone(), "renewed").await.through();
    meet(&server, new.clone(), "renewed").await.through();
    next.write(&scene.path("ca.crt"));
    meet(&server, new, "renewed").await.through();
    meet(&server, old, "renewed").await.refused();
}

#[tokio::test]
async fn a_client_renews_what_it_shows_as_well() {
    let scene = Scene::new();
    let server = server(Settings { trusted_ca_file: Some(scene.path("ca.crt")), ..scene.open() });
    let client = Client::new(scene.client(ANN)).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let listening = Listener::tcp(listener, Door::tls(server)).listen().unwrap();
    let name = async || {
        let serving = async {
            let (socket, door) = listening.accept().await.unwrap().settle().unwrap();
            door.enter(socket).await.unwrap().common_name().unwrap()
        };
        let calling = async {
            let socket = TcpStream::connect(address).await.unwrap();
            client.connect(socket.into(), "localhost").await.unwrap()
        };
        tokio::join!(serving, calling).0
    };
    assert_eq!(name().await, "ann");
    scene.authority.issue(Subject { common_name: "ann the second", ..ANN }).write(scene.dir.path(), "client");
    assert_eq!(name().await, "ann the second");
}

#[tokio::test]
async fn versions_and_suites_are_those_that_are_asked_for() {
    let scene = Scene::new();
    let only = |version| Versions { min: version, max: version };
    let (older, newer) = (only(Version::Tls12), only(Version::Tls13));
    let of = |versions, suites: &[&str]| Settings {
        versions,
        ciphers: Ciphers::new(suites.iter().map(|name| (*name).to_owned()).collect()).unwrap(),
        ..scene.open()
    };
    let any = Versions::default();
    let calling = |versions| Settings { versions, ..scene.client(ANN) };
    const AES: &str = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    const CHACHA: &str = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305";
    for (server_settings, client_settings, spoken) in [
        (of(any, &[]), calling(any), Some(ProtocolVersion::TLSv1_3)),
        (of(older, &[]), calling(any), Some(ProtocolVersion::TLSv1_2)),
        (of(any, &[]), calling(older), Some(ProtocolVersion::TLSv1_2)),
        (of(newer, &[]), calling(older), None),
        (of(older, &[]), calling(newer), None),
        (of(any, &[AES]), calling(older), Some(ProtocolVersion::TLSv1_2)),
        (of(any, &["TLS_AES_128_GCM_SHA256"]), calling(older), None),
    ] {
        let case = format!("{:?} {:?}", server_settings.versions, client_settings.versions);
        let met = meet(&server(server_settings), client_settings, "localhost").await;
        match spoken {
            Some(version) => assert_eq!(session(&met.through()).0, Some(version), "{case}"),
            None => assert!(met.server.is_err() && met.client.is_err(), "{case}"),
        }
    }
    for (name, suite) in [
        (AES, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        (CHACHA, CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ] {
        let met = meet(&server(of(older, &[name])), calling(any), "localhost").await;
        assert_eq!(session(&met.through()).1, Some(suite));
    }
}

#[tokio::test]
async fn a_peer_comes_from_where_its_certificate_says() {
    let scene = Scene::new();
    let settings = Settings { trusted_ca_file: Some(scene.path("ca.crt")), ..scene.open() };
    let strict = server(Settings { check_addresses: true, ..settings.clone() });
    let from = |names| scene.client(Subject { names, ..Subject::default() });
    meet(&strict, from(&["127.0.0.1"]), "localhost").await.through();
    meet(&strict, from(&[]), "localhost").await.through();
    let elsewhere = meet(&strict, from(&["10.0.0.1"]), "localhost").await.refused();
    assert_eq!(elsewhere, "x509: certificate is valid for 10.0.0.1, not 127.0.0.1");
    meet(&server(settings), from(&["10.0.0.1"]), "localhost").await.through();
}

#[tokio::test]
async fn without_an_authority_there_is_encryption_all_the_same() {
    let scene = Scene::new();
    let dir = scene.path("fixtures");
    let made = tls::self_signed(&dir, &["127.0.0.1".to_owned()], 1).unwrap();
    let key = fs::metadata(dir.join("key.pem")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    let server = server(made.clone());
    meet(&server, made.clone(), "127.0.0.1").await.through();
    assert!(meet(&server, scene.nobody(), "127.0.0.1").await.client.is_err(), "nobody vouches for it");
    let before = fs::read(dir.join("cert.pem")).unwrap();
    assert_eq!(tls::self_signed(&dir, &[], 1).unwrap(), made);
    assert_eq!(fs::read(dir.join("cert.pem")).unwrap(), before, "it is made once");
    let words = |years| tls::self_signed(&scene.path("none"), &[], years).unwrap_err().to_string();
    assert_eq!(words(0), "selfSignedCertValidity is invalid,it should be greater than 0");
    assert!(words(u64::MAX).ends_with("cannot be good for that long"));
}

/// Keys as openssl writes them, with certificates that vouch for themselves.
#[tokio::test]
async fn keys_come_in_three_shapes() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for (name, kind) in [("rsa", "RSA PRIVATE KEY"), ("ec", "EC PRIVATE KEY")] {
        let (cert, key) = (data.join(format!("{name}.crt")), data.join(format!("{name}.key")));
        assert!(fs::read_to_string(&key).unwrap().contains(kind));
        let settings = Settings {
            trusted_ca_file: Some(cert.clone()),
            cert_file: Some(cert),
            key_file: Some(key),
            ..Settings::default()
        };
        let met = meet(&server(settings.clone()), settings.clone(), "localhost").await;
        assert_eq!(met.through().common_name().as_deref(), Some(name));
        let other_name = meet(&server(settings.clone()), settings, "127.0.0.1").await;
        assert!(other_name.client.is_err(), "its name counts all the same");
    }
}

#[test]
fn files_that_make_no_sense_are_told_at_once() {
    let scene = Scene::new();
    let good = scene.open();
    let words = |settings: Settings| Server::new(settings, &[]).unwrap_err().to_string();
    let missing = words(Settings { key_file: Some(scene.path("none.key")), ..good.clone() });
    assert!(missing.starts_with("open ") && missing.contains("none.key: No such file"), "{missing}");
    let (_, other) = scene.authority.issue(ANN).write(scene.dir.path(), "other");
    let mismatch = words(Settings { key_file: Some(other), ..good.clone() });
    assert!(mismatch.ends_with("tls: private key does not match public key"), "{mismatch}");
    fs::write(scene.path("empty"), "").unwrap();
    let empty = words(Settings { cert_file: Some(scene.path("empty")), ..good.clone() });
    assert!(empty.ends_with("tls: failed to find any PEM data in certificate input"), "{empty}");
    let no_authority = words(Settings { trusted_ca_file: Some(scene.path("empty")), ..good.clone() });
    assert!(no_authority.ends_with("there is no certificate in it"), "{no_authority}");
    let half = words(Settings { client_cert_file: Some(scene.path("empty")), ..good });
    assert!(half.starts_with("ClientKeyFile and ClientCertFile must both be present"), "{half}");
}

#[tokio::test]
async fn one_door_takes_both_and_another_only_tls() {
    let scene = Scene::new();
    let server = server(scene.open());
    let client = Client::new(scene.nobody()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let both = Listener::tcp(listener, Door { plain: true, tls: Some(server.clone()) }).listen().unwrap();
    let enter = async |listening: &Listening| {
        let (socket, door) = listening.accept().await.unwrap().settle().unwrap();
        door.enter(socket).await
    };
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /").await.unwrap();
    let mut stream = enter(&both).await.unwrap();
    assert!(!stream.is_secure());
    let mut five = [0; 5];
    stream.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"GET /", "nothing of it is lost");
    let call = async { client.connect(TcpStream::connect(address).await.unwrap().into(), "localhost").await };
    let (entered, called) = tokio::join!(enter(&both), call);
    assert!(entered.unwrap().is_secure() && called.is_ok());
    drop(TcpStream::connect(address).await.unwrap());
    assert_eq!(enter(&both).await.unwrap_err().why, "EOF");

    // The same at a path of the file system.
    let path = scene.path("socket");
    let secured = Listener::unix(&path, Door::tls(server)).unwrap().listen().unwrap();
    let call = async { client.connect(UnixStream::connect(&path).await.unwrap().into(), "localhost").await };
    let (entered, called) = tokio::join!(enter(&secured), call);
    assert!(entered.unwrap().is_secure() && called.is_ok());
    let mut plain = UnixStream::connect(&path).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(enter(&secured).await.is_err());
    drop(secured);
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_sent_away_in_time() {
    let scene = Scene::new();
    let (near, _far) = UnixStream::pair().unwrap();
    let door = Door { plain: true, tls: Some(server(scene.open())) };
    assert_eq!(door.enter(near.into()).await.unwrap_err().why, "nothing was said");
    let (near, _far) = UnixStream::pair().unwrap();
    let start = tokio::time::Instant::now();
    let late = Door::tls(server(scene.open())).enter(near.into()).await.unwrap_err();
    assert_eq!(late.why, "TLS handshake timed out");
    assert_eq!(start.elapsed().as_secs(), Duration::from_secs(10).as_secs());
}
