//! Runs the scripts in `tests/golden`: commands, `---`, and what they print. With `UPDATE_GOLDEN=1` the
//! outputs are rewritten instead of compared.

use std::fs;
use std::path::Path;

use super::script::Script;

#[test]
fn golden_scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let actual = run(&text);
        if update {
            fs::write(&path, actual).unwrap();
        } else {
            assert_eq!(text, actual, "{} (UPDATE_GOLDEN=1 rewrites it)", path.display());
        }
    }
}

/// One script: blocks of commands and output, parted by empty lines. One log lives through all of them.
fn run(text: &str) -> String {
    let mut script = Script::new();
    let mut out = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let (commands, _) = block.split_once("\n---").unwrap_or((block, ""));
        let mut printed = String::new();
        let is_command = |line: &&str| !line.starts_with('#') && !line.is_empty();
        let mut any = false;
        for line in commands.lines().filter(is_command) {
            printed += &script.run(line);
            any = true;
        }
        out.push(if any {
            format!("{commands}\n---\n{printed}").trim_end().to_owned()
        } else {
            commands.to_owned()
        });
    }
    out.join("\n\n") + "\n"
}
