//! The command line: what flags there are, what they may hold, and how they are written.
//!
//! One table (`table.rs`) lists every flag of etcd 3.7.1 with its default and its standing here. Parsing,
//! `--help`, the environment, the configuration file and the table in the documentation all follow it, so a
//! flag cannot be known in one place and unknown in another.
//!
//! A flag is in one of three standings. Most are [`Status::Active`]. Some tune parts of etcd that Cairn does
//! not have, or that a single member does not need; they are [`Status::Accepted`], so that a script written
//! for etcd starts Cairn too. The rest promise something that Cairn does not do yet, such as TLS. To take
//! such a flag and not do it would be a lie with consequences, so [`Status::NotYet`] flags are refused unless
//! they are given their default.

pub(crate) mod help;
pub(crate) mod number;
pub(crate) mod parse;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::gates;
use crate::config::url::{self, Url};

pub(crate) use table::{FLAGS, IGNORED};

/// A row of the table.
pub(crate) struct Flag {
    /// The name, without dashes.
    pub name: &'static str,
    /// The heading it stands under in `--help`.
    pub section: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it holds when it is not given, in the spelling of the command line.
    pub default: &'static str,
    /// Whether it does anything.
    pub status: Status,
    /// What it does, in a sentence or two.
    pub help: &'static str,
}

/// What giving a flag brings about.
#[derive(Clone, Copy)]
pub(crate) enum Status {
    /// It does what it says.
    Active,
    /// Any value is taken and none changes anything; the text says why that is right.
    Accepted(&'static str),
    /// Refused unless it holds its default; the text says what is missing.
    NotYet(&'static str),
}

/// What a flag may hold.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Yes or no. The only kind that takes no argument of its own: `--flag`, or `--flag=false`.
    Bool,
    /// Anything.
    Text,
    /// One word out of a few.
    Choice(&'static [&'static str]),
    /// Some words out of a few, separated by commas.
    Choices(&'static [&'static str]),
    /// A whole number that is not negative.
    Unsigned,
    /// A whole number from 0 to 4294967295.
    Unsigned32,
    /// A whole number.
    Signed,
    /// A duration such as `10s` or `1h30m`.
    Duration,
    /// URLs, separated by commas.
    Urls,
    /// URLs, separated by commas, or `*`.
    Origins,
    /// etcd's feature gates, as `name=true,name=false`.
    Gates,
    /// Words, separated by commas; their order and repetition do not matter.
    Set,
    /// Words, separated by commas.
    List,
}

/// What a flag holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Text`], [`Kind::Choice`] and [`Kind::Gates`].
    Text(String),
    /// Of the three kinds of numbers.
    Number(i128),
    /// Of [`Kind::Duration`], in nanoseconds.
    Nanos(i64),
    /// Of [`Kind::Urls`].
    Urls(Vec<Url>),
    /// Of the kinds that hold several words.
    Words(Vec<String>),
}

impl Kind {
    /// Reads a value.
    ///
    /// # Errors
    /// What etcd says about a value that does not fit.
    pub(crate) fn parse(self, text: &str) -> Result<Value, String> {
        let number = |min, max| number::integer(text, min, max).map(Value::Number).map_err(str::to_owned);
        let words = || text.split(',').map(str::to_owned).collect::<Vec<String>>();
        match self {
            Kind::Bool => number::boolean(text).map(Value::Bool).map_err(str::to_owned),
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Choice(valid) if valid.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(_) => Err("invalid value".to_owned()),
            Kind::Choices(valid) => match words().iter().find(|word| !valid.contains(&word.as_str())) {
                Some(wrong) => Err(format!("invalid value {wrong:?}")),
                None => Ok(Value::Words(sorted(words()))),
            },
            Kind::Unsigned => number(0, i128::from(u64::MAX)),
            Kind::Unsigned32 => {
                number::integer(text, 0, i128::from(u32::MAX)).map(Value::Number).map_err(|words| {
                    let words = if words == "parse error" { "invalid syntax" } else { words };
                    format!("strconv.ParseUint: parsing {text:?}: {words}")
                })
            }
            Kind::Signed => number(i128::from(i64::MIN), i128::from(i64::MAX)),
            Kind::Duration => number::duration(text).map(Value::Nanos).map_err(str::to_owned),
            Kind::Urls if text.is_empty() => Ok(Value::Urls(Vec::new())),
            Kind::Urls => Url::parse_list(text).map(Value::Urls),
            Kind::Origins if text == "*" => Ok(Value::Words(vec!["*".to_owned()])),
            Kind::Origins => Url::parse_list(text).map(|urls| Value::Words(url::strings(&urls))),
            Kind::Gates => gates::parse(text).map(|_| Value::Text(text.to_owned())),
            Kind::Set if text.is_empty() => Ok(Value::Words(Vec::new())),
            Kind::Set => Ok(Value::Words(sorted(words()))),
            Kind::List if text.is_empty() => Ok(Value::Words(Vec::new())),
            Kind::List => Ok(Value::Words(words())),
        }
    }

    /// What Go calls the type that etcd keeps such a value in; its messages about the configuration file name
    /// it.
    pub(crate) fn go_type(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Unsigned => "uint",
            Kind::Unsigned32 => "uint32",
            Kind::Signed => "int64",
            Kind::Duration => "time.Duration",
            Kind::Set | Kind::List => "[]string",
            _ => "string",
        }
    }
}

fn sorted(mut words: Vec<String>) -> Vec<String> {
    words.sort();
    words.dedup();
    words
}

impl Flag {
    /// The value the flag holds when it is not given.
    pub(crate) fn default_value(&self) -> Value {
        self.kind.parse(self.default).expect("every default in the table is of its flag's kind")
    }

    /// The variable of the environment that stands for the flag.
    pub(crate) fn variable(&self) -> String {
        variable(self.name)
    }
}

/// The variable of the environment that stands for a flag: `ETCD_DATA_DIR` for `data-dir`.
pub(crate) fn variable(name: &str) -> String {
    format!("ETCD_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// The row of a flag.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// What was given for the flags, from whatever source. Everything else holds its default.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    values: BTreeMap<&'static str, Value>,
}

impl Given {
    /// Gives a flag a value; an earlier one is forgotten.
    ///
    /// As in etcd, giving a list of URLs the empty value leaves the URLs as they were, but counts as given.
    pub(crate) fn set(&mut self, flag: &'static Flag, value: Value) {
        let keep = matches!(&value, Value::Urls(urls) if urls.is_empty());
        let value = if keep { self.value(flag) } else { value };
        self.values.insert(flag.name, value);
    }

    /// Whether the flag was given, be it with its default.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn value(&self, flag: &Flag) -> Value {
        self.values.get(flag.name).cloned().unwrap_or_else(|| flag.default_value())
    }

    /// The flags that hold something other than their default, by name.
    pub(crate) fn unusual(&self) -> impl Iterator<Item = &'static Flag> {
        self.values
            .iter()
            .filter_map(|(name, value)| find(name).filter(|flag| *value != flag.default_value()))
    }
}

/// Typed access by name. Asking for a flag that is not in the table, or for the wrong type, is a mistake in
/// this crate and panics; building any configuration at all asks for every one of them.
impl Given {
    fn get(&self, name: &str) -> Value {
        self.value(find(name).unwrap_or_else(|| panic!("no flag --{name} in the table")))
    }

    /// The value of a yes-or-no flag.
    pub(crate) fn bool(&self, name: &str) -> bool {
        match self.get(name) {
            Value::Bool(value) => value,
            other => panic!("--{name} holds {other:?}"),
        }
    }

    /// The value of a flag that holds text, or one word out of a few.
    pub(crate) fn text(&self, name: &str) -> String {
        match self.get(name) {
            Value::Text(value) => value,
            other => panic!("--{name} holds {other:?}"),
        }
    }

    /// The value of a flag that holds a number.
    pub(crate) fn number(&self, name: &str) -> i128 {
        match self.get(name) {
            Value::Number(value) => value,
            other => panic!("--{name} holds {other:?}"),
        }
    }

    /// The value of a flag that holds a number without a sign.
    pub(crate) fn unsigned(&self, name: &str) -> u64 {
        u64::try_from(self.number(name)).unwrap_or_else(|_| panic!("--{name} is negative"))
    }

    /// The value of a flag that holds a duration.
    ///
    /// # Errors
    /// When it is negative: etcd would take it and behave oddly.
    pub(crate) fn duration(&self, name: &str) -> Result<Duration, String> {
        let Value::Nanos(nanos) = self.get(name) else { panic!("--{name} holds no duration") };
        let negative = || format!("--{name} must be >=0 (set to {})", number::show_duration(nanos));
        u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| negative())
    }

    /// The value of a flag that holds URLs.
    pub(crate) fn urls(&self, name: &str) -> Vec<Url> {
        match self.get(name) {
            Value::Urls(value) => value,
            other => panic!("--{name} holds {other:?}"),
        }
    }

    /// The value of a flag that holds several words.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Value::Words(value) => value,
            other => panic!("--{name} holds {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    /// etcd 3.7.1's flags: section, flag, default.
    const THEIRS: &str = include_str!("../tests/data/flags.tsv");

    #[test]
    fn every_flag_of_etcd_is_known_with_its_default() {
        let mut left: BTreeSet<&str> = FLAGS.iter().map(|flag| flag.name).collect();
        for row in THEIRS.lines().skip(1) {
            let [section, name, default] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let name = name.strip_prefix("--").unwrap();
            let flag = find(name).unwrap_or_else(|| panic!("--{name} is not in the table"));
            assert_eq!(flag.section, section, "--{name}");
            // "0 (100ms)": given as 0, which stands for 100ms.
            let default = default.split(" (").next().unwrap();
            assert_eq!(flag.default, default, "--{name}");
            assert!(left.remove(name), "--{name} is listed twice");
        }
        assert_eq!(left, BTreeSet::from(["config-file", "help", "version"]), "flags etcd does not have");
    }

    #[test]
    fn names_are_unique_and_defaults_are_of_their_kind() {
        let mut seen = BTreeSet::new();
        for flag in FLAGS {
            assert!(seen.insert(flag.name), "--{} is there twice", flag.name);
            flag.default_value();
            assert!(flag.help.ends_with('.'), "the help of --{} is a sentence", flag.name);
        }
    }

    #[test]
    fn a_flag_given_its_default_is_not_unusual() {
        let mut given = Given::default();
        for flag in FLAGS {
            given.set(flag, flag.default_value());
        }
        assert_eq!(given.unusual().count(), 0);
        let flag = find("listen-peer-urls").unwrap();
        given.set(flag, flag.kind.parse("http://127.0.0.1:1").unwrap());
        assert_eq!(given.unusual().map(|flag| flag.name).collect::<Vec<_>>(), ["listen-peer-urls"]);
    }

    #[test]
    fn the_environment_spells_flags_in_capitals() {
        assert_eq!(find("data-dir").unwrap().variable(), "ETCD_DATA_DIR");
    }
}
