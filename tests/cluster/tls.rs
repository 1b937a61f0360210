//! Members that know each other, and their clients, by certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use authority::{Authority, Subject};
use tests::{Cluster, Plan, System, until};

use System::{Cairn, Etcd};

/// What members and clients show, all issued by one authority but for those of `stranger`.
fn certificates(directory: &Path) {
    let authority = Authority::new("authority");
    authority.write(&directory.join("ca.crt"));
    let member = Subject { common_name: "member", names: &["127.0.0.1", "localhost"], serial: 0 };
    authority.issue(member).write(directory, "member");
    for common_name in ["root", "ann"] {
        authority.issue(Subject { common_name, ..Subject::default() }).write(directory, common_name);
    }
    let stranger = Subject { common_name: "root", ..Subject::default() };
    Authority::new("authority").issue(stranger).write(directory, "stranger");
}

/// etcdctl with a certificate, at one member.
struct Etcdctl {
    program: PathBuf,
    directory: PathBuf,
}

impl Etcdctl {
    /// Runs it as somebody; what it has printed, or said.
    fn run(&self, cluster: &Cluster, place: usize, name: &str, line: &str) -> Result<String, String> {
        let file = |name: String| self.directory.join(name).display().to_string();
        let output = Command::new(&self.program)
            .args(["--endpoints", &cluster.secure_endpoint(place)])
            .args(["--cacert", &file("ca.crt".to_owned())])
            .args(["--cert", &file(format!("{name}.crt")), "--key", &file(format!("{name}.key"))])
            .args(line.split(' '))
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

/// Elections, a crash and a restart over TLS; then users by the names in their certificates, at every member.
async fn a_life_behind_certificates(systems: &[System]) -> Result<()> {
    let Some(binaries) = tests::etcd_directory() else {
        eprintln!("SKIPPED: CAIRN_ETCD_BIN_DIR is not set; see scripts/install-etcd");
        return Ok(());
    };
    let directory = tempfile::tempdir()?;
    certificates(directory.path());
    let etcdctl = Etcdctl { program: binaries.join("etcdctl"), directory: directory.path().to_owned() };
    let plan = Plan { systems: systems.to_vec(), ..Plan::of(0) }.security(directory.path().to_owned());
    let mut cluster = Cluster::start(plan).await?;

    let leader = cluster.leader().await?;
    cluster.kill(leader)?;
    let left = cluster.others(leader);
    until("the others serve", async || etcdctl.run(&cluster, left[0], "ann", "put a 1").ok())
        .await
        .with_context(|| cluster.last_words())?;
    cluster.restart(leader).await?;
    let ok = |place: usize, name: &str, line: &str| {
        let result = etcdctl.run(&cluster, place, name, line);
        result.map_err(|error| anyhow::anyhow!("{name} at {place}, {line}: {error}"))
    };
    ensure!(ok(leader, "ann", "get a --print-value-only")? == "1");

    for line in [
        "user add root --no-password",
        "user grant-role root root",
        "user add ann --no-password",
        "role add writer",
        "role grant-permission writer readwrite a",
        "user grant-role ann writer",
        "auth enable",
    ] {
        ok(0, "root", line)?;
    }
    for place in cluster.places() {
        ok(place, "ann", &format!("put a {place}"))?;
        ensure!(ok(place, "ann", "get a --print-value-only")? == place.to_string());
        let denied = etcdctl.run(&cluster, place, "ann", "put b 1").err().context("ann may not")?;
        ensure!(denied.contains("permission denied"), "{denied}");
        ok(place, "root", "put b 1")?;
        let unknown = etcdctl.run(&cluster, place, "stranger", "--command-timeout=1s put b 2");
        ensure!(unknown.is_err(), "one of another authority: {unknown:?}");
    }
    ensure!(ok(0, "root", "get b --print-value-only")? == "1");
    Ok(())
}

#[tokio::test]
async fn three_members_of_one_authority() -> Result<()> {
    a_life_behind_certificates(&[Cairn; 3]).await
}

#[tokio::test]
async fn with_etcd_among_them() -> Result<()> {
    a_life_behind_certificates(&[Cairn, Etcd, Cairn]).await
}
