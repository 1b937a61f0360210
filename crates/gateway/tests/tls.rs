//! The client port with TLS: who is let in, and as whom.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::authpb::{Permission, UserAddOptions};
use api::etcdserverpb::auth_client::AuthClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserGrantRoleRequest, PutRequest, RangeRequest,
};
use authority::{Authority, Subject};
use gateway::{Access, Gateway, Http2, Listeners, Names};
use http::Uri;
use hyper_util::rt::TokioIo;
use server::Config;
use tempfile::TempDir;
use tls::{Client, Door, Listener, Server, Settings, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::unbounded_channel;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// How long a test may take on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member whose client port is behind `door`, and who else may come in.
struct Doors {
    door: Door,
    client_cert_auth: bool,
    access: Access,
    more: Vec<Listener>,
    /// Where HTTP alone is served.
    http: Vec<Listener>,
}

impl Doors {
    fn behind(door: Door) -> Doors {
        Doors { door, client_cert_auth: false, access: Access::default(), more: Vec::new(), http: Vec::new() }
    }

    /// Runs the member while `work` does.
    fn open(self, work: impl AsyncFnOnce(SocketAddr)) {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            no_fsync: true,
            shards: 2,
            client_cert_auth: self.client_cert_auth,
            ..Config::new(directory.path().join("data"))
        };
        let (failures, _failed) = unbounded_channel();
        let mut server = server::Server::start(config, failures).unwrap();
        let socket = gateway::bind((Ipv4Addr::LOCALHOST, 0).into(), false, false).unwrap();
        let address = socket.local_addr().unwrap();
        let mut client = self.more;
        client.push(Listener::tcp(socket, self.door));
        let http2 = Http2 {
            max_concurrent_streams: u32::MAX,
            keepalive_min_time: Duration::ZERO,
            keepalive_interval: Duration::ZERO,
            keepalive_timeout: Duration::from_secs(20),
        };
        let settings = gateway::Settings { http2, access: self.access, json: true };
        let listeners = Listeners { client, http: self.http, peer: Vec::new() };
        let gateway = Gateway::new(Arc::clone(server.member()), listeners, settings, || {});
        server.serve(move |shard| gateway.clone().serve(shard)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, work(address)).await.expect("everything has happened in time");
        });
        server.stop();
    }
}

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

    fn server(&self, client_cert_auth: bool) -> Server {
        let pair = self.authority.issue(Subject { names: &["localhost"], ..Subject::default() });
        let (cert, key) = pair.write(self.dir.path(), "server");
        let trusted_ca_file = client_cert_auth.then(|| self.path("ca.crt"));
        let settings = Settings {
            cert_file: Some(cert),
            key_file: Some(key),
            trusted_ca_file,
            client_cert_auth,
            ..Settings::default()
        };
        Server::new(settings, &["h2", "http/1.1"]).unwrap()
    }

    /// A client whose certificate has this name; one without any where it is none.
    fn client(&self, name: Option<&str>) -> Client {
        let shown = name.map(|common_name| {
            let pair = self.authority.issue(Subject { common_name, ..Subject::default() });
            pair.write(self.dir.path(), &format!("client-{common_name}"))
        });
        let (cert_file, key_file) = shown.unzip();
        let trusted_ca_file = Some(self.path("ca.crt"));
        Client::new(Settings { cert_file, key_file, trusted_ca_file, ..Settings::default() }).unwrap()
    }
}

async fn connect(client: &Client, to: SocketAddr) -> std::io::Result<Stream> {
    client.connect(TcpStream::connect(to).await?.into(), "localhost").await
}

/// A channel over TLS.
async fn channel(client: &Client, to: SocketAddr) -> Channel {
    let client = client.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let client = client.clone();
        async move { connect(&client, to).await.map(TokioIo::new) }
    });
    // The connector has its own mind about schemes.
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

/// One question over HTTP/1.1: the status, and the body.
async fn ask(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    head: &str,
    body: &str,
) -> (u16, String) {
    let length = body.len();
    let request = format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut told = Vec::new();
    // How the other side says goodbye does not matter.
    let _ = stream.read_to_end(&mut told).await;
    let told = String::from_utf8(told).unwrap();
    let (head, body) = told.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: elsewhere";
const PUT: &str = "POST /v3/kv/put HTTP/1.1\r\nHost: elsewhere";

fn put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() }
}

async fn enable_auth(root: Channel) {
    let mut auth = AuthClient::new(root);
    auth.role_add(AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    auth.role_add(AuthRoleAddRequest { name: "writer".into() }).await.unwrap();
    let perm = Permission { perm_type: 2, key: "a".into(), range_end: "".into() };
    auth.role_grant_permission(AuthRoleGrantPermissionRequest { name: "writer".into(), perm: Some(perm) })
        .await
        .unwrap();
    for (user, role) in [("root", "root"), ("ann", "writer")] {
        let options = Some(UserAddOptions { no_password: true });
        let name = user.to_owned();
        auth.user_add(AuthUserAddRequest { name, options, ..Default::default() }).await.unwrap();
        let request = AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        auth.user_grant_role(request).await.unwrap();
    }
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}

#[test]
fn the_name_in_a_certificate_is_the_users() {
    let scene = Scene::new();
    let doors = Doors { client_cert_auth: true, ..Doors::behind(Door::tls(scene.server(true))) };
    doors.open(async |client| {
        let [root, ann, nobody] = ["root", "ann", ""].map(|name| scene.client(Some(name)));
        enable_auth(channel(&root, client).await).await;
        let mut of_ann = KvClient::new(channel(&ann, client).await);
        of_ann.put(put("a")).await.unwrap();
        let refused = of_ann.put(put("b")).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "etcdserver: permission denied"));
        KvClient::new(channel(&root, client).await).put(put("b")).await.unwrap();
        let refused = KvClient::new(channel(&nobody, client).await).put(put("a")).await.unwrap_err();
        let denied = (Code::PermissionDenied, "etcdserver: permission denied");
        assert_eq!((refused.code(), refused.message()), denied, "nobody has that name");
        // With TLS 1.3 it learns of that by its first question.
        if let Ok(mut stream) = connect(&scene.client(None), client).await {
            let unheard = stream.write_all(b"x").await.is_err() || stream.read_exact(&mut [0]).await.is_err();
            assert!(unheard, "one without a certificate");
        }

        // What is not gRPC goes by tokens alone, and says so; but that is no reason not to tell how one is.
        let body = r#"{"key":"YQ==","value":"dg=="}"#;
        let (status, told) = ask(connect(&ann, client).await.unwrap(), PUT, body).await;
        const PASSED_OVER: &str =
            "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
        assert_eq!((status, told.as_str()), (400, PASSED_OVER));
        let (status, _) = ask(connect(&ann, client).await.unwrap(), HEALTH, "").await;
        assert_eq!(status, 200);
        let (status, told) = ask(connect(&nobody, client).await.unwrap(), PUT, body).await;
        assert!(status == 400 && told.contains("user name is empty"), "{status} {told}");
    });
}

#[test]
fn names_are_looked_at_where_there_is_no_certificate() {
    let scene = Scene::new();
    let path = scene.path("socket");
    let doors = Doors {
        access: Access { hosts: Names::new(["known".to_owned()]), ..Access::default() },
        more: vec![Listener::unix(&path, Door::plain()).unwrap()],
        ..Doors::behind(Door { plain: true, tls: Some(scene.server(false)) })
    };
    doors.open(async |client| {
        let (status, _) = ask(TcpStream::connect(client).await.unwrap(), HEALTH, "").await;
        assert_eq!(status, 421);
        let (status, _) = ask(connect(&scene.client(None), client).await.unwrap(), HEALTH, "").await;
        assert_eq!(status, 200, "whoever asks over TLS has looked at a certificate");
        let known = HEALTH.replace("elsewhere", "known");
        let (status, _) = ask(UnixStream::connect(&path).await.unwrap(), &known, "").await;
        assert_eq!(status, 200);

        // All of them lead to the same member.
        KvClient::new(channel(&scene.client(None), client).await).put(put("k")).await.unwrap();
        let socket = path.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let local =
            Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
        let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        assert_eq!(KvClient::new(local).range(range.clone()).await.unwrap().into_inner().count, 1);
        let plain = Endpoint::from_shared(format!("http://{client}")).unwrap().connect().await.unwrap();
        assert_eq!(KvClient::new(plain).range(range).await.unwrap().into_inner().count, 1);
    });
    assert!(!path.exists(), "a socket ends with its member");
}

/// The status of a question over HTTP/2 that is no call, and what else is in its head.
async fn ask_no_call(mut channel: Channel, path: &str) -> (u16, http::HeaderMap) {
    let request = http::Request::get(path).body(tonic::body::Body::empty()).unwrap();
    std::future::poll_fn(|context| tower::Service::poll_ready(&mut channel, context)).await.unwrap();
    let (head, _) = tower::Service::call(&mut channel, request).await.unwrap().into_parts();
    (head.status.as_u16(), head.headers)
}

#[test]
fn grpc_and_http_may_have_listeners_of_their_own() {
    let scene = Scene::new();
    let either = || Door { plain: true, tls: Some(scene.server(false)) };
    let socket = gateway::bind((Ipv4Addr::LOCALHOST, 0).into(), false, false).unwrap();
    let web = socket.local_addr().unwrap();
    let doors = Doors { http: vec![Listener::tcp(socket, either())], ..Doors::behind(either()) };
    let stranger = scene.client(None);
    doors.open(async |client| {
        let plain = async |to: SocketAddr| {
            Endpoint::from_shared(format!("http://{to}")).unwrap().connect().await.unwrap()
        };
        for calls in [plain(client).await, channel(&stranger, client).await] {
            KvClient::new(calls.clone()).put(put("k")).await.unwrap();
            let (status, headers) = ask_no_call(calls, "/health").await;
            assert_eq!((status, headers["grpc-status"].as_bytes()), (415, b"3".as_slice()));
        }
        for is_secure in [false, true] {
            // What it is told, if anything, is not HTTP/1.1.
            let mut told = Vec::new();
            if is_secure {
                let mut stream = connect(&stranger, client).await.unwrap();
                stream.write_all(format!("{HEALTH}\r\n\r\n").as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                let _ = stream.read_to_end(&mut told).await;
            } else {
                let mut stream = TcpStream::connect(client).await.unwrap();
                stream.write_all(format!("{HEALTH}\r\n\r\n").as_bytes()).await.unwrap();
                let _ = stream.read_to_end(&mut told).await;
            }
            assert!(!told.starts_with(b"HTTP/1"), "{}", String::from_utf8_lossy(&told));
        }

        let body = r#"{"key":"aw=="}"#;
        let range = PUT.replace("put", "range");
        let (status, told) = ask(TcpStream::connect(web).await.unwrap(), &range, body).await;
        assert!(status == 200 && told.contains(r#""version":"2""#), "{status} {told}");
        let (status, _) = ask(connect(&stranger, web).await.unwrap(), HEALTH, "").await;
        assert_eq!(status, 200);
        // Over TLS, HTTP/2 is HTTP like any other; without, it is not understood.
        let secure = channel(&stranger, web).await;
        assert_eq!(ask_no_call(secure.clone(), "/health").await.0, 200);
        let refused = KvClient::new(secure).put(put("k")).await.unwrap_err();
        assert!(refused.message().contains("404 Not Found"), "{refused}");
        let refused = KvClient::new(plain(web).await).put(put("k")).await.unwrap_err();
        assert!(!refused.message().contains("404 Not Found"), "{refused}");
    });
}

/// Whoever connects and says nothing, or only half of what it takes, is in nobody's way.
#[test]
fn half_open_connections_hold_nobody_up() {
    const SILENT: usize = 1_500;
    let scene = Scene::new();
    let doors = Doors::behind(Door::tls(scene.server(false)));
    doors.open(async |client| {
        let mut silent = Vec::new();
        for number in 0..SILENT {
            let mut stream = TcpStream::connect(client).await.unwrap();
            if number % 2 == 0 {
                stream.write_all(&[22, 3, 1, 0, 200, 1]).await.unwrap();
            }
            silent.push(stream);
        }
        let mut kv = KvClient::new(channel(&scene.client(None), client).await);
        kv.put(put("k")).await.unwrap();
        // The first of them have made room, and been told so.
        let end = silent[0].read(&mut [0; 64]).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        kv.put(put("k")).await.unwrap();
    });
}
