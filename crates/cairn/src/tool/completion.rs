//! Completion of command lines by shells, made from the table of flags and the subcommands.

use clap::{Arg, ArgAction, Command, ValueHint};
use clap_complete::{Shell, generate};

use super::args;
use crate::flags::{FLAGS, Flag, Kind};

/// The script for a shell; none for a shell that there is none for.
pub(super) fn script(shell: &str) -> Option<String> {
    let shell: Shell = shell.parse().ok()?;
    let mut script = Vec::new();
    generate(shell, &mut command(), "cairn", &mut script);
    String::from_utf8(script).ok()
}

/// All that can be written behind `cairn`. Not what reads it: flags are read as Go reads them.
fn command() -> Command {
    let tools = args::command();
    // The flags of all tools are none of the server's.
    let shared: Vec<Arg> = tools.get_arguments().cloned().collect();
    let flags = FLAGS.iter().filter(|flag| flag.name != "help").map(arg);
    Command::new("cairn")
        .about("Serves keys and values as etcd does")
        .disable_help_subcommand(true)
        .args(flags)
        .subcommands(tools.get_subcommands().cloned().map(|tool| tool.args(shared.clone())))
}

fn arg(flag: &'static Flag) -> Arg {
    let arg = Arg::new(flag.name).long(flag.name).help(flag.help).action(ArgAction::Set);
    match flag.kind {
        // Takes no word of its own: `--flag` or `--flag=false`.
        Kind::Bool => arg.action(ArgAction::SetTrue),
        Kind::Choice(words) => arg.value_parser(words.to_vec()),
        _ if flag.name.ends_with("-dir") => arg.value_hint(ValueHint::DirPath),
        _ if flag.name.ends_with("-file") => arg.value_hint(ValueHint::FilePath),
        _ => arg.value_hint(ValueHint::Other),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_command_line_does_not_contradict_itself() {
        command().debug_assert();
    }

    #[test]
    fn every_shell_knows_every_flag_and_tool() {
        for shell in args::SHELLS {
            let script = script(shell).unwrap();
            for flag in FLAGS {
                // fish writes the name without dashes.
                let name =
                    if shell == "fish" { format!("-l {}", flag.name) } else { format!("--{}", flag.name) };
                assert!(script.contains(&name), "{shell} does not know --{}", flag.name);
            }
            for name in args::NAMES.iter().chain(&["restore", "bump-revision", "write-out"]) {
                assert!(script.contains(name), "{shell} does not know {name}");
            }
        }
        assert_eq!(script("tcsh"), None);
    }
}
