//! HTTP by hand, to say what no member would.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::{CLUSTER, Member, PATIENCE};

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub fn connect(member: &Member) -> TcpStream {
    let stream = TcpStream::connect(member.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Headers as a member of the cluster sends them.
pub fn headers(from: u64, to: u64) -> Vec<(&'static str, String)> {
    vec![
        ("X-Server-From", format!("{from:x}")),
        ("X-Server-Version", "3.5.1".into()),
        ("X-Min-Cluster-Version", "3.0.0".into()),
        ("X-Etcd-Cluster-ID", format!("{CLUSTER:x}")),
        ("X-Raft-To", format!("{to:x}")),
        ("X-PeerURLs", "http://127.0.0.1:1".into()),
    ]
}

pub fn head(method: &str, path: &str, headers: &[(&str, String)], length: usize) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: it\r\n{lines}Content-Length: {length}\r\n\r\n")
}

/// Asks, and reads the answer to its end.
pub fn ask(member: &Member, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> Answer {
    let mut stream = connect(member);
    let mut headers = headers.to_vec();
    headers.push(("Connection", "close".into()));
    stream.write_all(head(method, path, &headers, body.len()).as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(all[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: all.split_off(end) }
}

/// A stream from a member to whoever reads this socket, past its head.
pub fn listen_to(member: &Member, kind: &str, from: u64) -> TcpStream {
    let mut stream = connect(member);
    let path = format!("/raft/stream/{kind}/{from:x}");
    stream.write_all(head("GET", &path, &headers(from, member.id), 0).as_bytes()).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&seen));
    stream
}

/// A peer that takes connections and does with them what it is told, each on a thread of its own.
pub struct Impostor {
    pub url: String,
    taken: Arc<Mutex<Vec<TcpStream>>>,
}

impl Impostor {
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Impostor {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (list, serve) = (Arc::clone(&taken), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                list.lock().unwrap().push(stream.try_clone().unwrap());
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Impostor { url, taken }
    }

    /// Reads the head of each request and answers with a stream that begins with `bytes` and then
    /// says nothing.
    pub fn streaming(bytes: Vec<u8>) -> Impostor {
        Impostor::start(move |mut stream| {
            let mut seen = Vec::new();
            let mut byte = [0];
            while !seen.ends_with(b"\r\n\r\n") {
                match stream.read(&mut byte) {
                    Ok(1) => seen.push(byte[0]),
                    _ => return,
                }
            }
            let answer = "HTTP/1.1 200 OK\r\nX-Server-Version: 3.5.1\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
            if !bytes.is_empty() {
                let _ = stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes());
                let _ = stream.write_all(&bytes);
                let _ = stream.write_all(b"\r\n");
            }
            // Until the other side ends it.
            let _ = stream.read(&mut byte);
        })
    }

    /// Connections so far.
    pub fn taken(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for stream in self.taken.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A wire to a member that breaks after so many bytes, in whichever direction they go.
pub struct Wire {
    pub impostor: Impostor,
    budget: Arc<Mutex<u64>>,
}

impl Wire {
    pub fn to(member: &Member) -> Wire {
        let target = member.url.trim_start_matches("http://").to_owned();
        let budget = Arc::new(Mutex::new(u64::MAX));
        let left = Arc::clone(&budget);
        let impostor = Impostor::start(move |near| {
            let Ok(far) = TcpStream::connect(&target) else { return };
            let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let budget = Arc::clone(&left);
            let back = std::thread::spawn(move || pass(far_too, near_too, &budget));
            pass(near, far, &left);
            let _ = back.join();
        });
        Wire { impostor, budget }
    }

    /// The wire breaks when this many bytes more have passed.
    pub fn break_after(&self, bytes: u64) {
        *self.budget.lock().unwrap() = bytes;
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, budget: &Mutex<u64>) {
    let mut piece = [0; 4096];
    while let Ok(read) = from.read(&mut piece) {
        let allowed = {
            let mut left = budget.lock().unwrap();
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX).min(read);
            if *left != u64::MAX {
                *left -= allowed as u64;
            }
            allowed
        };
        if to.write_all(&piece[..allowed]).is_err() || allowed == 0 || allowed < read {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
