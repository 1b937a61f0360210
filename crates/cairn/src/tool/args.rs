//! The arguments of the subcommands.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// What an argument list that is for a subcommand begins with.
pub(super) const NAMES: [&str; 6] = ["snapshot", "defrag", "hashkv", "version", "completion", "man"];

/// The shells that there is completion for.
pub(super) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

pub(super) fn command() -> Command {
    let write_out = Arg::new("write-out").long("write-out").short('w').global(true).default_value("simple");
    Command::new("cairn")
        .subcommand_required(true)
        .arg(write_out.help("Set the output format (fields, json, simple, table)"))
        .subcommand(
            Command::new("snapshot")
                .about("Restores a backup, or tells what is in one")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(restore())
                .subcommand(
                    Command::new("status")
                        .about("Tells hash, revision, total keys, total size and version of a backup")
                        .arg(file()),
                ),
        )
        .subcommand(
            Command::new("defrag")
                .about("Rewrites the store of a member that does not run into as little space as it needs")
                .arg(text_flag("data-dir", "Data directory of the member").required(true)),
        )
        .subcommand(
            Command::new("hashkv")
                .about("Hashes the history in a backup, or in the cairn.redb of a member that does not run")
                .arg(file())
                .arg(
                    number("rev", "Highest revision to hash; the newest where none is given")
                        .value_parser(value_parser!(i64))
                        .allow_negative_numbers(true),
                ),
        )
        .subcommand(Command::new("version").about("Prints the version"))
        .subcommand(
            Command::new("completion")
                .about("Prints the script by which a shell completes command lines of cairn")
                .arg(Arg::new("shell").required(true).value_parser(SHELLS).help("The shell")),
        )
        .subcommand(Command::new("man").about("Prints the man page, in roff"))
}

fn restore() -> Command {
    Command::new("restore")
        .about("Makes the data directory of a member from a backup")
        .arg(file())
        .arg(text_flag("data-dir", "Where the data are to be; <name>.etcd where it is not given"))
        .arg(text_flag("wal-dir", "Where the log is to be; within the data directory where it is not given"))
        .arg(text_flag("name", "Name of the member").default_value("default"))
        .arg(
            text_flag("initial-cluster", "Names and peer URLs of all members")
                .default_value("default=http://localhost:2380"),
        )
        .arg(
            text_flag("initial-cluster-token", "Keeps clusters of equal members apart")
                .default_value("etcd-cluster"),
        )
        .arg(
            text_flag("initial-advertise-peer-urls", "Peer URLs of the member")
                .default_value("http://localhost:2380"),
        )
        .arg(switch("skip-hash-check", "Take a file without SHA-256, as one copied from a data directory is"))
        .arg(
            number("bump-revision", "By how much revisions are to rise, so that none is seen twice")
                .value_parser(value_parser!(u64)),
        )
        .arg(switch("mark-compacted", "Compact all that was before the rise; required with it"))
        .arg(
            number("initial-memory-map-size", "Changes nothing: no memory is mapped")
                .value_parser(value_parser!(u64)),
        )
}

/// Any number of arguments, so that it is us who say that one is needed.
fn file() -> Arg {
    Arg::new("file").num_args(0..).help("The file")
}

fn text_flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::Set).overrides_with(name)
}

fn number(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::Set).overrides_with(name)
}

/// `--b`, `--b=true` or `--b=false`, as in Go.
fn switch(name: &'static str, help: &'static str) -> Arg {
    text_flag(name, help)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(value_parser!(bool))
}

/// The value of a flag that is text; empty if it has none.
pub(super) fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

pub(super) fn is_set(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one::<bool>(name).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        super::command().debug_assert();
    }
}
