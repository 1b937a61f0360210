//! The subcommands: etcdutl's, with its flags, results and exit codes; and those that describe the binary to
//! shells and to `man`.
//!
//! Work on files is done in `tools`; here arguments are read and results are shown.

mod args;
mod completion;
mod manual;
mod print;
mod terminal;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgMatches;
use tools::Restore;

use crate::config::cluster::Bootstrap;
use crate::config::url::{self, Url};
use crate::flags::help::ETCD_VERSION;
use crate::logging;
use crate::note::{Level, Note};
use args::NAMES;
use print::Format;
use terminal::Terminal;

/// Why a subcommand ends without a result.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    words: String,
    code: u8,
}

impl Refused {
    /// etcd's exit code for whatever has no other.
    const ERROR: u8 = 1;
    /// For an output format that there is none of.
    const BAD_FEATURE: u8 = 4;
    /// For arguments that make no sense.
    const BAD_ARGS: u8 = 128;
}

impl From<tools::Error> for Refused {
    fn from(error: tools::Error) -> Refused {
        Refused { words: error.to_string(), code: Refused::ERROR }
    }
}

impl From<String> for Refused {
    fn from(words: String) -> Refused {
        Refused { words, code: Refused::ERROR }
    }
}

fn bad_args(words: &str) -> Refused {
    Refused { words: words.to_owned(), code: Refused::BAD_ARGS }
}

/// Runs the subcommand that the arguments, program name first, begin with; none if they do not begin
/// with one.
pub(crate) fn run(args: &[String]) -> Option<ExitCode> {
    let first = args.get(1)?;
    if !NAMES.contains(&first.as_str()) {
        return None;
    }
    let matches = match args::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let code = if error.use_stderr() { Refused::ERROR } else { 0 };
            // Whoever reads may have gone.
            let _ = error.print();
            return Some(ExitCode::from(code));
        }
    };
    Some(match dispatch(&matches) {
        Ok(text) => {
            // Whoever reads may have gone, as in `cairn man | head`.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(Refused { words, code }) => {
            eprintln!("Error: {words}");
            ExitCode::from(code)
        }
    })
}

/// What goes to standard output.
fn dispatch(matches: &ArgMatches) -> Result<String, Refused> {
    let format = || Format::parse(&args::text(matches, "write-out"));
    match matches.subcommand() {
        Some(("snapshot", snapshot)) => match snapshot.subcommand() {
            Some(("restore", matches)) => restore(matches).map(|()| String::new()),
            Some(("status", matches)) => {
                let file = only(matches, "snapshot status")?;
                let format = format()?;
                let status = Terminal::show(|tell| tools::status(&file, tell))?;
                Ok(print::status(&status, format))
            }
            _ => Err(bad_args("snapshot: restore or status")),
        },
        Some(("hashkv", matches)) => {
            let file = only(matches, "hashkv")?;
            let format = format()?;
            let revision = matches.get_one("rev").copied().unwrap_or(0);
            let hash = Terminal::show(|tell| tools::hash_kv(&file, revision, tell))?;
            Ok(print::hash_kv(&hash, format))
        }
        Some(("defrag", matches)) => {
            let dir = args::text(matches, "data-dir");
            tools::defragment(Path::new(&dir))
                .map(|_| String::new())
                .map_err(|error| Refused::from(format!("Failed to defragment etcd data[{dir}] ({error})")))
        }
        Some(("completion", matches)) => {
            let shell = args::text(matches, "shell");
            completion::script(&shell).ok_or_else(|| bad_args(&format!("no completion for {shell:?}")))
        }
        Some(("man", _)) => Ok(manual::page()),
        _ => Ok(version()),
    }
}

/// etcdutl's lines first, for the tools that read them.
fn version() -> String {
    let api = ETCD_VERSION.rsplit_once('.').map_or(ETCD_VERSION, |(api, _)| api);
    format!(
        "etcdutl version: {ETCD_VERSION}\nAPI version: {api}\nCairn Version: {}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The one argument that is no flag.
fn only(matches: &ArgMatches, command: &str) -> Result<PathBuf, Refused> {
    let mut files = matches.get_many::<String>("file").into_iter().flatten();
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(PathBuf::from(file)),
        _ => Err(bad_args(&format!("{command} requires exactly one argument"))),
    }
}

fn restore(matches: &ArgMatches) -> Result<(), Refused> {
    let what = wanted(matches)?;
    // A log that cannot be opened is no reason not to restore.
    let format = logging::Format::Console;
    let _ = logging::start(&logging::Options { format, ..logging::Options::default() });
    let data_dir = what.data_dir.display().to_string();
    let note = |words: &str| {
        Note::new(Level::Info, words)
            .text("path", &what.snapshot.display().to_string())
            .text("wal-dir", &what.wal_dir.as_deref().unwrap_or(Path::new("")).display().to_string())
            .text("data-dir", &data_dir)
    };
    logging::note(&note("restoring snapshot"));
    let restored = Terminal::show(|tell| tools::restore(&what, tell))?;
    logging::note(
        &note("restored snapshot")
            .text("local-member-id", &format!("{:x}", restored.member_id))
            .text("cluster-id", &format!("{:x}", restored.cluster_id))
            .with("current-rev", restored.revision),
    );
    Ok(())
}

/// What is to be restored, with everything checked that needs no look at a file.
fn wanted(matches: &ArgMatches) -> Result<Restore, Refused> {
    let text = |name| args::text(matches, name);
    let snapshot = only(matches, "snapshot restore")?;
    let bump = matches.get_one::<u64>("bump-revision").copied().filter(|bump| *bump > 0);
    if bump.is_some() != args::is_set(matches, "mark-compacted") {
        return Err(bad_args("--mark-compacted required if --revision-bump > 0"));
    }
    let name = text("name");
    let advertised = Url::parse_list(&text("initial-advertise-peer-urls"))?;
    let Bootstrap { members } = Bootstrap::of(&name, &text("initial-cluster"), &advertised)?;
    let data_dir = match text("data-dir") {
        dir if dir.is_empty() => format!("{name}.etcd"),
        dir => dir,
    };
    let data_dir = PathBuf::from(data_dir);
    let wal_dir = match text("wal-dir") {
        dir if dir.is_empty() => data_dir.join("member").join("wal"),
        dir => PathBuf::from(dir),
    };
    Ok(Restore {
        snapshot,
        members: members.iter().map(|(name, urls)| (name.clone(), url::strings(urls))).collect(),
        name,
        token: text("initial-cluster-token"),
        data_dir,
        wal_dir: Some(wal_dir),
        skip_hash_check: args::is_set(matches, "skip-hash-check"),
        bump,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn refused(line: &str) -> Refused {
        let matches = args::command().try_get_matches_from(line.split(' ')).unwrap();
        dispatch(&matches).unwrap_err()
    }

    #[test]
    fn what_cannot_be_restored_is_refused_in_etcds_words_before_any_file_is_touched() {
        let cases = [
            ("snapshot restore", 128, "snapshot restore requires exactly one argument"),
            ("snapshot restore a b", 128, "snapshot restore requires exactly one argument"),
            ("snapshot status", 128, "snapshot status requires exactly one argument"),
            ("snapshot restore f --bump-revision 5", 128, "--mark-compacted required if --revision-bump > 0"),
            ("snapshot restore f --mark-compacted", 128, "--mark-compacted required if --revision-bump > 0"),
            (
                "snapshot restore f --name x",
                1,
                "couldn't find local name \"x\" in the initial cluster configuration",
            ),
            (
                "snapshot restore f --initial-advertise-peer-urls foo",
                1,
                "URL scheme must be http, https, unix, or unixs: foo",
            ),
            (
                "snapshot restore f --initial-cluster default=http://127.0.0.1",
                1,
                "URL address does not have the form \"host:port\": http://127.0.0.1",
            ),
            (
                "snapshot restore f --initial-cluster default=http://localhost:1",
                1,
                "--initial-cluster has default=http://localhost:1 but missing from \
                 --initial-advertise-peer-urls=http://localhost:2380",
            ),
            (
                "snapshot restore f --initial-cluster default=http://localhost:2380,b=http://localhost:2380",
                1,
                "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
            ),
            ("snapshot restore nosuch --data-dir nosuch.etcd", 1, "open nosuch: no such file or directory"),
            ("snapshot status nosuch", 1, "stat nosuch: no such file or directory"),
            ("hashkv nosuch -w yaml", 4, "unsupported output format"),
            ("snapshot status nosuch -w protobuf", 4, "protobuf not supported as output format"),
            (
                "defrag --data-dir nosuch",
                1,
                "Failed to defragment etcd data[nosuch] (stat nosuch/member/cairn.redb: no such file or directory)",
            ),
        ];
        for (line, code, words) in cases {
            assert_eq!(
                refused(&format!("cairn {line}")),
                Refused { words: words.to_owned(), code },
                "{line}"
            );
        }
        assert!(!Path::new("nosuch.etcd").exists());
    }

    #[test]
    fn flags_are_read_as_etcdutl_reads_them() {
        let line = "cairn snapshot restore --skip-hash-check=true --mark-compacted --bump-revision=7 \
                    --name a --initial-cluster a=http://h:1,b=http://h:2 --initial-cluster-token t \
                    --initial-advertise-peer-urls http://h:1 --wal-dir w f --initial-memory-map-size 1";
        let matches = args::command().try_get_matches_from(line.split_whitespace()).unwrap();
        let matches = matches.subcommand().and_then(|(_, snapshot)| snapshot.subcommand()).unwrap().1;
        let what = wanted(matches).unwrap();
        assert_eq!((what.snapshot, what.data_dir), (PathBuf::from("f"), PathBuf::from("a.etcd")));
        assert_eq!((what.wal_dir, what.bump), (Some(PathBuf::from("w")), Some(7)));
        assert_eq!((what.token.as_str(), what.skip_hash_check), ("t", true));
        assert_eq!(what.members["b"], ["http://h:2"]);
    }
}
