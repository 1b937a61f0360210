//! Runs the scripts in `tests/golden/`: changes and questions, a line `---`, what they come to.
//!
//! `UPDATE_GOLDEN=1 cargo test -p auth` rewrites what is below the lines, to be read in review.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use api::authpb::permission::Type;
use api::authpb::{Permission, Role, User, UserAddOptions};
use api::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest,
};
use auth::{Access, Caller, Error, Loader, Store};
use backend::{Table, TableOp};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use prost::Message;

/// A key in a script: `-` for none, `\0` for the byte zero.
fn key(word: &str) -> Bytes {
    Bytes::from(if word == "-" { String::new() } else { word.replace("\\0", "\0") })
}

fn kind(word: &str) -> i32 {
    match word {
        "read" => Type::Read.into(),
        "write" => Type::Write.into(),
        "readwrite" => Type::Readwrite.into(),
        other => other.parse().unwrap(),
    }
}

fn show_permission(permission: &Permission) -> String {
    let kind = Type::try_from(permission.perm_type).map_or("?", |kind| kind.as_str_name());
    format!(" {kind} [{}, {})", permission.key.escape_ascii(), permission.range_end.escape_ascii())
}

fn show_op(op: &TableOp) -> String {
    let name = op.key.escape_ascii();
    let table = op.table.name();
    let Some(value) = &op.value else { return format!("  {table} {name}: gone") };
    let value = match op.table {
        Table::AuthUsers => {
            let user = User::decode(value.as_ref()).unwrap();
            let kind = if user.options.unwrap().no_password {
                "no password".into()
            } else {
                user.password.escape_ascii().to_string()
            };
            format!("{kind}; {}", user.roles.join(" "))
        }
        Table::AuthRoles => {
            let role = Role::decode(value.as_ref()).unwrap();
            role.key_permission.iter().map(show_permission).collect()
        }
        _ => value.escape_ascii().to_string(),
    };
    format!("  {table} {name}: {}", value.trim())
}

#[derive(Default)]
struct Stage {
    store: Store,
    rows: Vec<TableOp>,
}

impl Stage {
    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let name = |at: usize| if word(at) == "-" { String::new() } else { word(at).to_owned() };
        let present = self.store.revision();
        let caller = |at: usize| {
            let (user, revision) = word(at).split_once('@').unwrap_or((word(at), ""));
            let user = if user == "-" { String::new() } else { user.to_owned() };
            Caller { user, revision: revision.parse().unwrap_or(present) }
        };
        let told = |result: Result<String, Error>| match result {
            Ok(words) => format!("{words}\n"),
            Err(error) => format!("error: {error}\n"),
        };
        let store = &mut self.store;
        let result = match words[0] {
            "enable" => store.enable().map(|is_new| if is_new { "on" } else { "on already" }.into()),
            "disable" => Ok(if store.disable() { "off" } else { "off already" }.into()),
            "add-user" => {
                let options = (word(2) == "no-password").then_some(UserAddOptions { no_password: true });
                let hashed_password = BASE64_STANDARD.encode(word(2));
                let request =
                    AuthUserAddRequest { name: name(1), options, hashed_password, ..Default::default() };
                store.add_user(&request).map(|()| String::new())
            }
            "add-user-with-hash" => {
                let request =
                    AuthUserAddRequest { name: name(1), hashed_password: name(2), ..Default::default() };
                store.add_user(&request).map(|()| String::new())
            }
            "delete-user" => store.delete_user(&name(1)).map(|()| String::new()),
            "change-password" => {
                let hashed_password = BASE64_STANDARD.encode(word(2));
                let request =
                    AuthUserChangePasswordRequest { name: name(1), hashed_password, ..Default::default() };
                store.change_password(&request).map(|()| String::new())
            }
            "grant-role" => store.grant_role(&name(1), &name(2)).map(|()| String::new()),
            "revoke-role" => store.revoke_role(&name(1), &name(2)).map(|()| String::new()),
            "user" => store.user_roles(&name(1)).map(|roles| format!("roles: {}", roles.join(" "))),
            "users" => Ok(format!("users: {}", store.users().join(" "))),
            "add-role" => store.add_role(&name(1)).map(|()| String::new()),
            "delete-role" => store.delete_role(&name(1)).map(|()| String::new()),
            "permit" => {
                let perm =
                    Permission { perm_type: kind(word(2)), key: key(word(3)), range_end: key(word(4)) };
                let request = AuthRoleGrantPermissionRequest { name: name(1), perm: Some(perm) };
                store.grant_permission(&request).map(|()| String::new())
            }
            "permit-nothing" => store
                .grant_permission(&AuthRoleGrantPermissionRequest { name: name(1), perm: None })
                .map(|()| String::new()),
            "forbid" => {
                let request = AuthRoleRevokePermissionRequest {
                    role: name(1),
                    key: key(word(2)),
                    range_end: key(word(3)),
                };
                store.revoke_permission(&request).map(|()| String::new())
            }
            "role" => store
                .role_permissions(&name(1))
                .map(|all| format!("permits:{}", all.iter().map(show_permission).collect::<String>())),
            "roles" => Ok(format!("roles: {}", store.roles().join(" "))),
            "may" => {
                let access = if word(2) == "read" { Access::Read } else { Access::Write };
                let end = if words.len() > 4 { key(word(4)) } else { Bytes::new() };
                store.check(&caller(1), access, &key(word(3)), &end).map(|()| "yes".into())
            }
            "may-rule" => store.check_root(&caller(1)).map(|()| "yes".into()),
            "revision" => Ok(format!("revision {}", store.revision())),
            // Made anew of the rows that it has written.
            "reload" => {
                let mut loader = Loader::default();
                let mut rows = std::collections::BTreeMap::new();
                for op in &self.rows {
                    rows.insert((op.table, op.key.clone()), op.value.clone());
                }
                for ((table, key), value) in rows {
                    if let Some(value) = value {
                        loader.row(table, &key, &value).unwrap();
                    }
                }
                *store = loader.finish();
                Ok("loaded".into())
            }
            other => panic!("no such command: {other}"),
        };
        let ops = self.store.take_ops();
        let mut out = told(result).trim_start_matches('\n').to_owned();
        for op in &ops {
            writeln!(out, "{}", show_op(op)).unwrap();
        }
        self.rows.extend(ops);
        out
    }
}

fn replay(script: &str) -> String {
    let mut stage = Stage::default();
    stage.rows.extend(stage.store.take_ops());
    let (mut out, mut printed, mut below) = (String::new(), String::new(), false);
    for line in script.lines().chain([""]) {
        if line.is_empty() && std::mem::take(&mut below) {
            out += &std::mem::take(&mut printed);
        }
        if below {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        match line {
            "---" => below = true,
            line if line.is_empty() || line.starts_with('#') => {}
            line => line.split(';').for_each(|command| printed += &stage.run(command.trim())),
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
