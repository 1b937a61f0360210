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
