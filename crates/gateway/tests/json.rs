//! The JSON gateway of a member behind a real port: what goes in and what comes out, over HTTP/1.1.
//!
//! That real etcd answers the same is for `tests/conformance` to show.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;

use common::{ask, ask_with, with_ports, with_settings};
use gateway::{Access, Names};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A call, without the numbers that differ from run to run.
async fn call(client: SocketAddr, path: &str, body: &str) -> (u16, Value) {
    let (status, text) = ask(client, &format!("POST /v3/{path}"), body).await;
    let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}"));
    mask(&mut answer);
    (status, answer)
}

fn mask(answer: &mut Value) {
    if let Some(header) = answer.get_mut("header").and_then(Value::as_object_mut) {
        for id in ["cluster_id", "member_id", "raft_term"] {
            let held = header.remove(id).unwrap();
            held.as_str().unwrap().parse::<u64>().unwrap();
        }
    }
}

fn refused(code: i32, message: &str) -> Value {
    json!({"error": message, "code": code, "message": message})
}

#[test]
fn a_call_is_answered_in_json() {
    with_ports(async |client, _peer, _stop| {
        let (status, put) = call(client, "kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await;
        assert_eq!((status, put), (200, json!({"header": {"revision": "2"}})));
        let pair = json!({
            "key": "Zm9v", "value": "YmFy", "create_revision": "2", "mod_revision": "2", "version": "1"
        });
        let found = json!({"header": {"revision": "2"}, "kvs": [pair], "count": "1"});
        for body in [
            r#"{"key":"Zm9v"}"#,
            r#"{"key":"Zm9v","rangeEnd":"Zm9w","unknown":[{}]}"#,
            r#" {"key":"Zg","range_end":"Zw","sort_order":"DESCEND","sortTarget":3} and more"#,
        ] {
            assert_eq!(call(client, "kv/range", body).await, (200, found.clone()), "{body}");
        }
        // Nothing at all stands for the message without fields.
        let no_key = (400, refused(3, "etcdserver: key is not provided"));
        for body in ["", "{}", "null"] {
            assert_eq!(call(client, "kv/range", body).await, no_key, "{body}");
        }
        let future = (400, refused(11, "etcdserver: mvcc: required revision is a future revision"));
        assert_eq!(call(client, "kv/range", r#"{"key":"Zm9v","revision":"9"}"#).await, future);
        let lease = (404, refused(5, "etcdserver: requested lease not found"));
        assert_eq!(call(client, "lease/revoke", r#"{"ID":9}"#).await, lease);
        assert_eq!(call(client, "kv/lease/revoke", r#"{"ID":"9"}"#).await, lease);
        for body in ["{", "[]", r#"{"key":"!!"}"#, r#"{"limit":"many"}"#, "}", "\"a b\""] {
            let (status, answer) = call(client, "kv/range", body).await;
            assert_eq!((status, &answer["code"]), (400, &json!(3)), "{body}");
            assert_eq!(answer["error"], answer["message"]);
        }
        let deep = r#"{"a":"#.repeat(100_000);
        assert_eq!(call(client, "kv/txn", &deep).await.0, 400);
        let nested = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(60), "}]}".repeat(60));
        assert_eq!(call(client, "kv/txn", &nested).await.0, 400);
    });
}

#[test]
fn what_there_is_not_is_told_in_json_too() {
    with_ports(async |client, _peer, _stop| {
        let missing = (404, refused(5, "Not Found"));
        for path in ["kv/guess", "kv/rangestream", "", "kv/put/", "KV/put"] {
            assert_eq!(call(client, path, "{}").await, missing, "{path}");
        }
        let (status, text) = ask(client, "GET /v3/kv/range", "").await;
        let not_so = refused(12, "Method Not Allowed");
        assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()), (501, not_so));
        // Pages may ask whether they may ask, and etcd's first clients used another prefix.
        assert_eq!(ask(client, "OPTIONS /v3/kv/range", "").await, (200, String::new()));
        let (status, text) = ask(client, "POST /v3beta/kv/range", r#"{"key":"eA=="}"#).await;
        assert_eq!((status, text.contains("header")), (200, true), "{text}");
    });
}

#[test]
fn what_is_too_long_is_refused() {
    with_ports(async |client, _peer, _stop| {
        let put = |length: usize| format!(r#"{{"key":"YQ==","value":"{}"}}"#, "A".repeat(length));
        // The member takes 10,000 bytes in a request; its gRPC half a mebibyte more.
        let (status, answer) = call(client, "kv/put", &put(16_000)).await;
        assert_eq!((status, &answer["message"]), (400, &json!("etcdserver: request is too large")));
        let (status, answer) = call(client, "kv/put", &put(800_000)).await;
        let words = answer["message"].as_str().unwrap();
        assert_eq!(status, 429);
        assert!(words.starts_with("grpc: received message larger than max (600"), "{words}");
        let (status, answer) = call(client, "kv/put", &put(1_100_000)).await;
        assert_eq!((status, &answer["code"]), (429, &json!(8)));
    });
}

/// A stream of requests that stays open, and its answers, line by line.
struct Stream {
    connection: BufReader<TcpStream>,
}

impl Stream {
    async fn open(client: SocketAddr, path: &str) -> Self {
        let mut connection = TcpStream::connect(client).await.unwrap();
        let head = format!("POST /v3/{path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        Self { connection: BufReader::new(connection) }
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.connection.write_all(chunk.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.connection.read_line(&mut line).await.unwrap(), 0, "the stream has ended");
        line.trim_end().to_owned()
    }

    /// The status line, past the headers.
    async fn head(&mut self) -> String {
        let status = self.line().await;
        while !self.line().await.is_empty() {}
        status
    }

    /// The next answer: a chunk of one line.
    async fn answer(&mut self) -> Value {
        let length = usize::from_str_radix(&self.line().await, 16).unwrap();
        let mut chunk = vec![0; length + 2];
        self.connection.read_exact(&mut chunk).await.unwrap();
        assert!(chunk.ends_with(b"}\n\r\n"));
        let mut answer: Value = serde_json::from_slice(&chunk).unwrap();
        if let Some(result) = answer.get_mut("result") {
            mask(result);
        }
        answer
    }
}

#[test]
fn a_watch_takes_requests_as_long_as_it_lasts() {
    with_ports(async |client, _peer, _stop| {
        let mut watch = Stream::open(client, "watch").await;
        // Two values in one piece, and the start of a third.
        watch
            .send(r#"{"create_request":{"key":"YQ=="}}{"createRequest":{"key":"Yg==","watch_id":7}}{"cancel"#)
            .await;
        assert_eq!(watch.head().await, "HTTP/1.1 200 OK");
        let at = json!({"revision": "1"});
        assert_eq!(watch.answer().await, json!({"result": {"header": at, "created": true}}));
        let second = json!({"result": {"header": at, "created": true, "watch_id": "7"}});
        assert_eq!(watch.answer().await, second);
        assert_eq!(call(client, "kv/put", r#"{"key":"Yg==","value":"dg=="}"#).await.0, 200);
        let pair = json!({
            "key": "Yg==", "value": "dg==", "create_revision": "2", "mod_revision": "2", "version": "1"
        });
        let at = json!({"revision": "2"});
        let event = json!({"result": {"header": at, "watch_id": "7", "events": [{"kv": pair}]}});
        assert_eq!(watch.answer().await, event);
        assert_eq!(call(client, "kv/deleterange", r#"{"key":"YQ=="}"#).await.0, 200);
        watch.send(r#"_request":{"watch_id":"7"}}"#).await;
        let cancelled = json!({"result": {"header": at, "watch_id": "7", "canceled": true}});
        assert_eq!(watch.answer().await, cancelled);
        watch.send(r#"{"progress_request":{}}"#).await;
        let progress = json!({"result": {"header": at, "watch_id": "-1"}});
        assert_eq!(watch.answer().await, progress);
        // What makes no sense ends it, in a word.
        watch.send(r#"{"create_request":7}"#).await;
        let end = watch.answer().await;
        assert_eq!((&end["error"]["code"], &end["error"]["http_code"]), (&json!(3), &json!(400)), "{end}");
        assert_eq!(watch.line().await, "0");
    });
}

#[test]
fn a_stream_that_is_refused_has_the_status_of_that() {
    with_ports(async |client, _peer, _stop| {
        let (status, text) = ask(client, "POST /v3/watch", "{").await;
        assert_eq!(status, 400, "{text}");
        let error: Value = serde_json::from_str(&text).unwrap();
        let words = json!({
            "error": {
                "grpc_code": 3, "http_code": 400, "message": "unexpected EOF", "http_status": "Bad Request", "code": 3
            }
        });
        assert_eq!(error, words);
    });
}

#[test]
fn a_stream_ends_with_its_requests() {
    with_ports(async |client, _peer, _stop| {
        let (status, text) = ask(client, "POST /v3/lease/keepalive", r#"{"ID":"3"} {"ID":4}"#).await;
        assert_eq!(status, 200);
        // Lines are chunks of their own.
        let ids: Vec<Value> = text
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["result"]["ID"].clone())
            .collect();
        assert_eq!(ids, [json!("3"), json!("4")], "{text}");
    });
}

/// An open stream is told that the member stops, and does not hold it up.
#[test]
fn a_stream_ends_with_the_member() {
    with_ports(async |client, _peer, stop| {
        let mut watch = Stream::open(client, "watch").await;
        watch.send(r#"{"create_request":{"key":"YQ=="}}"#).await;
        watch.head().await;
        assert_eq!(watch.answer().await["result"]["created"], json!(true));
        stop();
        let end = watch.answer().await;
        let words = (&json!(14), &json!("etcdserver: server stopped"));
        assert_eq!((&end["error"]["code"], &end["error"]["message"]), words);
    });
}

/// A client that hangs up while it waits for a lock does not hold up who comes after it.
#[test]
fn who_hangs_up_waits_no_longer() {
    with_ports(async |client, _peer, _stop| {
        for lease in [1, 2, 3] {
            assert_eq!(call(client, "lease/grant", &format!(r#"{{"ID":{lease},"TTL":600}}"#)).await.0, 200);
        }
        let lock = |lease: i32| format!(r#"{{"name":"bA==","lease":"{lease}"}}"#);
        assert_eq!(call(client, "lock/lock", &lock(1)).await.0, 200);
        // "l/" and what comes after it.
        let mut queue = Stream::open(client, "watch").await;
        queue.send(r#"{"create_request":{"key":"bC8=","range_end":"bDA="}}"#).await;
        queue.head().await;
        queue.answer().await;
        let waits = Stream::open(client, "lock/lock").await;
        let mut waits = waits.connection;
        let body = lock(2);
        waits.write_all(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await.unwrap();
        let key = |answer: Value| answer["result"]["events"][0].clone();
        assert_eq!(key(queue.answer().await)["kv"]["key"], "bC8y");
        drop(waits);
        let gone = key(queue.answer().await);
        assert_eq!((&gone["type"], &gone["kv"]["key"]), (&json!("DELETE"), &json!("bC8y")));
    });
}

/// A token goes into the header that HTTP has for it, and what a lock does is done in the client's name.
#[test]
fn calls_are_made_in_the_name_of_whoever_shows_a_token() {
    with_ports(async |client, _peer, _stop| {
        for (path, body) in [
            ("auth/user/add", r#"{"name":"root","password":"r"}"#),
            ("auth/role/add", r#"{"name":"root"}"#),
            ("auth/user/grant", r#"{"user":"root","role":"root"}"#),
            ("auth/user/add", r#"{"name":"ann","password":"a"}"#),
            ("auth/role/add", r#"{"name":"locks"}"#),
            (
                "auth/role/grant",
                r#"{"name":"locks","perm":{"permType":"READWRITE","key":"bC8=","range_end":"bDA="}}"#,
            ),
            ("auth/user/grant", r#"{"user":"ann","role":"locks"}"#),
            ("auth/enable", ""),
        ] {
            let (status, answer) = call(client, path, body).await;
            assert_eq!(status, 200, "{path}: {answer}");
        }
        let (status, answer) = call(client, "auth/authenticate", r#"{"name":"ann","password":"a"}"#).await;
        assert_eq!(status, 200, "{answer}");
        let token = answer["token"].as_str().unwrap();
        let ask = async |path: &str, body: &str, header: (&str, &str)| {
            let request = format!("POST /v3/{path}");
            let (status, _, text) = ask_with(client, &request, &[("Host", "x"), header], body).await;
            let answer: Value = serde_json::from_str(&text).unwrap();
            (status, answer["message"].as_str().unwrap_or_default().to_owned())
        };
        let ann = ("Authorization", token);
        let forged = ("Authorization", "forged.7");
        // "l" is the name of a lock that ann may have, "m" of another.
        for (path, body, header, status, words) in [
            ("lock/lock", r#"{"name":"bA=="}"#, ann, 200, ""),
            ("lock/lock", r#"{"name":"bQ=="}"#, ann, 500, "etcdserver: permission denied"),
            ("lock/unlock", r#"{"key":"bS8x"}"#, ann, 500, "etcdserver: permission denied"),
            ("lock/lock", r#"{"name":"bA=="}"#, forged, 500, "etcdserver: invalid auth token"),
            ("kv/range", r#"{"key":"bC8="}"#, ann, 200, ""),
            ("kv/range", r#"{"key":"bC8="}"#, ("Grpc-Metadata-Token", token), 200, ""),
            ("kv/range", r#"{"key":"bC8="}"#, ("X-Token", token), 400, "etcdserver: user name is empty"),
            ("kv/range", r#"{"key":"bC8="}"#, forged, 401, "etcdserver: invalid auth token"),
            ("kv/range", r#"{"key":"bQ=="}"#, ann, 403, "etcdserver: permission denied"),
            ("election/leader", r#"{"name":"bQ=="}"#, ann, 500, "etcdserver: permission denied"),
            ("election/leader", r#"{"name":"bA=="}"#, ann, 200, ""),
        ] {
            assert_eq!(ask(path, body, header).await, (status, words.to_owned()), "{path} {body} {header:?}");
        }
    });
}

#[test]
fn who_is_let_in_is_for_flags_to_say() {
    let names = |name: &str| Names::new([name.to_owned()]);
    let access = Access { origins: names("http://page"), hosts: names("good") };
    with_settings(access, false, async |client, _peer, _stop| {
        let ask = async |request: &str, host: &str, origin: &str| {
            let (status, head, body) =
                ask_with(client, request, &[("Host", host), ("Origin", origin)], "").await;
            let allowed = "access-control-allow-origin: ";
            let allowed = head.lines().find_map(|line| line.strip_prefix(allowed)).map(str::to_owned);
            (status, allowed, body)
        };
        let page = Some("http://page".to_owned());
        for path in ["GET /health", "GET /version", "OPTIONS /v3/kv/range"] {
            let (status, allowed, _) = ask(path, "good:2379", "http://page").await;
            assert_eq!((status, allowed), (200, page.clone()), "{path}");
            let (status, allowed, _) = ask(path, "good", "http://other").await;
            assert_eq!((status, allowed), (200, None), "{path}");
            let (status, allowed, body) = ask(path, "bad:2379", "http://page").await;
            assert_eq!((status, allowed), (421, None), "{path}");
            assert!(body.contains("--host-whitelist \"bad\""), "{body}");
        }
        // Without the gateway there is nothing below its paths.
        let (status, _, body) = ask("POST /v3/kv/range", "good", "http://page").await;
        assert_eq!((status, body.as_str()), (404, "404 page not found\n"));
    });
}

#[test]
fn a_process_tells_of_itself() {
    with_ports(async |client, _peer, _stop| {
        let (status, text) = ask(client, "GET /debug/vars", "").await;
        let vars: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &vars["raft.status"]["raftState"]), (200, &json!("StateLeader")), "{text}");
        assert_eq!(vars["raft.status"]["id"], vars["raft.status"]["lead"]);
        assert!(vars["file_descriptor_limit"].as_u64().unwrap() > 0);
        assert!(!vars["cmdline"].as_array().unwrap().is_empty());
    });
}

/// Every path of etcd's is there: of the client port, of the gateway, and of the peer port.
#[test]
fn no_path_of_etcds_is_missing() {
    with_ports(async |client, peer, _stop| {
        let mut asked = 0;
        for row in include_str!("data/http.tsv").lines().skip(1) {
            let [port, method, path, _notes] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let address = if port == "peer" { peer } else { client };
            match (method, path) {
                // Below `/v3/` are the paths of the other list; gRPC is no path.
                ("any", _) | (_, "/v3/...") => continue,
                // Raft's own: `peer` has tests for them.
                (_, path) if path.starts_with("/raft") => continue,
                _ => {}
            }
            // The list says POST of this one, but etcd takes nothing but GET.
            let method = if path == "/members/hashkv" { "GET" } else { method };
            let (status, body) = ask(address, &format!("{method} {}", path.replace("{id}", "1")), "").await;
            assert!(!body.contains("404 page not found"), "{method} {path}: {status} {body}");
            assert_ne!(status, 405, "{method} {path}");
            asked += 1;
        }
        assert!(asked > 10, "{asked}");
        let mut paths = 0;
        for row in include_str!("../../api/tests/data/rpcs.tsv").lines().skip(1) {
            let paths_of = row.split('\t').nth(5).unwrap_or_default();
            for path in paths_of.split(", ").filter_map(|path| path.strip_prefix("POST ")) {
                // A value that no message is: every path that is there refuses it, and nothing is done.
                let (status, body) = ask(client, &format!("POST {path}"), "[]").await;
                assert_eq!(status, 400, "{path}: {body}");
                paths += 1;
            }
        }
        assert_eq!(paths, 51);
    });
}
