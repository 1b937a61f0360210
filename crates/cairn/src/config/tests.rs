//! What is given, and what comes of it: the scripts in `tests/golden/config*.txt`.
//!
//! A line `cairn …` is the command line (no quoting: arguments are what blanks separate, and `''` is the empty
//! one), a line `NAME=value` before it a variable of the environment, and the lines after it the file `c.yml`.
//! The output is what went to the screen and the log (`level message fields`), then the exit code, or every
//! setting that differs from its default.
#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;

use super::load::{Loaded, Verdict, World, load};
use crate::note::Note;

fn run(case: &str) -> String {
    let mut env = Vec::new();
    let mut args = None;
    let mut file = String::new();
    for line in case.lines() {
        match (&args, line.split_once('=')) {
            (Some(_), _) => file = file + line + "\n",
            (None, _) if line == "cairn" || line.starts_with("cairn ") => {
                let words = line.split(' ').map(|word| if word == "''" { "" } else { word });
                args = Some(words.map(str::to_owned).collect::<Vec<String>>());
            }
            (None, Some((name, value))) => env.push((name.to_owned(), value.to_owned())),
            (None, None) => panic!("not a case: {line}"),
        }
    }
    let read = |path: &Path| match path.to_str() {
        Some("c.yml") => Ok(file.clone().into_bytes()),
        _ => Err(io::Error::from_raw_os_error(2)),
    };
    let world = World { read: &read, default_host: &|| Some([10, 0, 0, 7].into()) };
    let Loaded { notes, verdict } = load(&args.unwrap(), &env, &world);
    let mut out: String = notes.iter().filter(|note| note.message != "Running: ").map(show).collect();
    match verdict {
        Verdict::Stop { stdout, stderr, code } => {
            // Help and usage have tests of their own; their first line tells them.
            out += &stdout.lines().take(1).map(|line| format!("stdout: {line}\n")).collect::<String>();
            out += &stderr.lines().take(2).map(|line| format!("stderr: {line}\n")).collect::<String>();
            out += &format!("exit {code}\n");
        }
        Verdict::Serve(config) => {
            let usual = format!("{:#?}", defaults());
            let config_text = format!("{config:#?}");
            out += &difference(&usual, &config_text);
            if let Err(words) = config.bootstrap() {
                out += &format!("a new cluster: {words}\n");
            }
        }
    }
    out
}

fn defaults() -> super::Config {
    let world = World { read: &|_| Err(io::Error::from_raw_os_error(2)), default_host: &|| None };
    match load(&["cairn".to_owned()], &[], &world).verdict {
        Verdict::Serve(config) => *config,
        Verdict::Stop { .. } => panic!("without flags there is a configuration"),
    }
}

fn show(note: &Note) -> String {
    let fields: String = note.fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("{} {}{fields}\n", note.level.name(), note.message)
}

/// The fields of the configuration, a line each, that are not as usual.
fn difference(usual: &str, config: &str) -> String {
    let fields = |text: &str| -> Vec<String> {
        let mut fields: Vec<String> = Vec::new();
        for line in text.lines().skip(1).filter(|line| *line != "}") {
            let inner = line.strip_prefix("    ").unwrap();
            match fields.last_mut() {
                Some(last) if inner.starts_with([' ', ']', '}', ')']) => {
                    let inner = inner.trim();
                    let blank =
                        if last.ends_with(['[', '(']) || inner.starts_with([']', ')']) { "" } else { " " };
                    *last = format!("{last}{blank}{inner}");
                }
                _ => fields.push(inner.to_owned()),
            }
        }
        fields
    };
    let usual = fields(usual);
    fields(config)
        .iter()
        .filter(|field| !usual.contains(field))
        .map(|field| field.trim_end_matches(',').to_owned() + "\n")
        .collect()
}

#[test]
fn the_command_line() {
    crate::golden::script("command_line.txt", run);
}

#[test]
fn the_environment() {
    crate::golden::script("environment.txt", run);
}

#[test]
fn the_file() {
    crate::golden::script("file.txt", run);
}

#[test]
fn what_makes_no_sense() {
    crate::golden::script("validation.txt", run);
}

/// Every flag that does nothing yet is refused as soon as it asks for something, and taken at its default.
#[test]
fn flags_without_effect_are_refused_unless_they_hold_their_default() {
    use crate::flags::{FLAGS, Kind, Status};
    for flag in FLAGS {
        let Status::NotYet(reason) = flag.status else { continue };
        let usual = run(&format!("cairn --{}={}", flag.name, flag.default.replace(' ', "")));
        let holds_blanks = flag.default.contains(' ');
        assert!(holds_blanks || !usual.contains("no effect"), "{}: {usual}", flag.name);
        let other = match flag.kind {
            Kind::Bool if flag.default == "true" => "false",
            Kind::Bool => "true",
            Kind::Choice(words) => words.iter().find(|word| **word != flag.default).unwrap(),
            Kind::Unsigned | Kind::Unsigned32 | Kind::Signed => "77",
            Kind::Duration => "77s",
            Kind::Urls | Kind::Origins => "http://127.0.0.1:77",
            Kind::Text | Kind::Choices(_) | Kind::Gates | Kind::Set | Kind::List => "other",
        };
        let refused = run(&format!("cairn --{}={other}", flag.name));
        let words = format!("--{} has no effect yet: {reason}", flag.name);
        assert!(refused.contains(&words) && refused.ends_with("exit 1\n"), "{}: {refused}", flag.name);
    }
}
