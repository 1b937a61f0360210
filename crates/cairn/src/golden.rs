//! The runner of the golden files in `tests/golden`. `UPDATE_GOLDEN=1` rewrites them; read the difference
//! before you commit it.

use std::path::PathBuf;

/// Compares a whole file with what it should be.
pub(crate) fn file(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).expect("golden files can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let same = expected.lines().zip(actual.lines()).take_while(|(a, b)| a == b).count();
    assert!(
        expected == actual,
        "{name} differs from line {} on; UPDATE_GOLDEN=1 rewrites it\n{actual}",
        same + 1
    );
}

/// Runs a script: cases separated by blank lines, each of them lines of input, then `---`, then the output.
/// Lines that begin with `#` are comments and belong to the case below them.
pub(crate) fn script(name: &str, run: impl Fn(&str) -> String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = std::fs::read_to_string(&path).expect("the script is there");
    let mut actual = Vec::new();
    for case in text.trim_end().split("\n\n") {
        let (input, _) = case.split_once("\n---").unwrap_or((case, ""));
        let said: String =
            input.lines().filter(|line| !line.starts_with('#')).map(|l| format!("{l}\n")).collect();
        if said.is_empty() {
            actual.push(input.to_owned());
        } else {
            actual.push(format!("{input}\n---\n{}", run(said.trim_end())));
        }
    }
    let actual: Vec<&str> = actual.iter().map(|case| case.trim_end()).collect();
    file(name, &(actual.join("\n\n") + "\n"));
}
