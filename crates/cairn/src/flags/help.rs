//! What `--help` and `--version` print, and the flags as a table for the documentation.

use std::fmt::Write;

use super::{FLAGS, Kind, Status};

/// The version of etcd whose API, flags and files Cairn implements. Tools read it to tell what they may ask
/// for.
pub(crate) const ETCD_VERSION: &str = "3.7.1";

/// The start of `--help`, and all that a wrong flag gets to see.
pub(crate) const USAGE: &str = "Usage:

  cairn [flags]
    Serve.

  cairn --version
    Print the version.

  cairn -h | --help
    Print all flags.

  cairn --config-file file
    Serve as the YAML file says; other flags and the environment are then ignored.

  cairn snapshot restore | snapshot status | defrag | hashkv | version
    Work on files, as etcdutl does; each has a --help of its own.

  cairn completion bash | zsh | fish
  cairn man
    Print what a shell completes command lines by, or the man page.
";

/// How wide the text of `--help` may be.
const WIDTH: usize = 96;

/// What `--help` prints.
pub(crate) fn full() -> String {
    let mut text = USAGE.to_owned();
    text += "\nA flag can also be given in the environment: ETCD_DATA_DIR for --data-dir.\n\
             Flags marked with * change nothing; flags marked with ! have no effect yet, and are refused\n\
             unless they are given their default.\n";
    let mut section = "";
    for flag in FLAGS.iter().filter(|flag| !flag.section.is_empty()) {
        if flag.section != section {
            section = flag.section;
            let _ = writeln!(text, "\n{section}:");
        }
        let mark = match flag.status {
            Status::Active => "",
            Status::Accepted(_) => " *",
            Status::NotYet(_) => " !",
        };
        let _ = writeln!(text, "  --{} '{}'{mark}", flag.name, flag.default);
        for line in wrap(flag.help, WIDTH - 4) {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// What `--version` prints: etcd's lines first, for the tools that read them.
pub(crate) fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: none\nGo Version: none\nGo OS/Arch: {}/{}\n\
         Cairn Version: {}\n",
        std::env::consts::OS,
        go_arch(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// The name that Go has for the processor.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a flag holds, in a word or two.
pub(crate) fn holds(kind: Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Choice(words) => words.join(" or "),
        Kind::Choices(words) => words.join(", "),
        Kind::Unsigned | Kind::Unsigned32 | Kind::Signed => "number".to_owned(),
        Kind::Duration => "duration".to_owned(),
        Kind::Urls => "URLs".to_owned(),
        Kind::Origins => "URLs or *".to_owned(),
        Kind::Gates => "name=true,…".to_owned(),
        Kind::Set | Kind::List => "words".to_owned(),
    }
}

/// Breaks text into lines of at most `width` characters where it has blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_table_of_the_documentation_is_this_one() {
        crate::golden::file("flags.md", &markdown());
    }

    #[test]
    fn help_names_every_flag_and_fits_the_screen() {
        let help = full();
        for flag in FLAGS.iter().filter(|flag| !flag.section.is_empty()) {
            let line = format!("  --{} '{}'", flag.name, flag.default);
            let found = help.lines().find(|text| text.starts_with(&line)).unwrap();
            assert_eq!(found.ends_with('!'), matches!(flag.status, Status::NotYet(_)), "{found}");
        }
        let long = help.lines().find(|line| line.chars().count() > 128);
        assert_eq!(long, None);
    }

    #[test]
    fn the_first_lines_of_version_are_etcds() {
        let version = version();
        let names: Vec<&str> = version.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(names, ["etcd Version", "Git SHA", "Go Version", "Go OS/Arch", "Cairn Version"]);
        assert!(version.starts_with("etcd Version: 3.7.1\n"));
    }

    /// All flags as a Markdown table.
    fn markdown() -> String {
        let mut text = String::from("| flag | holds | default | standing | what it does |\n");
        text += "| --- | --- | --- | --- | --- |\n";
        for flag in FLAGS {
            let standing = match flag.status {
                Status::Active => "active".to_owned(),
                Status::Accepted(reason) => format!("accepted: {reason}"),
                Status::NotYet(reason) => format!("not yet: {reason}"),
            };
            let default = if flag.default.is_empty() { String::new() } else { format!("`{}`", flag.default) };
            let _ = writeln!(
                text,
                "| `--{}` | {} | {default} | {standing} | {} |",
                flag.name,
                holds(flag.kind),
                flag.help
            );
        }
        text
    }
}
