//! The binary from outside, as far as it goes without a member: what it prints, where, and how it exits.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn cairn(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cairn")).args(args).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn version_comes_first_as_etcds() {
    let output = cairn(&["--version"]);
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().next(), Some("etcd Version: 3.7.1"));
    assert!(stdout.contains(concat!("\nCairn Version: ", env!("CARGO_PKG_VERSION"), "\n")));
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn help_goes_to_standard_output() {
    for flag in ["-h", "--help", "-help"] {
        let output = cairn(&[flag]);
        assert!(text(&output.stdout).contains("\nClustering:\n  --initial-advertise-peer-urls '"));
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    }
}

#[test]
fn an_unknown_flag_is_told_on_standard_error_with_code_2() {
    let output = cairn(&["--name=x", "--nosuch"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("flag provided but not defined: -nosuch\nUsage:\n"));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn a_refusal_is_a_line_of_the_log_with_code_1() {
    let output = cairn(&["--heartbeat-interval", "300"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    let lines: Vec<serde_json::Value> =
        text(&output.stderr).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["msg"], "Running: ");
    assert_eq!(lines[0]["args"][2], "300");
    let last = lines.last().unwrap();
    assert_eq!((&last["level"], &last["msg"]), (&"warn".into(), &"failed to verify flags".into()));
    assert_eq!(
        last["error"],
        "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]"
    );
    let keys: Vec<&str> =
        text(&output.stderr).lines().next().map(|_| ["level", "ts", "caller", "msg"].to_vec()).unwrap();
    assert!(keys.iter().all(|key| last.get(key).is_some()));
}

#[test]
fn a_log_that_cannot_be_opened_stops_the_start() {
    let output = cairn(&["--log-outputs=/nonexistent/a.log"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    let last: serde_json::Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(
        last["error"],
        "couldn't open sink \"/nonexistent/a.log\": open /nonexistent/a.log: no such file or directory"
    );
}

#[test]
fn a_port_that_is_taken_stops_the_start_before_anything_is_made() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = std::env::temp_dir().join(format!("cairn-taken-port-{}", address.port()));
    let url = format!("http://{address}");
    let output = cairn(&[
        "--data-dir",
        directory.to_str().unwrap(),
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
    ]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    let last: serde_json::Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"], format!("listen tcp {address}: bind: address already in use"));
    assert!(!directory.exists());
}

/// What a service manager sees: readiness once clients are served, the intent to stop, and the end. The log is
/// in a file that may get full.
#[test]
fn a_service_manager_is_told_of_the_beginning_and_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let manager = std::os::unix::net::UnixDatagram::bind(path("notify")).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut bytes = [0; 64];
        loop {
            match manager.recv(&mut bytes) {
                // Whoever runs the test may have stopped it for a while.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                heard => return heard.map(|length| text(&bytes[..length])),
            }
        }
    };
    let url = "http://127.0.0.1:0";
    let mut member = Command::new(env!("CARGO_BIN_EXE_cairn"))
        .args(["--data-dir", &path("data"), "--log-outputs", &path("logs/a.log"), "--enable-log-rotation"])
        .args(["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", url])
        .env_clear()
        .env("NOTIFY_SOCKET", path("notify"))
        .spawn()
        .unwrap();
    let ready = hear();
    let _ = Command::new("kill").args(["-TERM", &member.id().to_string()]).status();
    let (stopping, status) = (hear(), member.wait().unwrap());
    assert_eq!((ready.unwrap().as_str(), stopping.unwrap().as_str()), ("READY=1", "STOPPING=1"));
    assert!(status.success(), "{status}");
    let log = std::fs::read_to_string(path("logs/a.log")).unwrap();
    let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("no {words:?} in\n{log}"));
    assert!(at("ready to serve client requests") < at("successfully notified init daemon"));
    assert!(at("received signal; shutting down") < at("closed etcd server"));
}

/// A real bash with the script loaded, asked what `line` can go on with.
fn completed_by_bash(line: &str) -> Vec<String> {
    let ask = "source /dev/stdin; COMP_WORDS=($LINE); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); \
               _cairn cairn \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; \
               printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash")
        .args(["--norc", "-c", ask])
        .env("LINE", line)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let script = cairn(&["completion", "bash"]).stdout;
    std::io::Write::write_all(&mut bash.stdin.take().unwrap(), &script).unwrap();
    let output = bash.wait_with_output().unwrap();
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_command_lines() {
    assert_eq!(completed_by_bash("cairn --listen-c"), ["--listen-client-urls", "--listen-client-http-urls"]);
    assert_eq!(completed_by_bash("cairn --name a --initial-cluster-s"), ["--initial-cluster-state"]);
    assert_eq!(completed_by_bash("cairn --initial-cluster-state e"), ["existing"]);
    assert_eq!(completed_by_bash("cairn hash"), ["hashkv"]);
    assert_eq!(completed_by_bash("cairn snapshot restore --bump"), ["--bump-revision"]);
    assert_eq!(completed_by_bash("cairn completion z"), ["zsh"]);
}

#[test]
fn a_shell_without_completion_is_refused() {
    let output = cairn(&["completion", "tcsh"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert!(text(&output.stderr).contains("[possible values: bash, zsh, fish]"));
}
