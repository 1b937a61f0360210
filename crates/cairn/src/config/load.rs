//! From the command line to a configuration, or to a reason for stopping.
//!
//! The sources are used as etcd uses them. With `--config-file` (or `ETCD_CONFIG_FILE`) the file alone counts.
//! Otherwise flags come first, `ETCD_*` variables fill the gaps, and a variable beside its own flag is refused
//! rather than guessed about.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::{Config, Source, UNSET_ADVERTISE, url::Url, yaml};
use crate::flags::{self, Given, help, parse};
use crate::note::{Level, Note, system_words};

/// The name of a member that was given none.
const DEFAULT_NAME: &str = "default";
/// Where etcd looks for peers and clients unless told otherwise.
const DEFAULT_PEER_URL: &str = "http://localhost:2380";
const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";

/// What loading looks at besides the command line and the environment.
pub(crate) struct World<'a> {
    /// Reads a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// The address that this machine reaches others from, if it has one.
    pub default_host: &'a dyn Fn() -> Option<IpAddr>,
}

/// What to do, and what to say about it in the log.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// For the log.
    pub notes: Vec<Note>,
    /// What to do.
    pub verdict: Verdict,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Serve.
    Serve(Box<Config>),
    /// Write these, and exit with this code.
    Stop {
        /// For standard output.
        stdout: String,
        /// For standard error.
        stderr: String,
        /// The exit code: 0 after help and version, 2 for flags that cannot be read, 1 for all else.
        code: u8,
    },
}

/// Reads the arguments (program name first), the environment and, if one is named, the file.
pub(crate) fn load(args: &[String], env: &[(String, String)], world: &World) -> Loaded {
    let stop = |stdout: String, stderr: String, code| Loaded {
        notes: Vec::new(),
        verdict: Verdict::Stop { stdout, stderr, code },
    };
    let (given, stray) = match parse::arguments(args.get(1..).unwrap_or_default()) {
        Ok(parse::Parsed::Help) => return stop(help::full(), String::new(), 0),
        Ok(parse::Parsed::Flags { given, stray }) => (given, stray),
        Err(words) => return stop(String::new(), format!("{words}\n{}", help::USAGE), 2),
    };
    if stray.is_none() && given.bool("version") {
        return stop(help::version(), String::new(), 0);
    }

    let mut notes = Vec::new();
    let result = match stray {
        Some(stray) => Err(Refusal::Flags(stray_words(&stray))),
        None => from_sources(given, env, world, &mut notes),
    };
    match result {
        Ok(config) => {
            notes.push(running(args));
            Loaded { notes, verdict: Verdict::Serve(Box::new(config)) }
        }
        Err(refusal) => {
            match refusal {
                Refusal::Flags(words) => {
                    notes.push(running(args));
                    notes.push(Note::new(Level::Warn, "failed to verify flags").text("error", &words));
                    if words == UNSET_ADVERTISE {
                        notes.push(
                            Note::new(Level::Warn, "advertise client URLs are not set").text("error", &words),
                        );
                    }
                }
                Refusal::Shadowed(variable) => notes.push(
                    Note::new(
                        Level::Fatal,
                        "conflicting environment variable is shadowed by corresponding command-line flag \
                         (either unset environment variable or disable flag))",
                    )
                    .text("environment-variable", &variable),
                ),
            }
            let verdict = Verdict::Stop { stdout: String::new(), stderr: String::new(), code: 1 };
            Loaded { notes, verdict }
        }
    }
}

enum Refusal {
    Flags(String),
    Shadowed(String),
}

fn stray_words(stray: &str) -> String {
    match stray {
        "gateway" | "grpc-proxy" => format!("Cairn has no {stray}; use etcd's"),
        _ => format!("{stray:?} is not a valid flag"),
    }
}

fn from_sources(
    mut given: Given,
    env: &[(String, String)],
    world: &World,
    notes: &mut Vec<Note>,
) -> Result<Config, Refusal> {
    let mut file = given.text("config-file");
    if file.is_empty() {
        let variable = flags::variable("config-file");
        file = env
            .iter()
            .find(|(name, _)| *name == variable)
            .map(|(_, value)| value.clone())
            .unwrap_or_default();
    }
    let source = if file.is_empty() {
        let env: Vec<(String, String)> = without_version(env, notes);
        parse::environment(&mut given, &env, notes).map_err(|error| match error {
            parse::EnvError::Shadowed(variable) => Refusal::Shadowed(variable),
            parse::EnvError::Invalid(words) => Refusal::Flags(words),
        })?;
        Source::CommandLine
    } else {
        let bytes = (world.read)(Path::new(&file))
            .map_err(|error| Refusal::Flags(format!("open {file}: {}", system_words(&error))))?;
        given = yaml::read(&bytes, notes).map_err(Refusal::Flags)?;
        notes.push(
            Note::new(
                Level::Info,
                "loaded server configuration, other configuration command line flags and environment variables \
                 will be ignored if provided",
            )
            .text("path", &file),
        );
        Source::File
    };
    let mut config = Config::new(&given, source, notes).map_err(Refusal::Flags)?;
    for flag in given.unusual() {
        if let flags::Status::Accepted(reason) = flag.status {
            notes.push(
                Note::new(Level::Info, "flag has no effect")
                    .text("flag", &format!("--{}", flag.name))
                    .text("reason", reason),
            );
        }
    }
    fill_from_name(&mut config, &given, world, notes);
    Ok(config)
}

/// `ETCD_VERSION` is set by some images for their own use; it is not a flag, and would be taken for one.
fn without_version(env: &[(String, String)], notes: &mut Vec<Note>) -> Vec<(String, String)> {
    let is_version = |(name, value): &&(String, String)| name == "ETCD_VERSION" && !value.is_empty();
    if let Some((name, value)) = env.iter().find(is_version) {
        notes.push(
            Note::new(Level::Warn, "cannot set special environment variable")
                .text("key", name)
                .text("value", value),
        );
    }
    env.iter().filter(|pair| !is_version(pair)).cloned().collect()
}

/// What was left at its default follows from what was given: a member that listens everywhere is announced
/// under the machine's own address, and a named member is the one in its initial cluster.
fn fill_from_name(config: &mut Config, given: &Given, world: &World, notes: &mut Vec<Note>) {
    let everywhere = |urls: &[Url]| urls.first().filter(|url| url.host == "0.0.0.0").map(|url| url.port);
    let is = |urls: &[Url], default: &str| urls.len() == 1 && urls[0].as_str() == default;

    let peer =
        everywhere(&config.listen_peer_urls).filter(|_| is(&config.advertise_peer_urls, DEFAULT_PEER_URL));
    let client = everywhere(&config.listen_client_urls)
        .filter(|_| is(&config.advertise_client_urls, DEFAULT_CLIENT_URL));
    let host = if peer.is_some() || client.is_some() { (world.default_host)() } else { None };
    if let Some(host) = host {
        if let Some(port) = peer {
            config.advertise_peer_urls = vec![Url::http(host, port)];
        }
        if let Some(port) = client {
            config.advertise_client_urls = vec![Url::http(host, port)];
        }
        notes.push(
            Note::new(Level::Info, "detected default host for advertise").text("host", &host.to_string()),
        );
    }
    if config.name != DEFAULT_NAME && given.text("initial-cluster") == super::usual_cluster() {
        let name = if config.name.is_empty() { DEFAULT_NAME } else { &config.name };
        let members: Vec<String> =
            config.advertise_peer_urls.iter().map(|url| format!("{name}={url}")).collect();
        config.initial_cluster = members.join(",");
    }
}

/// The command line, without secrets.
fn running(args: &[String]) -> Note {
    let mut hide_next = false;
    let shown: Vec<String> = args
        .iter()
        .map(|arg| {
            let flag = arg.trim_start_matches('-');
            let shown = match flag.split_once('=') {
                _ if hide_next => "***".to_owned(),
                Some(("discovery-password", _)) => "--discovery-password=***".to_owned(),
                _ => arg.clone(),
            };
            hide_next = flag == "discovery-password";
            shown
        })
        .collect();
    Note::new(Level::Info, "Running: ").with("args", shown)
}
