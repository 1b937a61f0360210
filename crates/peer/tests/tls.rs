//! Peers that prove who they are, and some that cannot.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use authority::{Authority, Subject};
use common::{Member, append, heartbeat, until};
use peer::client::{self, ClientError};
use tls::{Client, Door, Listener, Server};

/// What a member shows that comes from 127.0.0.1, issued by this authority; it believes that of `trusted`.
fn settings(dir: &Path, issuer: &Authority, trusted: &Authority) -> tls::Settings {
    let pair = issuer.issue(Subject { names: &["127.0.0.1"], common_name: "member", serial: 0 });
    let (cert, key) = pair.write(dir, "member");
    tls::Settings {
        cert_file: Some(cert),
        key_file: Some(key),
        trusted_ca_file: Some(trusted.write(&dir.join("ca.crt"))),
        client_cert_auth: true,
        check_addresses: true,
        ..tls::Settings::default()
    }
}

/// A member, and what it shows to others.
fn start(id: u64, dir: &Path, settings: &tls::Settings) -> (Member, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let door = Door::tls(Server::new(settings.clone(), &["http/1.1"]).unwrap());
    let client = Client::new(settings.clone()).unwrap();
    let listener = Listener::tcp(listener, door);
    (start_behind(id, dir, url, listener, &client), client)
}

fn start_behind(id: u64, dir: &Path, url: String, listener: Listener, client: &Client) -> Member {
    let member = Member::start_behind(id, url, listener, |settings| settings.tls = client.clone());
    // The snapshots' directory is the member's own; certificates stay where they are.
    assert_ne!(member.dir.path(), dir);
    member
}

fn know_each_other(one: &Member, two: &Member) {
    one.knows(two);
    two.knows(one);
}

#[test]
fn members_of_one_authority_hear_each_other_and_strangers_hear_nothing() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("ours"));
    let (one, client) = start(1, dirs[0].path(), &settings(dirs[0].path(), &ours, &ours));
    let (two, _) = start(2, dirs[1].path(), &settings(dirs[1].path(), &ours, &ours));
    know_each_other(&one, &two);
    one.hears(&two);
    two.hears(&one);
    one.peers.send(vec![append(1, 2, 1, 0, 3, &[7; 100_000]), heartbeat(1, 2, 5)]);
    let seen = two.record.once("both messages", |seen| seen.messages.len() == 2);
    assert_eq!(seen.messages.len(), 2);

    // A stranger is refused when it calls, and is not believed when it is called.
    let stranger = settings(dirs[2].path(), &theirs, &ours);
    let (three, foreign) = start(3, dirs[2].path(), &stranger);
    know_each_other(&one, &three);
    one.peers.send(vec![heartbeat(1, 3, 1)]);
    one.record.wait("that it cannot be reached", |seen| seen.unreachable.contains(&3));
    three.peers.send(vec![heartbeat(3, 1, 1)]);
    three.record.wait("that nobody can be reached", |seen| seen.unreachable.contains(&1));
    assert_eq!((one.peers.active_since(3), three.peers.active_since(1)), (None, None));
    assert!(one.peers.active_since(2).is_some(), "the others are not harmed");

    // Small questions go the same way.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let long = Duration::from_secs(20);
        let probing = client::get(&client, &two.url, "/raft/probing", long).await.unwrap();
        assert_eq!(probing.status(), 200);
        for tls in [foreign, Client::default()] {
            let refused = client::get(&tls, &two.url, "/raft/probing", long).await;
            assert!(matches!(refused, Err(ClientError::Io(_))), "{refused:?}");
        }
        let plain = two.url.replace("https", "http");
        let refused = client::get(&client, &plain, "/raft/probing", long).await;
        assert!(refused.is_err(), "{refused:?}");
    });
}

#[test]
fn peers_meet_at_sockets_of_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let settings = settings(dir.path(), &ours, &ours);
    let unproved = tls::Settings { cert_file: None, key_file: None, ..tls::Settings::default() };
    let at = |name: &str| dir.path().join(name).display().to_string();
    let plain = Listener::unix(Path::new(&at("one")), Door::plain()).unwrap();
    // No name of its certificate is one of the file system.
    let pair = ours.issue(Subject { names: &["localhost"], ..Subject::default() });
    let (cert, key) = pair.write(dir.path(), "local");
    let settings = tls::Settings { cert_file: Some(cert), key_file: Some(key), ..settings };
    let door = Door::tls(Server::new(settings.clone(), &["http/1.1"]).unwrap());
    let secured = Listener::unix(Path::new(&at("two")), door).unwrap();
    let client = Client::new(settings).unwrap();
    let one = start_behind(1, dir.path(), format!("unix://{}", at("one")), plain, &client);
    let two = start_behind(
        2,
        dir.path(),
        format!("unixs://{}", at("two")),
        secured,
        &Client::new(unproved).unwrap(),
    );
    know_each_other(&one, &two);
    two.hears(&one);
    until("a stream to the one who shows itself", || one.peers.active_since(2).is_some());
    two.peers.send(vec![heartbeat(2, 1, 1)]);
    one.record.wait("a heartbeat", |seen| !seen.messages.is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for url in [&one.url, &two.url] {
            let long = Duration::from_secs(20);
            let probing = client::get(&client, url, "/raft/probing", long).await.unwrap();
            assert_eq!(probing.status(), 200);
        }
    });
}
