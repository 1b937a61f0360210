//! Flags, the environment and the configuration file, as a running server follows them.

use anyhow::Result;
use etcd_client::{Client, Txn, TxnOp};
use tests::Server;

use crate::support::refusal;

async fn operations(client: &mut Client, count: usize) -> Result<(), etcd_client::Error> {
    let puts: Vec<TxnOp> = (0..count).map(|number| TxnOp::put(format!("k{number}"), "v", None)).collect();
    client.txn(Txn::new().and_then(puts)).await.map(|_| ())
}

/// Whether transactions of `most` operations pass, and of one more do not.
async fn admits(server: &Server, most: usize) -> Result<()> {
    let mut client = server.client().await?;
    operations(&mut client, most).await?;
    let refused = refusal(operations(&mut client, most + 1).await);
    assert_eq!(refused, (3, "etcdserver: too many operations in txn request".to_owned()));
    Ok(())
}

#[tokio::test]
async fn limits_of_operations_and_bytes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["-max-txn-ops=3", "--max-request-bytes", "2000"])?;
    admits(&server, 3).await?;
    let mut client = server.client().await?;
    client.put("k", vec![b'v'; 1_900], None).await?;
    let refused = refusal(client.put("k", vec![b'v'; 2_000], None).await);
    assert_eq!(refused, (3, "etcdserver: request is too large".to_owned()));
    Ok(())
}

#[tokio::test]
async fn the_defaults_are_etcds() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    admits(&server, 128).await?;
    let mut client = server.client().await?;
    client.put("k", vec![b'v'; 1_572_000], None).await?;
    assert_eq!(refusal(client.put("k", vec![b'v'; 1_572_864], None).await).0, 3);
    let status = client.status().await?;
    assert_eq!(status.db_size_quota(), 2 << 30);
    assert_eq!(status.version(), "3.7.1");
    Ok(())
}

#[tokio::test]
async fn the_last_of_repeated_flags_counts() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server =
        Server::start(directory.path(), &["--max-txn-ops=9", "--max-txn-ops", "2", "-max-txn-ops=4"])?;
    admits(&server, 4).await
}

#[tokio::test]
async fn without_syncs_a_kill_loses_nothing_that_the_system_holds() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &["--unsafe-no-fsync"])?;
    let mut client = server.client().await?;
    let revision = client.put("k", "v", None).await?.header().unwrap().revision();
    let server = server.kill()?.start()?;
    let found = server.client().await?.get("k", None).await?;
    assert_eq!(found.kvs()[0].mod_revision(), revision);
    Ok(())
}

#[tokio::test]
async fn a_configuration_file_is_enough() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let file = directory.path().join("cairn.yml");
    let server = Server::start_configured(&data, |client, peer| {
        let text = format!(
            "name: filed\ndata-dir: {}\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n\
             listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: filed={peer}\n\
             max-txn-ops: 6\nunsafe-no-fsync: true\n",
            data.display()
        );
        std::fs::write(&file, text).unwrap();
        (vec!["--config-file".to_owned(), file.display().to_string()], Vec::new())
    })?;
    admits(&server, 6).await?;
    assert_eq!(server.client().await?.member_list().await?.members()[0].name(), "filed");
    assert!(data.join("member").is_dir());
    Ok(())
}

#[tokio::test]
async fn the_environment_and_flags_say_it_together() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let server = Server::start_configured(&data, |client, peer| {
        let set = |name: &str, value: &str| (format!("ETCD_{name}"), value.to_owned());
        let environment = vec![
            set("NAME", "surrounded"),
            set("DATA_DIR", &data.display().to_string()),
            set("LISTEN_CLIENT_URLS", client),
            set("ADVERTISE_CLIENT_URLS", client),
            set("LISTEN_PEER_URLS", peer),
            set("INITIAL_ADVERTISE_PEER_URLS", peer),
            set("INITIAL_CLUSTER", &format!("surrounded={peer}")),
            set("MAX_TXN_OPS", "5"),
        ];
        (vec!["--quota-backend-bytes=33554432".to_owned()], environment)
    })?;
    admits(&server, 5).await?;
    let mut client = server.client().await?;
    assert_eq!(client.status().await?.db_size_quota(), 32 << 20);
    assert_eq!(client.member_list().await?.members()[0].name(), "surrounded");
    Ok(())
}

#[test]
fn both_saying_it_is_refused_as_etcd_does() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let refused = Server::start_configured(&directory.path().join("data"), |_, _| {
        (vec!["--max-txn-ops=5".to_owned()], vec![("ETCD_MAX_TXN_OPS".to_owned(), "7".to_owned())])
    });
    let words = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(words.contains("conflicting environment variable is shadowed"), "{words}");
    Ok(())
}
