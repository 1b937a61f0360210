//! The peer port, and who has no business there: members of other clusters, and bodies that no member sends.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::Server;

use crate::beside::Beside;
use crate::no_panics;
use crate::support::{Dice, get};

const MIB: u64 = 1 << 20;

/// A request as far as its head goes.
fn head(method: &str, path: &str, headers: &[(&str, &str)], length: u64) -> String {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// Sends, and reads the answer to its end: its status, if there was one.
fn post(port: u16, path: &str, headers: &[(&str, &str)], length: u64, body: &[u8]) -> Result<Option<u16>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // It may be answered, or cut off, in the middle of it.
    let _ = stream
        .write_all(head("POST", path, headers, length).as_bytes())
        .and_then(|()| stream.write_all(body));
    if (body.len() as u64) < length {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    status(&mut stream)
}

fn status(stream: &mut TcpStream) -> Result<Option<u16>> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            return Err(error).context("neither answered nor cut off");
        }
        _ => {}
    }
    let text = String::from_utf8_lossy(&answer);
    Ok(text.split(' ').nth(1).and_then(|status| status.parse().ok()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_liars_on_the_peer_port() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let port = server.peer_port();
    let beside = Beside::start(&server).await?;
    let cluster = get(port, "/members")?.header("x-etcd-cluster-id").context("a cluster's id")?.to_owned();
    let versions = [("X-Server-Version", "3.7.1"), ("X-Min-Cluster-Version", "3.0.0")];
    let of = |cluster| [&versions[..], &[("X-Etcd-Cluster-ID", cluster), ("X-Server-From", "77")]].concat();
    let (stranger, insider) = (of("deadbeef"), of(cluster.as_str()));

    // Who is of another cluster, or says nothing of itself, is told so.
    for path in ["/raft", "/raft/snapshot"] {
        assert_eq!(post(port, path, &stranger, 4, b"aaaa")?, Some(412), "{path}");
        assert_eq!(post(port, path, &[], 4, b"aaaa")?, Some(412), "{path}");
    }
    for stream in ["message", "msgapp"] {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        let path = format!("/raft/stream/{stream}/77");
        connection.write_all(head("GET", &path, &stranger, 0).as_bytes())?;
        assert_eq!(status(&mut connection)?, Some(412));
    }

    // Whoever knows the cluster's id may speak, and is not believed.
    let mut dice = Dice(5);
    for length in [0, 1, 8, 100, 5000] {
        let garbage = dice.bytes(length);
        for path in ["/raft", "/raft/snapshot"] {
            let told = post(port, path, &insider, length as u64, &garbage)?;
            assert!(told.is_none_or(|status| status >= 400), "{path}: {told:?}");
        }
    }
    // Lengths that lie: of the body, and of the message at the begin of a database.
    for length in [u64::MAX, 1 << 63, 65 << 20, 64 << 20, 1000] {
        let body = [&length.to_be_bytes()[..], &[0; 100]].concat();
        let told = post(port, "/raft/snapshot", &insider, 108, &body)?;
        assert!(told.is_none_or(|status| status >= 400), "{length}: {told:?}");
        let told = post(port, "/raft", &insider, length, &body)?;
        assert!(told.is_none_or(|status| status >= 400), "{length}: {told:?}");
    }

    // Thousands of members that there are not.
    for number in 0..2_000 {
        let from = format!("{number:x}");
        let urls = format!("http://127.0.0.1:{}", 1 + number % 1000);
        let headers =
            [("X-Etcd-Cluster-ID", cluster.as_str()), ("X-Server-From", &from), ("X-PeerURLs", &urls)];
        post(port, "/raft", &[&versions[..], &headers].concat(), 1, b"a")?;
    }
    beside.end("strangers", 64 * MIB).await?;

    // Messages of a size that none has, from many at once.
    let beside = Beside::start(&server).await?;
    let mut open = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_write_timeout(Some(Duration::from_millis(300)))?;
        let path = if open.len() % 2 == 0 { "/raft" } else { "/raft/snapshot" };
        stream.write_all(head("POST", path, &insider, 500 << 20).as_bytes())?;
        open.push(stream);
    }
    let piece = [&(63_u64 << 20).to_be_bytes()[..], &vec![0; 1 << 20]].concat();
    for _ in 0..24 {
        open.retain_mut(|stream| stream.write_all(&piece).is_ok());
    }
    println!("{} of them are still heard", open.len());
    drop(open);
    beside.end("gigantic messages", 400 * MIB).await?;

    let left = std::fs::read_dir(directory.path().join("member").join("snap")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "files of snapshots that never came");
    no_panics(&server);
    Ok(())
}
