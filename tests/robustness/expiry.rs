//! Leases across time and restarts.

use anyhow::Result;
use etcd_client::{GetOptions, LeaseGrantOptions, PutOptions, WatchOptions};
use tests::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_expired_lease_go_in_one_revision_in_key_order() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = server.client().await?;
    let lease = client.lease_grant(1, None).await?.id();
    for key in ["c", "a", "b"] {
        client.put(key, "v", Some(PutOptions::new().with_lease(lease))).await?;
    }
    let mut watch = client.watch("a", Some(WatchOptions::new().with_range("d"))).await?;
    let deleted = loop {
        let message = watch.message().await?.expect("the watch goes on");
        if !message.events().is_empty() {
            break message;
        }
    };
    let keys: Vec<&str> =
        deleted.events().iter().map(|event| event.kv().unwrap().key_str().unwrap()).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    let revisions: Vec<i64> =
        deleted.events().iter().map(|event| event.kv().unwrap().mod_revision()).collect();
    assert!(revisions.iter().all(|revision| *revision == revisions[0]), "{revisions:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_leases_and_never_shows_more_time_than_was_granted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = server.client().await?;
    let lease = client.lease_grant(300, Some(LeaseGrantOptions::new().with_id(77))).await?.id();
    client.put("kept", "v", Some(PutOptions::new().with_lease(lease))).await?;
    let server = server.kill()?.start()?;
    let mut client = server.client().await?;
    let left = client
        .lease_time_to_live(lease, Some(etcd_client::LeaseTimeToLiveOptions::new().with_keys()))
        .await?;
    assert_eq!(left.granted_ttl(), 300);
    assert!((290..=301).contains(&left.ttl()), "{} s left", left.ttl());
    assert_eq!(left.keys(), [b"kept".to_vec()]);
    client.lease_revoke(lease).await?;
    assert!(client.get("kept", Some(GetOptions::new().with_count_only())).await?.count() == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_survives_a_restart_still_runs_out_with_the_keys_it_has_by_then() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Server::start(directory.path(), &[])?;
    let mut client = server.client().await?;
    let short = client.lease_grant(2, None).await?.id();
    let long = client.lease_grant(300, None).await?.id();
    let on = |lease| Some(PutOptions::new().with_lease(lease));
    for (key, lease) in [("a", short), ("b", long), ("c", short), ("d", short)] {
        client.put(key, "v", on(lease)).await?;
    }
    // `b` moves to the short lease, `c` to the long one, and `d` to none.
    client.put("b", "v", on(short)).await?;
    client.put("c", "v", on(long)).await?;
    let last = client.put("d", "v", None).await?.header().unwrap().revision();
    let server = server.kill()?.start()?;
    let mut client = server.client().await?;
    let from = WatchOptions::new().with_range("e").with_start_revision(last + 1);
    let mut watch = client.watch("a", Some(from)).await?;
    let deleted = loop {
        let message = watch.message().await?.expect("the watch goes on");
        if !message.events().is_empty() {
            break message;
        }
    };
    let keys: Vec<&str> =
        deleted.events().iter().map(|event| event.kv().unwrap().key_str().unwrap()).collect();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(client.leases().await?.leases().iter().map(|lease| lease.id()).collect::<Vec<_>>(), [long]);
    Ok(())
}
