//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::compare::{BARE, CAIRN, ETCD, Source, System};
use crate::failover;
use crate::process::{Flavor, Program, version};
use crate::procfs::Probe;
use crate::rows::{ROWS, Row, Settings};

/// Names the directory with etcd's binaries when no path is given.
const ETCD_BIN_DIR: &str = "CAIRN_ETCD_BIN_DIR";

const EXAMPLES: &str = "\
Examples:
  CAIRN_ETCD_BIN_DIR=/path/to/bin benches compare --quick
  benches compare --rows put-1000,get-1000 --rounds 5 --json result.json
  benches run --endpoint 127.0.0.1:2379 --pid 4711 --data-dir default.etcd
  benches compare --members 3
  benches failover
  benches run --start cairn --binary target/release/cairn --rows load";

/// What the command line asks for.
pub(crate) enum Task {
    /// Measure.
    Measure(Measure),
    /// Measure how long writes rest when a leader goes, and write the figures there.
    Failover(failover::Task, Option<PathBuf>),
    /// Print the names of the rows.
    ListRows,
    /// Be the bare service.
    Bare(SocketAddr, usize),
}

/// A measurement to do.
pub(crate) struct Measure {
    /// Against what.
    pub(crate) systems: Vec<System>,
    /// Which rows.
    pub(crate) rows: Vec<&'static Row>,
    /// How often each.
    pub(crate) rounds: usize,
    /// How long and big.
    pub(crate) settings: Settings,
    /// Where the JSON goes; `-` is the standard output, instead of the table.
    pub(crate) json: Option<PathBuf>,
    /// Fail when a target is missed or a row fails.
    pub(crate) check: bool,
}

/// Reads the process's arguments; on a usage error it prints and exits with 2.
///
/// # Errors
/// When what the arguments name is not there.
pub(crate) fn parse() -> Result<Task> {
    task(&command().get_matches())
}

fn command() -> Command {
    let path = value_parser!(PathBuf);
    let compare = measuring(Command::new("compare"))
        .about("etcd and Cairn alternately in one run: medians, ratios and targets")
        .arg(Arg::new("etcd").long("etcd").value_name("PATH").value_parser(path.clone()).help(
            "etcd's binary [default: etcd in the directory that CAIRN_ETCD_BIN_DIR names, else in PATH]",
        ))
        .arg(
            Arg::new("cairn")
                .long("cairn")
                .value_name("PATH")
                .value_parser(path.clone())
                .help("Cairn's binary [default: cairn beside this driver]"),
        )
        .arg(flag("no-bare", "leave the bare service out of the rows that it can answer"))
        .arg(flag("check", "exit with 1 when a target is missed or a row fails"));
    let run = measuring(Command::new("run"))
        .about("one system: a running endpoint, or a server started here")
        .arg(Arg::new("endpoint").long("endpoint").value_name("HOST:PORT").conflicts_with("start"))
        .arg(
            Arg::new("pid")
                .long("pid")
                .value_name("PID")
                .value_parser(value_parser!(u32))
                .requires("endpoint")
                .help("the endpoint's process, for CPU and memory"),
        )
        .arg(
            Arg::new("data-dir")
                .long("data-dir")
                .value_name("DIR")
                .value_parser(path.clone())
                .requires("endpoint")
                .help("the endpoint's data directory, for bytes on disk"),
        )
        .arg(
            Arg::new("start")
                .long("start")
                .value_name("KIND")
                .value_parser([ETCD, CAIRN, BARE])
                .required_unless_present("endpoint"),
        )
        .arg(
            Arg::new("binary")
                .long("binary")
                .value_name("PATH")
                .value_parser(path)
                .requires("start")
                .help("what to start [default: as for compare]"),
        );
    let failover = Command::new("failover")
        .about("how long writes rest when the leader of a cluster is killed, and when it is asked to end")
        .arg(Arg::new("etcd").long("etcd").value_name("PATH").value_parser(value_parser!(PathBuf)))
        .arg(Arg::new("cairn").long("cairn").value_name("PATH").value_parser(value_parser!(PathBuf)))
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("SYSTEM")
                .value_parser([ETCD, CAIRN])
                .help("one of the two [default: both]"),
        )
        .arg(count("members", "members of each cluster [default: 3]"))
        .arg(count("times", "leaders to end, in each of the two ways [default: 30]"))
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("also write every figure as JSON"),
        )
        .arg(
            Arg::new("scratch")
                .long("scratch")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("where data goes [default: the temporary directory]"),
        );
    let bare = Command::new("bare")
        .about("be the bare service: KV without storage")
        .arg(Arg::new("listen").long("listen").value_name("ADDRESS").required(true))
        .arg(count("server-threads", "single-threaded runtimes [default: one per core]"));
    Command::new("benches")
        .about("Load driver: measures an etcd-compatible server from outside, and Cairn beside etcd")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .subcommand(compare)
        .subcommand(run)
        .subcommand(failover)
        .subcommand(Command::new("rows").about("list the rows"))
        .subcommand(bare)
}

fn measuring(command: Command) -> Command {
    command
        .arg(Arg::new("rows").long("rows").value_name("A,B").help("only these rows [default: all]"))
        .arg(count("rounds", "times that each row is run [default: 3, quick 1]"))
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_name("S")
                .value_parser(value_parser!(f64))
                .help("length of each window [default: 5, quick 1]"),
        )
        .arg(count("members", "members of each system that is started here [default: 1]"))
        .arg(count("threads", "driver threads [default: one per core, at most 4]"))
        .arg(flag("quick", "short windows, one round, a tenth of the keys in the big rows"))
        .arg(
            Arg::new("json").long("json").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
                "also write everything, every round included, as JSON; - prints it instead of the table",
            ),
        )
        .arg(
            Arg::new("scratch")
                .long("scratch")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("where servers started here keep their data [default: the temporary directory]"),
        )
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn count(name: &'static str, help: &'static str) -> Arg {
    let positive = value_parser!(u32).range(1..);
    Arg::new(name).long(name).value_name("N").value_parser(positive).help(help)
}

fn task(matches: &ArgMatches) -> Result<Task> {
    match matches.subcommand() {
        Some(("compare", matches)) => {
            let mut systems = vec![started(ETCD, matches, "etcd")?, started(CAIRN, matches, "cairn")?];
            // It agrees with nobody.
            if !matches.get_flag("no-bare") && members(matches) == 1 {
                systems.push(started(BARE, matches, "")?);
            }
            Ok(Task::Measure(measure(matches, systems, matches.get_flag("check"))?))
        }
        Some(("run", matches)) => {
            let system = match matches.get_one::<String>("start").map(String::as_str) {
                Some(ETCD) => started(ETCD, matches, "binary")?,
                Some(CAIRN) => started(CAIRN, matches, "binary")?,
                Some(_) => started(BARE, matches, "binary")?,
                None => endpoint(matches)?,
            };
            Ok(Task::Measure(measure(matches, vec![system], false)?))
        }
        Some(("failover", matches)) => {
            let only = matches.get_one::<String>("only").map(String::as_str);
            let mut systems = Vec::new();
            for name in [ETCD, CAIRN].into_iter().filter(|name| only.is_none_or(|only| only == *name)) {
                let Source::Start(program) = started(name, matches, name)?.source else { continue };
                systems.push((name, Program { members: number(matches, "members").unwrap_or(3), ..program }));
            }
            let times = number(matches, "times").unwrap_or(30);
            Ok(Task::Failover(failover::Task { systems, times }, matches.get_one("json").cloned()))
        }
        Some(("bare", matches)) => {
            let listen = matches.get_one::<String>("listen").context("an address is required")?;
            Ok(Task::Bare(address(listen)?, number(matches, "server-threads").unwrap_or_else(cores)))
        }
        _ => Ok(Task::ListRows),
    }
}

fn measure(matches: &ArgMatches, systems: Vec<System>, check: bool) -> Result<Measure> {
    let quick = matches.get_flag("quick");
    let seconds = matches.get_one::<f64>("seconds").copied().unwrap_or(if quick { 1.0 } else { 5.0 });
    ensure!(seconds > 0.0 && seconds <= 3600.0, "--seconds must be above 0 and at most 3600");
    let settings = Settings {
        threads: number(matches, "threads").unwrap_or_else(|| cores().min(4)),
        warmup: if quick { Duration::from_millis(300) } else { Duration::from_secs(1) },
        window: Duration::from_secs_f64(seconds),
        reduced: quick,
        members: members(matches),
    };
    Ok(Measure {
        systems,
        rows: rows(matches.get_one::<String>("rows").map(String::as_str))?,
        rounds: number(matches, "rounds").unwrap_or(if quick { 1 } else { 3 }),
        settings,
        json: matches.get_one("json").cloned(),
        check,
    })
}

fn rows(wanted: Option<&str>) -> Result<Vec<&'static Row>> {
    let Some(wanted) = wanted else { return Ok(ROWS.iter().collect()) };
    let find = |name: &str| {
        let row = ROWS.iter().find(|row| row.name == name.trim());
        row.with_context(|| format!("no row named {name:?}; `benches rows` lists them"))
    };
    wanted.split(',').map(find).collect()
}

fn started(name: &'static str, matches: &ArgMatches, argument: &str) -> Result<System> {
    let given = matches.try_get_one::<PathBuf>(argument).ok().flatten().cloned();
    let own = std::env::current_exe()?;
    let (binary, flavor) = match name {
        ETCD => (given.unwrap_or_else(find_etcd), Flavor::Etcd),
        CAIRN => (given.unwrap_or_else(|| own.with_file_name("cairn")), Flavor::Etcd),
        _ => (own, Flavor::Bare),
    };
    let version = match flavor {
        Flavor::Etcd => Some(version(&binary).with_context(|| missing(name, &binary))?),
        Flavor::Bare => Some("tonic with nothing behind it, one runtime per core".to_owned()),
    };
    let scratch = matches.get_one("scratch").cloned();
    let members = members(matches);
    Ok(System { name, version, source: Source::Start(Program { binary, flavor, scratch, members }) })
}

fn members(matches: &ArgMatches) -> usize {
    number(matches, "members").unwrap_or(1)
}

fn missing(name: &str, binary: &Path) -> String {
    let hint = match name {
        ETCD => format!("give --etcd or set {ETCD_BIN_DIR}"),
        _ => "build it with `cargo build --release` or give --cairn".to_owned(),
    };
    format!("{} does not run: {hint}", binary.display())
}

fn find_etcd() -> PathBuf {
    match std::env::var_os(ETCD_BIN_DIR) {
        Some(dir) => PathBuf::from(dir).join("etcd"),
        None => "etcd".into(),
    }
}

fn endpoint(matches: &ArgMatches) -> Result<System> {
    let given = matches.get_one::<String>("endpoint").context("an endpoint is required")?;
    let probe = Probe {
        pids: matches.get_one("pid").copied().into_iter().collect(),
        data_dirs: matches.get_one("data-dir").cloned().into_iter().collect(),
    };
    let source = Source::Running(address(given)?, probe);
    Ok(System { name: "endpoint", version: Some(given.clone()), source })
}

/// `host:port`, with or without `http://`.
fn address(text: &str) -> Result<SocketAddr> {
    if text.starts_with("https://") {
        bail!("{text}: the driver speaks plain HTTP/2 only");
    }
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let mut found = bare.to_socket_addrs().with_context(|| format!("{text} is not HOST:PORT"))?;
    found.next().with_context(|| format!("{text} has no address"))
}

fn number(matches: &ArgMatches, name: &str) -> Option<usize> {
    matches.get_one::<u32>(name).map(|number| *number as usize)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    fn parsed(arguments: &[&str]) -> Result<Task> {
        task(&command().try_get_matches_from(arguments)?)
    }

    #[test]
    fn an_endpoint_takes_a_url_or_an_address() {
        for endpoint in ["http://127.0.0.1:2379", "127.0.0.1:2379", "http://127.0.0.1:2379/"] {
            let Ok(Task::Measure(measure)) = parsed(&["benches", "run", "--endpoint", endpoint]) else {
                panic!("{endpoint} was refused");
            };
            let Source::Running(address, _) = measure.systems[0].source else { panic!("not running") };
            assert_eq!(address, "127.0.0.1:2379".parse().unwrap());
        }
        assert!(parsed(&["benches", "run", "--endpoint", "https://127.0.0.1:2379"]).is_err());
        assert!(parsed(&["benches", "run"]).is_err());
    }

    #[test]
    fn quick_sets_what_is_not_given() {
        let base = ["benches", "run", "--endpoint", "127.0.0.1:1", "--quick"];
        let Ok(Task::Measure(quick)) = parsed(&base) else { panic!("refused") };
        assert_eq!((quick.rounds, quick.settings.reduced), (1, true));
        assert_eq!(quick.rows.len(), ROWS.len());
        let more = [&base[..], &["--rounds=4", "--seconds", "2.5", "--rows", "put-1, load"]].concat();
        let Ok(Task::Measure(given)) = parsed(&more) else { panic!("refused") };
        assert_eq!((given.rounds, given.settings.window), (4, Duration::from_millis(2500)));
        assert_eq!(given.rows.iter().map(|row| row.name).collect::<Vec<_>>(), ["put-1", "load"]);
    }

    #[test]
    fn nonsense_is_refused() {
        let base = ["benches", "run", "--endpoint", "127.0.0.1:1"];
        for wrong in ["--rows=nope", "--rounds=0", "--seconds=0", "--seconds=NaN", "--threads=-1", "--x"] {
            assert!(parsed(&[&base[..], &[wrong]].concat()).is_err(), "{wrong}");
        }
    }
}
