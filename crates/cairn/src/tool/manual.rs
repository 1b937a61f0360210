//! The man page, made from the table of flags and the subcommands: `cairn man`.

use std::fmt::Write;

use clap::{Arg, Command};

use super::args;
use crate::flags::help::holds;
use crate::flags::{FLAGS, Flag, Kind, Status};

/// What does not follow from the tables: how it is called, and what it is.
const HEAD: &str = r#".SH NAME
cairn \- etcd\-compatible key\-value server
.SH SYNOPSIS
.B cairn
.RI [ flag ...]
.br
.B cairn
.I command
.RI [ flag ...]
.RI [ file ]
.SH DESCRIPTION
.B cairn
serves keys and values, watches and leases behind etcd's own API, alone or as a member of a cluster. Clients of
etcd are its clients.
.PP
A flag is written \-\-flag value, \-\-flag=value, or with one dash; one that is true or false is written \-\-flag or
\-\-flag=false. The last of a repeated flag counts. What the command line does not give is looked for in the
environment; with \-\-config\-file, the YAML file alone counts.
"#;

/// The same: what it touches, and how it ends.
const TAIL: &str = r#".SH ENVIRONMENT
.TP
.B ETCD_*
Each flag has a variable: ETCD_DATA_DIR for \-\-data\-dir. One beside its own flag is an error.
.TP
.B NOTIFY_SOCKET
Where a service manager is told that clients are served, and that the member stops, as systemd's Type=notify
wants it.
.SH FILES
.TP
.IB name .etcd
The data directory, where \-\-data\-dir names no other.
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Stop in order, within ten seconds.
.SH EXIT STATUS
.TP
.B 0
Told to stop, or removed from the cluster.
.TP
.B 1
It cannot start or go on; the last line of the log says why.
.TP
.B 2
A flag makes no sense.
.SH SEE ALSO
.BR etcdctl (1)
"#;

/// The page, in roff.
pub(super) fn page() -> String {
    let mut page = format!(".TH CAIRN 1 \"\" \"Cairn {}\"\n{HEAD}.SH FLAGS\n", env!("CARGO_PKG_VERSION"));
    let mut section = "";
    for flag in FLAGS {
        if flag.section != section {
            section = flag.section;
            let _ = writeln!(page, ".SS \"{}\"", roff(section));
        }
        describe(&mut page, flag);
    }
    page += ".SH COMMANDS\n";
    let tools = args::command();
    for tool in tools.get_subcommands() {
        command(&mut page, "cairn", tool);
    }
    page += ".SS \"flags of all commands\"\n";
    tools.get_arguments().for_each(|arg| argument(&mut page, arg));
    page + TAIL
}

fn describe(page: &mut String, flag: &Flag) {
    let value = match flag.kind {
        Kind::Bool => String::new(),
        kind => format!(" \\fI{}\\fP", roff(&holds(kind))),
    };
    let _ = writeln!(page, ".TP\n\\fB\\-\\-{}\\fP{value}\n{}", roff(flag.name), roff(flag.help));
    if !flag.default.is_empty() {
        let _ = writeln!(page, "Default: {}.", roff(flag.default));
    }
    match flag.status {
        Status::Active => {}
        Status::Accepted(reason) => {
            let _ = writeln!(page, "Changes nothing: {}.", roff(reason));
        }
        Status::NotYet(reason) => {
            let _ = writeln!(page, "Refused unless it is given its default: {}.", roff(reason));
        }
    }
}

fn command(page: &mut String, above: &str, command: &Command) {
    let name = format!("{above} {}", command.get_name());
    if command.has_subcommands() {
        command.get_subcommands().for_each(|below| self::command(page, &name, below));
        return;
    }
    let words = command.get_positionals().fold(name, |words, arg| words + " " + arg.get_id().as_str());
    let _ = writeln!(page, ".SS \"{}\"", roff(&words));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, "{}.", roff(&about));
    command.get_arguments().filter(|arg| !arg.is_positional()).for_each(|arg| argument(page, arg));
}

fn argument(page: &mut String, arg: &Arg) {
    let name = arg.get_long().unwrap_or_default();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, ".TP\n\\fB\\-\\-{}\\fP\n{}.", roff(name), roff(&help));
    if let [default] = arg.get_default_values() {
        let _ = writeln!(page, "Default: {}.", roff(&default.to_string_lossy()));
    }
}

/// Text as roff takes it for text.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq");
    let ascii = |letter: char| match letter.is_ascii() {
        true => letter.to_string(),
        false => format!("\\[u{:04X}]", u32::from(letter)),
    };
    let text: String = text.chars().map(ascii).collect();
    // At the start of a line these would be the start of a request.
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_flag_and_every_tool_is_on_the_page() {
        let page = page();
        for flag in FLAGS {
            let name = format!("\n\\fB\\-\\-{}\\fP", roff(flag.name));
            assert!(page.contains(&name), "--{} is missing", flag.name);
        }
        for name in
            ["snapshot restore", "snapshot status", "defrag", "hashkv", "version", "completion", "man"]
        {
            assert!(page.contains(&format!("\n.SS \"cairn {name}")), "{name} is missing");
        }
        assert!(page.contains("\n\\fB\\-\\-bump\\-revision\\fP\n"));
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(roff(".x -\\ \"y\"…"), "\\&.x \\-\\e \\(dqy\\(dq\\[u2026]");
        let requests = ["TH", "SH", "SS", "TP", "PP", "B", "I", "BR", "RI", "IB", "br"];
        for line in page().lines() {
            let request = line.strip_prefix('.').map(|line| line.split(' ').next().unwrap());
            assert!(request.is_none_or(|request| requests.contains(&request)), "{line}");
            assert!(!line.starts_with('\'') && !line.is_empty(), "{line:?}");
        }
    }
}
