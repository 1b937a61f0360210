//! Runs the scripts in `tests/golden/`: commands, a line `---`, what they print.
//!
//! `UPDATE_GOLDEN=1 cargo test -p lease` rewrites what is below the lines, to be read in review.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use lease::{Config, Epoch, LeaseId, Lessor, Renewal};

struct Stage {
    config: Config,
    lessor: Lessor,
    /// The reign before this one.
    before: Option<Epoch>,
    now: Duration,
}

impl Stage {
    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<i64>().unwrap();
        let id = |at: usize| LeaseId(number(at));
        let seconds = |at: usize| Duration::from_secs_f64(words[at].parse().unwrap());
        let (lessor, now) = (&mut self.lessor, self.now);
        let ids = |ids: Vec<LeaseId>| ids.iter().map(|id| format!(" {}", id.0)).collect::<String>();
        match words[0] {
            "at" => self.now = seconds(1),
            "revoke-rate" => self.config.revoke_rate = number(1) as usize,
            "grant" => {
                return match lessor.grant(id(1), number(2), now) {
                    Ok(stored) => format!("lease {} granted for {} s", stored.id.0, stored.ttl),
                    Err(error) => format!("error: {error}"),
                };
            }
            "revoke" => {
                return match lessor.revoke(id(1)) {
                    Ok(keys) => {
                        format!("revoked, keys:{}", text(keys.into_sorted().iter().map(AsRef::as_ref)))
                    }
                    Err(error) => format!("error: {error}"),
                };
            }
            "renew" => {
                let epoch = if words.get(2) == Some(&"as-before") { self.before } else { lessor.epoch() };
                let renewed =
                    epoch.map_or(Err(lease::Error::NotPrimary), |epoch| lessor.renew(epoch, id(1), now));
                return match renewed {
                    Ok(Renewal::Renewed(ttl)) => format!("renewed for {ttl} s"),
                    Ok(Renewal::ClearCheckpoint) => "clear the checkpoint first".into(),
                    Err(error) => format!("error: {error}"),
                };
            }
            "ttl" => {
                return match lessor.time_to_live(id(1), now) {
                    Ok(ttl) => format!("{} of {} s left", ttl.remaining, ttl.granted),
                    Err(error) => format!("error: {error}"),
                };
            }
            "put" => {
                let moved = lessor.move_key(words[1].as_bytes(), id(3), id(5));
                return moved.map_or_else(|error| format!("error: {error}"), |()| String::new());
            }
            "keys" => {
                return match lessor.keys(id(1)) {
                    Some(keys) => format!("keys:{}", text(keys.into_iter())),
                    None => "no such lease".into(),
                };
            }
            "expired" => return format!("expired:{}", ids(lessor.expired(now, number(1) as usize))),
            "checkpoints" => {
                let due = lessor.checkpoints_due(now, number(1) as usize);
                let due = due.iter().map(|(id, left)| format!(" {} has {left} s", id.0));
                return format!("due:{}", due.collect::<String>());
            }
            "checkpoint" => {
                lessor.checkpoint(id(1), number(2), now);
            }
            "promote" => {
                self.before = lessor.epoch().or(self.before);
                _ = lessor.promote(seconds(1), now);
            }
            "demote" => {
                self.before = lessor.epoch().or(self.before);
                lessor.demote();
            }
            "page" => {
                let after = words.get(3).map(|key| key.as_bytes());
                let page = lessor.keys_after(id(1), after, number(2) as usize);
                return format!("page:{}", text(page.iter().map(AsRef::as_ref)));
            }
            // The leases of another member's state, with its keys.
            "install" => {
                let mut restored = Lessor::restore(self.config, lessor.stored());
                for lease in lessor.stored() {
                    for key in lessor.keys(lease.id).unwrap() {
                        restored.attach(lease.id, key).unwrap();
                    }
                }
                lessor.replace(restored);
            }
            "restart" => self.lessor = Lessor::restore(self.config, lessor.stored()),
            "list" => return format!("leases:{}", ids(lessor.list())),
            "stored" => {
                let row = |s: &lease::Stored| format!("{}: ttl {} left {}", s.id.0, s.ttl, s.remaining_ttl);
                return lessor.stored().iter().map(row).collect::<Vec<_>>().join("\n");
            }
            other => panic!("no such command: {other}"),
        }
        String::new()
    }
}

fn text<'a>(keys: impl Iterator<Item = &'a [u8]>) -> String {
    keys.map(|key| format!(" {}", String::from_utf8_lossy(key))).collect()
}

fn replay(script: &str) -> String {
    let config = Config::default();
    let mut stage = Stage { config, lessor: Lessor::new(config), before: None, now: Duration::ZERO };
    let (mut out, mut printed, mut below) = (String::new(), String::new(), false);
    for line in script.lines().chain([""]) {
        if line.is_empty() {
            if below {
                out += &printed;
            }
            (below, printed) = (false, String::new());
        }
        if below {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        match line {
            "---" => below = true,
            line if line.is_empty() || line.starts_with('#') => {}
            line => {
                for command in line.split(';') {
                    let output = stage.run(command.trim());
                    if !output.is_empty() {
                        writeln!(printed, "{output}").unwrap();
                    }
                }
            }
        }
    }
    out.trim_end().to_owned() + "\n"
}

#[test]
fn the_scripts_say_what_happens() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        let replayed = replay(&script);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, replayed).unwrap();
        } else {
            assert_eq!(replayed, script, "{}", path.display());
        }
    }
}
