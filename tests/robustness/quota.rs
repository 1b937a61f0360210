//! A full quota: what is refused, what still passes, how it is told, and the way back.

use anyhow::Result;
use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions, DeleteOptions, LeaseGrantOptions, Txn,
    TxnOp,
};
use tests::{Server, until};

use crate::support::{get, refusal};

const NO_SPACE: (i32, &str) = (8, "etcdserver: mvcc: database space exceeded");

/// The alarms that are on: which member raised one of which kind.
async fn alarms(client: &mut Client) -> Result<Vec<(u64, AlarmType)>> {
    let listed = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    Ok(listed.alarms().iter().map(|alarm| (alarm.member_id(), alarm.alarm())).collect())
}

/// Every member raises the alarm of its own file: there may be one of each, and is one at least.
async fn no_space_alarms(client: &mut Client) -> Result<Vec<u64>> {
    let alarms = alarms(client).await?;
    assert!(!alarms.is_empty());
    assert!(alarms.iter().all(|(_, kind)| *kind == AlarmType::Nospace), "{alarms:?}");
    Ok(alarms.into_iter().map(|(member, _)| member).collect())
}

/// Waits until no member's file holds more than `bytes` that are in use: a compaction goes on after its
/// answer on all members but the one that was asked.
async fn every_member_has_made_space(client: &mut Client, bytes: i64) -> Result<()> {
    for member in client.member_list().await?.members() {
        let mut of_member = Client::connect(member.client_urls(), None).await?;
        until("a member makes space", async || {
            let used = of_member.status().await.ok()?.raft_used_db_size();
            (used < bytes).then_some(())
        })
        .await?;
    }
    Ok(())
}

async fn refuses_writes_and_says_so(server: &Server, client: &mut Client) -> Result<()> {
    let told = |(code, text): (i32, String)| assert_eq!((code, text.as_str()), NO_SPACE);
    told(refusal(client.put("small", "v", None).await));
    told(refusal(client.txn(Txn::new().and_then([TxnOp::put("small", "v", None)])).await));
    told(refusal(client.lease_grant(100, Some(LeaseGrantOptions::new().with_id(9))).await));
    no_space_alarms(client).await?;
    let status = client.status().await?;
    assert!(status.errors().iter().any(|error| error.contains("NOSPACE")), "{:?}", status.errors());
    let health = get(server.client_port(), "/health")?;
    assert_eq!(
        (health.status, health.body.as_str()),
        (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n")
    );
    assert_eq!(get(server.client_port(), "/health?exclude=NOSPACE")?.status, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_space_until_it_is_made_and_the_alarm_is_disarmed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let quota = (16 << 20).to_string();
    let server = Server::start(directory.path(), &["--unsafe-no-fsync", "--quota-backend-bytes", &quota])?;
    let mut client = server.client().await?;
    assert_eq!(client.status().await?.db_size_quota(), 16 << 20);
    client.put("small", "first", None).await?;
    let mut written = 0;
    let refused = loop {
        match client.put(format!("big{written}"), vec![b'x'; 900_000], None).await {
            Ok(_) => written += 1,
            refused => break refusal(refused),
        }
        assert!(written <= 20, "18 MB went into a quota of 16 MiB");
    };
    assert_eq!((refused.0, refused.1.as_str()), NO_SPACE);
    assert!(written >= 10, "refused after {written} values of 900 kB in a quota of 16 MiB");
    refuses_writes_and_says_so(&server, &mut client).await?;

    // A restart knows of it too.
    drop(client);
    let server = server.kill()?.start()?;
    let mut client = server.client().await?;
    refuses_writes_and_says_so(&server, &mut client).await?;

    // What makes space passes, and so does what takes none.
    assert_eq!(client.get("small", None).await?.kvs()[0].value(), b"first");
    client.txn(Txn::new().and_then([TxnOp::get("small", None), TxnOp::delete("big0", None)])).await?;
    let gone = client.delete("big", Some(DeleteOptions::new().with_prefix())).await?;
    assert_eq!(gone.deleted(), written - 1);
    let revision = gone.header().unwrap().revision();
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await?;
    client.defragment().await?;
    let status = client.status().await?;
    assert!(status.db_size() < 8 << 20, "the file still takes {} bytes", status.db_size());
    assert_eq!(refusal(client.put("small", "v", None).await).1, NO_SPACE.1, "the alarm is still on");

    every_member_has_made_space(&mut client, 8 << 20).await?;
    for member in no_space_alarms(&mut client).await? {
        let mut of_member = AlarmOptions::new();
        of_member.with_member(member);
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of_member)).await?;
    }
    assert!(alarms(&mut client).await?.is_empty());
    client.put("small", "second", None).await?;
    client.lease_grant(100, None).await?;
    assert_eq!(get(server.client_port(), "/health")?.status, 200);
    assert!(client.status().await?.errors().is_empty());
    Ok(())
}
