//! Command lines, environments and configuration files made of any bytes: what fuzz targets call, and the tests
//! that repeat what these have found.

use std::io;
use std::path::Path;

use crate::config::load::{Verdict, World, load};

/// Loads what the lines of `input` say: those before the first that begins with `cairn` are variables, that one
/// is the command line, its arguments separated by single blanks, and what comes after it is the file `c.yml`.
///
/// # Panics
/// If there is neither a configuration nor a word about why not.
pub fn start(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut env = Vec::new();
    let mut rest = &text[..];
    let mut args = vec!["cairn".to_owned()];
    while let Some((line, after)) = rest.split_once('\n').or_else(|| (!rest.is_empty()).then_some((rest, "")))
    {
        rest = after;
        if line.starts_with("cairn") {
            args = line.split(' ').map(str::to_owned).collect();
            break;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        env.push((name.to_owned(), value.to_owned()));
    }
    // As it came: a file need not be text.
    let file = &input[input.len() - rest.len().min(input.len())..];
    let read = |path: &Path| match path.to_str() {
        Some("c.yml") => Ok(file.to_vec()),
        _ => Err(io::Error::from_raw_os_error(2)),
    };
    let loaded = load(&args, &env, &World { read: &read, default_host: &|| Some([10, 0, 0, 7].into()) });
    match loaded.verdict {
        Verdict::Serve(config) => {
            let _ = (config.bootstrap(), config.note());
        }
        Verdict::Stop { stdout, stderr, code } => {
            let silent = stdout.is_empty() && stderr.is_empty() && loaded.notes.is_empty();
            assert!(!silent, "exit {code} without a word");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// What the fuzzer has found worth keeping, see tests/fuzz.
    #[test]
    fn starts_of_the_corpus_are_taken_or_refused() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/start");
        let files = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path());
        assert!(files.map(|file| super::start(&std::fs::read(file).unwrap())).count() > 0);
    }
}
