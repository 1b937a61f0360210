//! What a cluster says to changes of its members and its leader, and what members say that have no
//! leader or no vote. Codes and texts are etcd's; clients go by them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use etcd_client::{
    Client, ConnectOptions, GetOptions, LeaseGrantOptions, MemberAddOptions, WatchOptions, WatchResponse,
};
use tests::support::{get, refusal, request};
use tests::{Cluster, Plan, System, until};

/// gRPC's codes.
const UNKNOWN: i32 = 2;
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const FAILED_PRECONDITION: i32 = 9;
const UNAVAILABLE: i32 = 14;

/// Nobody is ever there.
const NOWHERE: &str = "http://127.0.0.1:1";
const NOWHERE_ELSE: &str = "http://127.0.0.1:2";

/// Nobody's id.
const NOBODY: u64 = 0x1234;

fn learner() -> Option<MemberAddOptions> {
    Some(MemberAddOptions::new().with_is_learner())
}

fn port(url: &str) -> Result<u16> {
    Ok(url.rsplit(':').next().context("a port")?.parse()?)
}

fn told(code: i32, text: &str) -> (i32, String) {
    (code, format!("etcdserver: {text}"))
}

/// Waits until the members have been connected for as long as they must be for a change.
async fn settle(client: &mut Client) -> Result<()> {
    // A learner is added and removed: it is refused for as long as there is anything to wait for.
    let added =
        until("the cluster takes a change", async || client.member_add([NOWHERE_ELSE], learner()).await.ok());
    let id = added.await?.member().context("a learner was added")?.id();
    client.member_remove(id).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_refused_in_etcds_words_wherever_they_are_asked_for() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).calm()).await?;
    let leader = cluster.leader().await?;
    settle(&mut cluster.client(&[leader]).await?).await?;
    for (number, through) in [leader, cluster.others(leader)[0]].into_iter().enumerate() {
        // Ids are made of URLs and seconds: a URL that was removed in this second is no good.
        let [nowhere, elsewhere] = [3, 4].map(|port| format!("http://127.0.0.1:{}", port + 2 * number));
        let mut client = cluster.client(&[through]).await?;
        let (own, other) = (cluster.id(through), cluster.id(cluster.others(through)[0]));
        let taken = cluster.advertised_peer(cluster.others(through)[0]);

        for url in ["", "nowhere", "http://127.0.0.1", "http://127.0.0.1:1/path"] {
            let refused = refusal(client.member_add([url], None).await);
            assert_eq!(refused, told(INVALID_ARGUMENT, "given member URLs are invalid"), "{url}");
        }
        let no_urls: [&str; 0] = [];
        let refused = refusal(client.member_add(no_urls, None).await);
        assert_eq!(refused, told(INVALID_ARGUMENT, "given member URLs are invalid"));
        let refused = refusal(client.member_add([taken.as_str()], None).await);
        assert_eq!(refused, told(FAILED_PRECONDITION, "Peer URLs already exists"));
        let refused = refusal(client.member_update(own, [taken.clone()]).await);
        assert_eq!(refused, told(FAILED_PRECONDITION, "Peer URLs already exists"));

        let unknown = told(NOT_FOUND, "member not found");
        assert_eq!(refusal(client.member_remove(NOBODY).await), unknown);
        assert_eq!(refusal(client.member_update(NOBODY, [NOWHERE.to_owned()]).await), unknown);
        assert_eq!(refusal(client.member_promote(NOBODY).await), unknown);
        for voter in [own, other] {
            let refused = refusal(client.member_promote(voter).await);
            assert_eq!(refused, told(FAILED_PRECONDITION, "can only promote a learner member"));
        }

        let added = client.member_add([nowhere.as_str()], learner()).await?;
        let learning = added.member().context("a learner was added")?;
        assert!(learning.is_learner() && learning.name().is_empty());
        assert_eq!(learning.peer_urls(), [nowhere.as_str()]);
        assert_eq!(added.member_list().len(), 4);
        let header = added.header().context("a header")?;
        assert_eq!((header.member_id(), header.revision()), (own, 0));

        let refused = refusal(client.member_add([elsewhere.as_str()], learner()).await);
        assert_eq!(refused, told(FAILED_PRECONDITION, "too many learner members in cluster"));
        let refused = refusal(client.member_promote(learning.id()).await);
        let text = "can only promote a learner member which is in sync with leader";
        assert_eq!(refused, told(FAILED_PRECONDITION, text));

        let removed = client.member_remove(learning.id()).await?;
        assert_eq!(removed.members().len(), 3);
        if System::under_test() == System::Cairn {
            // Who was removed never comes back, and is nobody any more. (etcd 3.5.1 may lose a change
            // that is asked for as soon as another one is answered.)
            assert_eq!(refusal(client.member_remove(learning.id()).await), unknown);
            assert_eq!(refusal(client.member_promote(learning.id()).await), unknown);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_member_stays() -> Result<()> {
    let cluster = Cluster::start(Plan::of(1)).await?;
    let mut client = cluster.client(&[0]).await?;
    let refused = refusal(client.member_remove(cluster.id(0)).await);
    let code = match System::under_test() {
        System::Cairn => FAILED_PRECONDITION,
        // The code of its error table gets lost on the way to the wire.
        System::Etcd => UNKNOWN,
    };
    let text = "re-configuration failed due to not enough started members";
    assert_eq!(refused, told(code, text));
    client.put("still", "here", None).await?;
    Ok(())
}

/// With one of three gone, nothing may change that would leave a quorum to chance, but the one that is
/// gone may leave (E3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_cost_the_quorum_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let leader = cluster.leader().await?;
    settle(&mut cluster.client(&[leader]).await?).await?;
    let [gone, stays] = cluster.others(leader)[..] else { panic!("two others") };
    cluster.kill(gone)?;
    let mut client = cluster.client(&[leader]).await?;
    // Until the leader has noticed, the change would be taken.
    until("the leader misses the member", async || {
        cluster.log(leader).contains("peer became inactive").then_some(())
    })
    .await?;
    let unhealthy = told(UNAVAILABLE, "unhealthy cluster");
    until("the change is refused", async || match client.member_remove(cluster.id(stays)).await {
        Err(etcd_client::Error::GRpcStatus(status)) if status.message() == unhealthy.1 => Some(()),
        Err(_) => None,
        Ok(_) => panic!("two of three would be one of two"),
    })
    .await?;
    assert_eq!(refusal(client.member_add([NOWHERE], None).await), unhealthy);
    let left = client.member_remove(cluster.id(gone)).await?;
    assert_eq!(left.members().len(), 2);
    client.put("still", "here", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_can_be_switched_off() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).flags(&["--strict-reconfig-check=false"])).await?;
    let leader = cluster.leader().await?;
    // At once, before anybody counts as healthy.
    let mut client = cluster.client(&[leader]).await?;
    let added = client.member_add([NOWHERE], None).await?;
    client.member_remove(added.member().context("a member was added")?.id()).await?;
    client.put("still", "here", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_learners_where_the_flag_allows_them() -> Result<()> {
    if System::under_test() == System::Etcd {
        // 3.5.1 has no such flag.
        return Ok(());
    }
    let mut cluster = Cluster::start(Plan::of(1)).await?;
    let single = cluster.client(&[0]).await?.member_add([NOWHERE], learner()).await?;
    assert_eq!(single.member_list().len(), 2);
    cluster.terminate(0).await?;
    cluster.flags_mut().push("--max-learners=2".to_owned());
    cluster.start_member(0)?;
    cluster.ready().await?;
    let mut client = cluster.client(&[0]).await?;
    client.member_add([NOWHERE_ELSE], learner()).await?;
    let refused = refusal(client.member_add(["http://127.0.0.1:3"], learner()).await);
    assert_eq!(refused, told(FAILED_PRECONDITION, "too many learner members in cluster"));
    Ok(())
}

/// A member moves to another address: its peers are told, and find it there when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_found_at_its_new_address() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let leader = cluster.leader().await?;
    let moving = cluster.others(leader)[0];
    let mut client = cluster.client(&[leader]).await?;
    // Another name for the same place.
    let renamed = cluster.advertised_peer(moving).replace("127.0.0.1", "localhost");
    let updated = client.member_update(cluster.id(moving), [renamed.clone()]).await?;
    let listed = updated.members().iter().find(|member| member.id() == cluster.id(moving));
    let listed = listed.context("the member is listed")?;
    assert_eq!(listed.peer_urls(), [renamed.as_str()]);
    assert!(!listed.name().is_empty() && !listed.client_urls().is_empty(), "only the URLs change");
    cluster.terminate(moving).await?;
    cluster.restart(moving).await?;
    let third = cluster.others(leader).into_iter().find(|place| *place != moving).context("a third")?;
    cluster.kill(third)?;
    // Only the moved one can make up the quorum.
    client.put("still", "here", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_where_it_is_told_to() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).calm()).await?;
    let leader = cluster.leader().await?;
    let others = cluster.others(leader);
    let mut client = cluster.client(&[leader]).await?;
    settle(&mut client).await?;
    let mut follower = cluster.client(&[others[0]]).await?;
    let refused = refusal(follower.move_leader(cluster.id(others[1])).await);
    assert_eq!(refused, told(FAILED_PRECONDITION, "not leader"));
    let bad = told(FAILED_PRECONDITION, "bad leader transferee");
    assert_eq!(refusal(client.move_leader(NOBODY).await), bad);
    let learning = client.member_add([NOWHERE], learner()).await?.member().context("a learner")?.id();
    assert_eq!(refusal(client.move_leader(learning).await), bad);
    client.member_remove(learning).await?;
    // To itself: it is there already.
    client.move_leader(cluster.id(leader)).await?;
    let (_, before) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    for to in [others[0], others[1], leader] {
        let from = cluster.leader().await?;
        cluster.client(&[from]).await?.move_leader(cluster.id(to)).await?;
        assert_eq!(cluster.leader().await?, to);
    }
    let (_, after) = cluster.leader_and_term_of(&[0, 1, 2]).await?;
    assert_eq!(after, before + 3, "a term for each move, and none for an election");
    Ok(())
}

/// A member that has lost its leader says so to those who want to know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_leader_streams_that_want_one_end_and_others_stay() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3)).await?;
    let alone = cluster.leader().await?;
    let endpoint = cluster.endpoint(alone);
    let options = ConnectOptions::new().with_timeout(Duration::from_secs(60));
    let mut patient = Client::connect([&endpoint], Some(options.clone())).await?;
    let mut demanding = Client::connect([&endpoint], Some(options.with_require_leader(true))).await?;
    patient.put("k", "1", None).await?;
    let mut stays = patient.watch("k", None).await?;
    let mut ends = demanding.watch("k", None).await?;
    let lease = patient.lease_grant(600, Some(LeaseGrantOptions::new())).await?.id();
    let (mut keeper, mut kept) = demanding.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    let renewed = kept.message().await?.context("a renewal")?;
    assert_eq!((renewed.id(), renewed.ttl()), (lease, 600));

    for other in cluster.others(alone) {
        cluster.kill(other)?;
    }
    let no_leader = told(UNAVAILABLE, "no leader");
    let last = loop {
        match ends.message().await {
            Ok(Some(response)) if response.events().is_empty() && !response.canceled() => {}
            Ok(Some(response)) => panic!("{response:?}"),
            other => break other.map(|_: Option<WatchResponse>| ()),
        }
    };
    assert_eq!(refusal(last), no_leader);
    assert_eq!(refusal(kept.message().await), no_leader);
    assert_eq!(refusal(demanding.get("k", Some(GetOptions::new().with_serializable())).await), no_leader);
    assert_eq!(refusal(demanding.watch("k", Some(WatchOptions::new())).await), no_leader);
    // Who does not ask for a leader is served what there is.
    let found = patient.get("k", Some(GetOptions::new().with_serializable())).await?;
    assert_eq!(found.kvs().len(), 1);
    let status = patient.status().await?;
    assert_eq!((status.leader(), status.errors()), (0, &["etcdserver: no leader".to_owned()][..]));

    let port = port(&endpoint)?;
    let health = get(port, "/health")?;
    let body = r#"{"health":"false","reason":"RAFT NO LEADER"}"#;
    assert_eq!((health.status, health.body.trim_end()), (503, body));
    if System::under_test() == System::Cairn {
        // 3.5.1 has none of these.
        assert_eq!(get(port, "/health?serializable=true")?.status, 200);
        let live = get(port, "/livez")?;
        assert_eq!((live.status, live.body.as_str()), (200, "ok\n"));
        assert_eq!(get(port, "/readyz/non_learner?verbose")?.body, "[+]non_learner ok\nok\n");
    }

    let others = cluster.others(alone);
    cluster.start_member(others[0])?;
    cluster.ready().await?;
    patient.put("k", "2", None).await?;
    // A stream that did not ask for a leader goes on.
    while stays.message().await?.context("an event")?.events().is_empty() {}
    assert_eq!(get(port, "/health")?.status, 200);
    Ok(())
}

/// A learner answers what it knows, and leaves the rest to those who vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_refuses_what_only_voters_answer() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(1)).await?;
    let mut voter = cluster.client(&[0]).await?;
    voter.put("k", "1", None).await?;
    let place = cluster.add(System::under_test(), true).await?;
    cluster.start_member(place)?;
    cluster.ready().await?;
    let mut client = cluster.client(&[place]).await?;
    let code = match System::under_test() {
        System::Cairn => FAILED_PRECONDITION,
        // It was another one before 3.6.
        System::Etcd => UNAVAILABLE,
    };
    let refused = told(code, "rpc not supported for learner");
    until("the learner has the key", async || {
        let found = client.get("k", Some(GetOptions::new().with_serializable())).await.ok()?;
        (found.kvs().len() == 1).then_some(())
    })
    .await?;
    assert!(client.status().await?.is_learner());
    assert_eq!(refusal(client.get("k", None).await), refused);
    assert_eq!(refusal(client.put("k", "2", None).await), refused);
    assert_eq!(refusal(client.delete("k", None).await), refused);
    assert_eq!(refusal(client.lease_grant(60, None).await), refused);
    assert_eq!(refusal(client.member_list().await), refused);
    assert_eq!(refusal(client.member_remove(cluster.id(0)).await), refused);
    assert_eq!(refusal(client.hash_kv(0).await), refused);
    assert_eq!(
        refusal(client.alarm(etcd_client::AlarmAction::Get, etcd_client::AlarmType::None, None).await),
        refused
    );
    assert_eq!(refusal(client.watch("k", None).await), refused);
    assert_eq!(refusal(client.lease_keep_alive(7).await), refused);
    // It can be asked whether it is well, and it is.
    let port = port(&cluster.endpoint(place))?;
    assert_eq!(get(port, "/health")?.status, 200);
    if System::under_test() == System::Cairn {
        let ready = get(port, "/readyz?exclude=linearizable_read")?;
        assert_eq!(ready.status, 503);
        assert!(ready.body.contains("[-]non_learner failed: not supported for learner\n"), "{}", ready.body);
    }
    Ok(())
}

/// The paths by which members ask each other, as etcd's members would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_answer_members_over_http() -> Result<()> {
    let mut cluster = Cluster::start(Plan::of(3).calm()).await?;
    let leader = cluster.leader().await?;
    let follower = cluster.others(leader)[0];
    let (leads, follows) = (port(&cluster.peer_endpoint(leader))?, port(&cluster.peer_endpoint(follower))?);

    let members = get(follows, "/members")?;
    let id = cluster.client(&[leader]).await?.status().await?.header().context("a header")?.cluster_id();
    assert_eq!(members.header("x-etcd-cluster-id"), Some(format!("{id:x}").as_str()));
    assert!(members.body.ends_with("]\n") && members.body.matches("\"peerURLs\":").count() == 3);

    let cases = [
        ("POST", "/members", 405, "Method Not Allowed\n"),
        ("GET", "/members/", 404, "404 page not found\n"),
        ("GET", "/members/promote/5", 405, "Method Not Allowed\n"),
        ("POST", "/members/promote/five", 404, "member five not found in cluster\n"),
        ("POST", "/members/promote/5", 404, "membership: ID not found\n"),
        ("GET", "/leases", 405, "Method Not Allowed\n"),
        ("POST", "/leases", 404, "lease not found\n"),
        ("GET", "/downgrade/enabled", 200, "false"),
        ("POST", "/downgrade/enabled", 405, "Method Not Allowed\n"),
        ("POST", "/members/hashkv", 405, "Method Not Allowed\n"),
        ("GET", "/members/hashkv", 400, "error unmarshalling request\n"),
        ("GET", "/nowhere", 404, "404 page not found\n"),
    ];
    for (method, path, status, body) in cases {
        let answer = request(leads, method, path)?;
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{method} {path}");
    }
    let answer = request(follows, "POST", "/leases")?;
    assert_eq!((answer.status, answer.body.as_str()), (400, "not a primary lessor\n"));
    let voter = format!("/members/promote/{}", cluster.id(leader));
    for port in [leads, follows] {
        let answer = request(port, "POST", &voter)?;
        let words = "membership: can only promote a learner member\n";
        assert_eq!((answer.status, answer.body.as_str()), (412, words));
    }
    Ok(())
}
