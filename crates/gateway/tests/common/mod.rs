//! A member behind real ports, in this process.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gateway::{Access, Gateway, Http2, Listeners, Settings};
use server::{ClusterState, Config, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::unbounded_channel;
use tonic::transport::{Channel, Endpoint};

fn config(directory: &Path) -> Config {
    Config { max_request_bytes: 10_000, no_fsync: true, shards: 2, ..Config::new(directory.join("data")) }
}

/// How long a test may take on a machine that is busy with others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `work` with a channel to a member, and stops the member: in the middle of it if `work` says
/// when, else after it.
pub(crate) fn with_member<F: Future<Output = ()>>(work: impl FnOnce(Channel, Box<dyn FnOnce() + Send>) -> F) {
    with_ports(async |client, _peer, stop| {
        let channel = Endpoint::from_shared(format!("http://{client}")).unwrap().connect().await.unwrap();
        work(channel, stop).await;
    });
}

/// The same with the addresses of the client and the peer port.
pub(crate) fn with_ports(work: impl AsyncFnOnce(SocketAddr, SocketAddr, Box<dyn FnOnce() + Send>)) {
    with_settings(Access::default(), true, work);
}

/// The same, with who is let in, and whether there is JSON.
pub(crate) fn with_settings(
    access: Access,
    json: bool,
    work: impl AsyncFnOnce(SocketAddr, SocketAddr, Box<dyn FnOnce() + Send>),
) {
    with_config(access, json, |_, _| (), work);
}

/// The same, with a member that is told other things, for which its peer address is known.
pub(crate) fn with_config(
    access: Access,
    json: bool,
    change: impl FnOnce(&mut Config, SocketAddr),
    work: impl AsyncFnOnce(SocketAddr, SocketAddr, Box<dyn FnOnce() + Send>),
) {
    let directory = tempfile::tempdir().unwrap();
    let (failures, mut failed) = unbounded_channel();
    let [client, peer] =
        [(); 2].map(|()| gateway::bind((Ipv4Addr::LOCALHOST, 0).into(), false, false).unwrap());
    let (client_address, peer_address) = (client.local_addr().unwrap(), peer.local_addr().unwrap());
    let mut config = config(directory.path());
    change(&mut config, peer_address);
    let mut server = Server::start(config, failures).unwrap();
    serve(&mut server, client, peer, access, json);
    let (stop, stopped) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The end of `work` without a word is a word too.
            let _ = stopped.recv();
            server.stop();
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let now = stop.clone();
            let work = work(client_address, peer_address, Box::new(move || now.send(()).unwrap()));
            // What does not come must not be waited for until somebody looks.
            tokio::time::timeout(PATIENCE, work).await.expect("everything has happened in time");
        });
        drop(stop);
    });
    if let Ok(failure) = failed.try_recv() {
        panic!("{failure}");
    }
}

fn serve(server: &mut Server, client: TcpListener, peer: TcpListener, access: Access, json: bool) {
    let listeners =
        Listeners { client: vec![client.into()], peer: vec![peer.into()], ..Listeners::default() };
    let http2 = Http2 {
        max_concurrent_streams: u32::MAX,
        keepalive_min_time: Duration::from_secs(5),
        keepalive_interval: Duration::ZERO,
        keepalive_timeout: Duration::from_secs(20),
    };
    let settings = Settings { http2, access, json };
    let gateway = Gateway::new(Arc::clone(server.member()), listeners, settings, || {});
    server.serve(move |shard| gateway.clone().serve(shard)).unwrap();
}

/// Runs a member that has been added under the URL of `peer` to the cluster of the one at `founder`, until
/// `until` returns.
pub(crate) fn join(peer: TcpListener, founder: &str, until: impl FnOnce()) {
    let directory = tempfile::tempdir().unwrap();
    let own = format!("http://{}", peer.local_addr().unwrap());
    let config = Config {
        name: "joined".to_owned(),
        peer_urls: vec![own.clone()],
        cluster_state: ClusterState::Existing,
        initial_cluster: BTreeMap::from([
            ("default".to_owned(), vec![founder.to_owned()]),
            ("joined".to_owned(), vec![own]),
        ]),
        ..config(directory.path())
    };
    let (failures, _failed) = unbounded_channel();
    let mut server = Server::start(config, failures).unwrap();
    let client = gateway::bind((Ipv4Addr::LOCALHOST, 0).into(), false, false).unwrap();
    serve(&mut server, client, peer, Access::default(), true);
    until();
    server.stop();
}

/// One question over HTTP/1.1; the status line and the body.
pub(crate) async fn ask(address: SocketAddr, request: &str, body: &str) -> (u16, String) {
    let (status, _, body) = ask_with(address, request, &[("Host", "x")], body).await;
    (status, body)
}

/// The same with headers, in both directions; those of the answer as they are on the wire.
pub(crate) async fn ask_with(
    address: SocketAddr,
    request: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head =
        format!("{request} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}
