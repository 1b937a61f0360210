//! Reads `--config-file`: the flags as keys of a YAML mapping, with the types that etcd's own structures have.
//!
//! The types are stricter than on the command line. Numbers must be numbers, durations are whole nanoseconds,
//! lists of URLs are one string with commas, but `log-outputs` is a YAML list. TLS settings sit in two
//! sections, `client-transport-security` and `peer-transport-security`. Upper and lower case do not matter in
//! keys, a key without a value counts as absent, and a key that means nothing is only worth a warning.

use serde_yaml_ng::{Mapping, Value as Yaml};

use crate::flags::{self, Flag, Given, Kind, Value};
use crate::note::{Level, Note};

/// Flags that the file has no key for, or has one only inside a section.
const NOT_KEYS: [&str; 13] = [
    "config-file",
    "help",
    "version",
    "discovery",
    "discovery-fallback",
    "discovery-proxy",
    "raft-read-timeout",
    "raft-write-timeout",
    "socket-reuse-port",
    "socket-reuse-address",
    "client-crl-file",
    "peer-crl-file",
    "peer-skip-client-san-verification",
];

/// Reads the file's bytes.
///
/// # Errors
/// The file is no YAML, or a value is of the wrong type; in words close to etcd's.
pub(crate) fn read(bytes: &[u8], notes: &mut Vec<Note>) -> Result<Given, String> {
    let file: Yaml = serde_yaml_ng::from_slice(bytes)
        .map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))?;
    let mut given = Given::default();
    let mapping = match file {
        Yaml::Null => return Ok(given),
        Yaml::Mapping(mapping) => mapping,
        other => return Err(wrong_type(&other, "", "embed.configYAML")),
    };
    for (key, value) in entries(&mapping) {
        if matches!(value, Yaml::Null) {
            continue;
        }
        match key.as_str() {
            "client-transport-security" | "peer-transport-security" | "socket-options" => {
                let Yaml::Mapping(section) = value else {
                    return Err(wrong_type(value, &key, "embed.securityConfig"));
                };
                if key == "client-transport-security" && restricts_names(section) {
                    // Passed over, it would let in whom it is to keep out.
                    return Err(format!(
                        "{key}.allowed-cn has no effect yet: Cairn looks at the common names of peers alone. Leave it out"
                    ));
                }
                for (inner, value) in entries(section).filter(|(_, value)| !matches!(value, Yaml::Null)) {
                    match section_flag(&key, &inner) {
                        Some(flag) => set(&mut given, flag, &format!("{key}.{inner}"), value)?,
                        None => notes.push(unknown(&format!("{key}.{inner}"))),
                    }
                }
            }
            "discovery-config" => {
                return Err(
                    "discovery-config has no effect yet: Cairn finds the members of a cluster by initial-cluster \
                     alone. Leave it out"
                        .to_owned(),
                );
            }
            _ => match top_flag(&key) {
                Some(flag) => set(&mut given, flag, &key, value)?,
                None => notes.push(unknown(&key)),
            },
        }
    }
    Ok(given)
}

/// Whether the section has a list of common names.
fn restricts_names(section: &Mapping) -> bool {
    let is_list = |value: &Yaml| value.as_sequence().is_none_or(|names| !names.is_empty());
    entries(section).any(|(key, value)| key == "allowed-cn" && !matches!(value, Yaml::Null) && is_list(value))
}

/// Keys in lower case, with their values. A key that is no string cannot mean anything and is shown as it is.
fn entries(mapping: &Mapping) -> impl Iterator<Item = (String, &Yaml)> {
    mapping.iter().map(|(key, value)| {
        let key = key.as_str().map_or_else(|| format!("{key:?}"), str::to_ascii_lowercase);
        (key, value)
    })
}

fn unknown(key: &str) -> Note {
    Note::new(Level::Warn, "unknown key in the configuration file").text("key", key)
}

/// The flag behind a key of the file itself. Flags of the two sections are none, nor are those of discovery.
fn top_flag(key: &str) -> Option<&'static Flag> {
    let in_a_section = ["client-transport-security", "peer-transport-security"].iter().any(|section| {
        SECTION_KEYS.iter().any(|inner| section_flag(section, inner).is_some_and(|f| f.name == key))
    });
    let discovery = key.starts_with("discovery-") && !key.starts_with("discovery-srv");
    if in_a_section || discovery || NOT_KEYS.contains(&key) {
        return None;
    }
    flags::find(key)
}

/// The keys that the two sections about TLS may have.
const SECTION_KEYS: [&str; 10] = [
    "cert-file",
    "key-file",
    "client-cert-file",
    "client-key-file",
    "client-cert-auth",
    "trusted-ca-file",
    "auto-tls",
    "allowed-cn",
    "allowed-hostname",
    "skip-client-san-verification",
];

/// The flag behind a key of a section.
fn section_flag(section: &str, key: &str) -> Option<&'static Flag> {
    let name = match (section, key) {
        ("socket-options", "reuse-port") => "socket-reuse-port".to_owned(),
        ("socket-options", "reuse-address") => "socket-reuse-address".to_owned(),
        ("client-transport-security", "allowed-hostname") => "client-cert-allowed-hostname".to_owned(),
        ("client-transport-security", "allowed-cn" | "skip-client-san-verification") => return None,
        ("client-transport-security", key) if SECTION_KEYS.contains(&key) => key.to_owned(),
        ("peer-transport-security", "allowed-cn" | "allowed-hostname") => format!("peer-cert-{key}"),
        ("peer-transport-security", key) if SECTION_KEYS.contains(&key) => format!("peer-{key}"),
        _ => return None,
    };
    flags::find(&name)
}

fn set(given: &mut Given, flag: &'static Flag, key: &str, value: &Yaml) -> Result<(), String> {
    let wrong = || wrong_type(value, key, flag.kind.go_type());
    let listed = matches!(flag.kind, Kind::Set | Kind::List) && flag.name != "host-whitelist";
    let value = match (flag.kind, value) {
        (Kind::Bool, Yaml::Bool(value)) => Value::Bool(*value),
        (Kind::Bool, Yaml::String(word)) => Value::Bool(old_bool(word).ok_or_else(wrong)?),
        (Kind::Unsigned | Kind::Unsigned32 | Kind::Signed, Yaml::Number(number)) => {
            Value::Number(integer(flag.kind, number).ok_or_else(wrong)?)
        }
        (Kind::Duration, Yaml::Number(number)) => Value::Nanos(number.as_i64().ok_or_else(wrong)?),
        (_, Yaml::Sequence(items)) if listed => {
            let words = items.iter().map(|item| item.as_str().map(str::to_owned));
            Value::Words(words.collect::<Option<Vec<String>>>().ok_or_else(wrong)?)
        }
        (Kind::Bool | Kind::Unsigned | Kind::Unsigned32 | Kind::Signed | Kind::Duration, _) => {
            return Err(wrong());
        }
        (_, Yaml::String(_)) if listed => return Err(wrong()),
        (Kind::Urls, Yaml::String(text)) if text.is_empty() => return Ok(()),
        // etcd puts its own value in the place of this one, whatever it is.
        (Kind::Choices(_), Yaml::String(_)) => return Ok(()),
        (_, Yaml::String(text)) => flag.kind.parse(text).map_err(|words| match flag.kind {
            Kind::Choice(_) => format!("unexpected clusterState {text:?}"),
            Kind::Urls => format!("unexpected error setting up {key}: {words}"),
            _ => words,
        })?,
        _ => return Err(wrong()),
    };
    given.set(flag, value);
    Ok(())
}

/// Words that an older YAML, which etcd reads, takes for booleans.
fn old_bool(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "y" | "yes" | "on" => Some(true),
        "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn integer(kind: Kind, number: &serde_yaml_ng::Number) -> Option<i128> {
    let value = number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from))?;
    let (min, max) = match kind {
        Kind::Unsigned => (0, i128::from(u64::MAX)),
        Kind::Unsigned32 => (0, i128::from(u32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    (min..=max).contains(&value).then_some(value)
}

fn wrong_type(value: &Yaml, key: &str, wanted: &str) -> String {
    let numeric = wanted.contains("int") || wanted == "time.Duration";
    let found = match value {
        Yaml::Bool(_) => "bool".to_owned(),
        Yaml::Number(number) if numeric => format!("number {number}"),
        Yaml::Number(_) => "number".to_owned(),
        Yaml::String(_) => "string".to_owned(),
        Yaml::Sequence(_) => "array".to_owned(),
        _ => "object".to_owned(),
    };
    let place = if key.is_empty() { "value".to_owned() } else { format!("struct field configYAML.{key}") };
    format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go {place} of type \
         {wanted}"
    )
}
