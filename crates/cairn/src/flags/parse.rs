//! Reads the command line and the environment the way etcd does, which is the way of Go's `flag` package.
//!
//! | written                 | means                                                             |
//! | ----------------------- | ----------------------------------------------------------------- |
//! | `-x v`, `--x v`         | the same, whatever `v` looks like                                 |
//! | `-x=v`, `--x=v`         | the same                                                          |
//! | `--b`                   | true, for a yes-or-no flag, which never takes the next argument   |
//! | `--x=1 --x=2`           | 2                                                                 |
//! | `--` or a bare word     | the end of the flags; whatever follows is refused                 |
//! | `-h`, `-help`, `--help` | help, at once, even if something wrong follows                    |

use super::{FLAGS, Flag, Given, IGNORED, Kind, find, variable};
use crate::note::{Level, Note};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Help, before anything else.
    Help,
    /// The flags, and the first argument that is none.
    Flags { given: Given, stray: Option<String> },
}

/// Reads the arguments, without the program's name.
///
/// # Errors
/// What etcd prints above its usage when the flags cannot be read.
pub(crate) fn arguments(args: &[String]) -> Result<Parsed, String> {
    let mut given = Given::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg.len() < 2 || !arg.starts_with('-') {
            return Ok(Parsed::Flags { given, stray: Some(arg.clone()) });
        }
        if arg == "--" {
            return Ok(Parsed::Flags { given, stray: args.next().cloned() });
        }
        let body = arg.strip_prefix("--").unwrap_or(&arg[1..]);
        if body.is_empty() || body.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {arg}"));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        if matches!(name, "h" | "help") {
            return Ok(Parsed::Help);
        }
        if IGNORED.contains(&name) {
            continue;
        }
        let Some(flag) = find(name) else {
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true",
            (None, _) => args.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
        };
        match flag.kind.parse(value) {
            Ok(value) => given.set(flag, value),
            Err(words) if matches!(flag.kind, Kind::Bool) => {
                return Err(format!("invalid boolean value {value:?} for -{name}: {words}"));
            }
            Err(words) => return Err(format!("invalid value {value:?} for flag -{name}: {words}")),
        }
    }
    Ok(Parsed::Flags { given, stray: None })
}

/// Fills what the command line left open from `ETCD_*` variables. Notes say which were used and which mean
/// nothing.
///
/// # Errors
/// A variable whose value does not fit, or one that stands beside a flag of its own: etcd stops at that rather
/// than choose.
pub(crate) fn environment(
    given: &mut Given,
    env: &[(String, String)],
    notes: &mut Vec<Note>,
) -> Result<(), EnvError> {
    let mut by_name: Vec<&'static Flag> = FLAGS.iter().collect();
    by_name.sort_by_key(|flag| flag.name);
    let (from_command_line, open): (Vec<&Flag>, Vec<&Flag>) =
        by_name.into_iter().partition(|flag| given.has(flag.name));
    let mut wrong = None;
    let mut used = Vec::new();
    for flag in open {
        let variable = flag.variable();
        let Some((_, value)) = env.iter().find(|(name, value)| *name == variable && !value.is_empty()) else {
            continue;
        };
        match flag.kind.parse(value) {
            Ok(parsed) => {
                given.set(flag, parsed);
                let shown = if flag.name.ends_with("password") { "***" } else { value };
                notes.push(
                    Note::new(Level::Info, "recognized and used environment variable")
                        .text("variable-name", &variable)
                        .text("variable-value", shown),
                );
            }
            Err(words) => wrong = Some(format!("invalid value {value:?} for {variable}: {words}")),
        }
        used.push(variable);
    }
    used.extend(IGNORED.map(variable));
    for (name, _) in env.iter().filter(|(name, _)| name.starts_with("ETCD_") && !used.contains(name)) {
        if from_command_line.iter().any(|flag| flag.variable() == *name) {
            return Err(EnvError::Shadowed(name.clone()));
        }
        // etcd logs the value too; it may be a secret of some wrapper around us, so we do not.
        notes.push(
            Note::new(Level::Warn, "unrecognized environment variable").text("environment-variable", name),
        );
    }
    wrong.map_or(Ok(()), |words| Err(EnvError::Invalid(words)))
}

/// Why the environment stops the start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EnvError {
    /// This variable and its flag were both given.
    Shadowed(String),
    /// A value does not fit; in etcd's words.
    Invalid(String),
}
