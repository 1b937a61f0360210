//! The life of a member in this process: ports, threads, signals, end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use gateway::{Access, Gateway, Http2, Names, Settings};
use server::{Server, ThreadFailure};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

use crate::config::cluster::Bootstrap;
use crate::config::url;
use crate::config::{ClusterState, Config, Metrics};
use crate::doors::{self, Doors};
use crate::logging;
use crate::note::{Level, Note};
use crate::systemd;

/// How long an orderly end may take before the process ends all the same. What is acknowledged is
/// in the log already, so nothing but time would be lost.
const LAST_ORDERS: Duration = Duration::from_secs(10);

/// How long a member that was removed from its cluster stays: whoever asked for it is still answered, and
/// the others learn of it from this one if it led (etcd's number).
const REMOVED_STAY: Duration = Duration::from_secs(1);

/// Serves until a signal, a failure or the member's removal; the exit code tells whether it was a failure.
pub(crate) fn serve(config: &Config) -> ExitCode {
    match start(config) {
        Ok(started) => wait(started),
        Err(words) => {
            logging::note(&Note::new(Level::Fatal, "failed to start").text("error", &words));
            ExitCode::FAILURE
        }
    }
}

/// A member that serves, and what may end it.
struct Started {
    server: Server,
    failures: UnboundedReceiver<ThreadFailure>,
    /// Whether clients are let in.
    serving: watch::Receiver<bool>,
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
}

fn start(config: &Config) -> Result<Started, String> {
    // Ports first: one that is taken is the most common mistake, and the data directory need not be
    // touched to find it out.
    let Doors { listeners, peer, client_cert_auth } = Doors::open(config)?;
    let (report, failures) = unbounded_channel();
    let settings = server::Config { peer_tls: peer, client_cert_auth, ..member_config(config)? };
    let mut server = Server::start(settings, report).map_err(|error| error.to_string())?;
    let (interval, timeout) =
        config.grpc_keepalive.map_or((Duration::ZERO, Duration::from_secs(20)), |keep_alive| {
            (keep_alive.interval, keep_alive.timeout)
        });
    let http2 = Http2 {
        max_concurrent_streams: config.max_concurrent_streams,
        keepalive_min_time: config.grpc_keepalive_min_time,
        keepalive_interval: interval,
        keepalive_timeout: timeout,
    };
    let settings = Settings {
        http2,
        access: Access {
            origins: Names::new(config.cors.iter().cloned()),
            hosts: Names::new(config.host_whitelist.iter().cloned()),
        },
        json: config.enable_grpc_gateway,
    };
    let addresses = doors::told(config);
    let (serve, serving) = watch::channel(false);
    let gateway = Gateway::new(server.member().clone(), listeners, settings, move || {
        // Scripts and test suites wait for these very words.
        tracing::info!("ready to serve client requests");
        for (traffic, address, is_secure) in &addresses {
            if *is_secure {
                tracing::info!(traffic, address, "serving client traffic securely");
            } else {
                tracing::info!(
                    traffic,
                    address,
                    "serving client traffic insecurely; this is strongly discouraged!"
                );
            }
        }
        serve.send_replace(true);
    });
    // Before anybody is told that it serves: whoever was may send a signal at once.
    let unheard = |error| format!("cannot listen for signals: {error}");
    let runtime = Builder::new_current_thread().enable_all().build().map_err(unheard)?;
    let (interrupt, terminate) = {
        let _on = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(unheard)?, signal(SignalKind::terminate()).map_err(unheard)?)
    };
    server
        .serve(move |shard| gateway.clone().serve(shard))
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    Ok(Started { server, failures, serving, runtime, interrupt, terminate })
}

fn member_config(config: &Config) -> Result<server::Config, String> {
    let mut settings = server::Config {
        name: config.name.clone(),
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        peer_urls: url::strings(&config.advertise_peer_urls),
        client_urls: url::strings(&config.advertise_client_urls),
        // Put in below, where it matters.
        initial_cluster: BTreeMap::new(),
        cluster_state: match config.initial_cluster_state {
            ClusterState::New => server::ClusterState::New,
            ClusterState::Existing => server::ClusterState::Existing,
        },
        cluster_token: config.initial_cluster_token.clone(),
        force_new_cluster: config.force_new_cluster,
        initial_election_tick_advance: config.initial_election_tick_advance,
        strict_reconfig_check: config.strict_reconfig_check,
        raft_read_timeout: config.raft_read_timeout,
        raft_write_timeout: config.raft_write_timeout,
        bootstrap_timeout: Duration::from_secs(1),
        ready_timeout: Duration::from_secs(5),
        heartbeat: config.heartbeat_interval,
        election_timeout: config.election_timeout(),
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        quota_bytes: config.quota_backend_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        max_txn_ops: usize::try_from(config.max_txn_ops).unwrap_or(usize::MAX),
        max_request_bytes: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        compaction_batch: config.compaction_batch_limit,
        compaction_sleep: config.compaction_sleep_interval,
        auto_compaction: config.auto_compaction,
        corrupt_check: config.corrupt_check_time,
        initial_corrupt_check: config.initial_corrupt_check,
        compact_hash_check: config.compact_hash_check,
        compact_hash_check_time: config.compact_hash_check_time,
        downgrade_check: config.downgrade_check_time,
        progress_interval: config.watch_progress_notify_interval,
        warning_apply: config.warning_apply_duration,
        warning_request: config.warning_unary_request_duration,
        checkpoint_interval: server::Config::CHECKPOINT_INTERVAL,
        max_learners: usize::try_from(config.max_learners).unwrap_or(usize::MAX),
        auth_token: server::AuthToken::parse(&config.auth_token)?,
        auth_token_ttl: config.auth_token_ttl,
        bcrypt_cost: config.bcrypt_cost,
        // Put in where certificates are read.
        client_cert_auth: false,
        peer_tls: tls::Client::default(),
        extensive_metrics: config.metrics == Metrics::Extensive,
        pprof: config.enable_pprof,
        traces: config.traces.clone(),
        no_fsync: config.unsafe_no_fsync,
        not_serving_on_defrag: config.not_serving_on_defrag,
        features: config.features.clone(),
        shards: available_parallelism().map_or(1, usize::from).min(server::MAX_SHARDS),
    };
    if !settings.holds_member() {
        let Bootstrap { members } = config.bootstrap()?;
        let message = match config.initial_cluster_state {
            ClusterState::New => "beginning a new cluster",
            ClusterState::Existing => "joining an existing cluster",
        };
        settings.initial_cluster =
            members.iter().map(|(name, urls)| (name.clone(), url::strings(urls))).collect();
        if let Some(urls) = settings.initial_cluster.get(&config.name) {
            settings.peer_urls.clone_from(urls);
        }
        logging::note(
            &Note::new(Level::Info, message)
                .text("name", &config.name)
                .text("initial-cluster", &config.initial_cluster)
                .text("token", &config.initial_cluster_token),
        );
    }
    Ok(settings)
}

fn wait(started: Started) -> ExitCode {
    let Started { server, mut failures, mut serving, runtime, mut interrupt, mut terminate } = started;
    let removed = async {
        server.member().removed().await;
        tokio::time::sleep(REMOVED_STAY).await;
    };
    let ready = async {
        let _ = serving.wait_for(|serving| *serving).await;
        // Without a leader clients are let in after a while all the same; whoever starts services one after
        // the other waits for more than that.
        server.member().published().await;
        systemd::ready();
        std::future::pending::<Infallible>().await
    };
    let failure = runtime.block_on(async {
        let name = tokio::select! {
            failure = failures.recv() => return failure.map(|failure| failure.to_string()),
            () = removed => return None,
            never = ready => match never {},
            _ = interrupt.recv() => "interrupt",
            _ = terminate.recv() => "terminated",
        };
        tracing::info!(signal = name, "received signal; shutting down");
        None
    });
    if let Some(words) = failure {
        // Whatever is not acknowledged by now must never be: no orderly end.
        tracing::error!(error = words, "the member cannot go on");
        return ExitCode::FAILURE;
    }
    systemd::stopping();
    let data_dir = server.member().config().data_dir.display().to_string();
    tracing::info!("data-dir" = data_dir, "closing etcd server");
    let (done, ended) = std::sync::mpsc::channel();
    let stopping = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
        server.stop();
        let _ = done.send(());
    });
    match stopping {
        Ok(_) if ended.recv_timeout(LAST_ORDERS).is_ok() => {
            tracing::info!("data-dir" = data_dir, "closed etcd server")
        }
        _ => tracing::warn!("data-dir" = data_dir, "the member did not stop in time; ending all the same"),
    }
    ExitCode::SUCCESS
}
