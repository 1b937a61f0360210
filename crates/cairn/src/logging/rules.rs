//! When a log file is full, and how long full ones stay: `--enable-log-rotation` and
//! `--log-rotation-config-json`.

use serde_json::Value;

const MIB: u64 = 1024 * 1024;
/// What a `maxsize` of 0, or none, stands for, in MiB.
const USUAL_SIZE: u64 = 100;

/// What etcd says when there is no file to rotate, or more than one.
const ONE_FILE: &str = "--log-outputs requires a single file path when --log-rotate-config-json is defined";

/// When a log file is full, and what becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How long a file may get, in bytes.
    pub max_bytes: u64,
    /// How many days a full file is kept; none for ever.
    pub max_days: Option<u64>,
    /// How many full files are kept; none for all.
    pub max_files: Option<u64>,
    /// Name full files by the local time rather than UTC.
    pub local_time: bool,
    /// Compress full files.
    pub compress: bool,
}

impl Rules {
    /// The rules that the JSON object asks for, once it is known that there is one file to keep to them.
    ///
    /// # Errors
    /// etcd's words about outputs that are not one file, and about JSON that makes no sense.
    pub(super) fn new(outputs: &[String], json: &str) -> Result<Rules, String> {
        let is_file = |output: &&String| !matches!(output.as_str(), "default" | "stderr" | "stdout");
        let files = outputs.iter().filter(is_file).count();
        if files > 1 || (files == 0 && outputs.len() == 1) {
            return Err(ONE_FILE.to_owned());
        }
        let value: Value = serde_json::from_str(json).map_err(|error| {
            let words =
                if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
            format!("improperly formatted log rotation config: {words}")
        })?;
        Rules::read(&value).map_err(|words| format!("invalid log rotation config: {words}"))
    }

    /// As Go reads the object: the case of names does not matter, unknown names and null mean nothing.
    fn read(value: &Value) -> Result<Rules, String> {
        let mut rules = Rules { max_bytes: USUAL_SIZE * MIB, ..Rules::default() };
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => return Ok(rules),
            other => {
                let what = kind(other);
                return Err(format!(
                    "json: cannot unmarshal {what} into Go value of type embed.logRotationConfig"
                ));
            }
        };
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            match name.to_ascii_lowercase().as_str() {
                "maxsize" => match number("maxsize", value)? {
                    0 => {}
                    // etcd would take it, and then write no line at all.
                    size if size < 0 => return Err("maxsize must not be negative".to_owned()),
                    size => rules.max_bytes = size.unsigned_abs().saturating_mul(MIB),
                },
                "maxage" => rules.max_days = positive(number("maxage", value)?),
                "maxbackups" => rules.max_files = positive(number("maxbackups", value)?),
                "localtime" => rules.local_time = truth("localtime", value)?,
                "compress" => rules.compress = truth("compress", value)?,
                // Its place is taken by --log-outputs.
                "filename" if !value.is_string() => return Err(unfit("filename", kind(value), "string")),
                _ => {}
            }
        }
        Ok(rules)
    }
}

/// A limit; what is not above 0 is none.
fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

fn number(name: &str, value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| match value {
        Value::Number(number) => unfit(name, &format!("number {number}"), "int"),
        other => unfit(name, kind(other), "int"),
    })
}

fn truth(name: &str, value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| unfit(name, kind(value), "bool"))
}

fn unfit(name: &str, what: &str, wanted: &str) -> String {
    format!(
        "json: cannot unmarshal {what} into Go struct field logRotationConfig.Logger.{name} of type {wanted}"
    )
}

/// What Go calls the kind of a JSON value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn new(outputs: &str, json: &str) -> Result<Rules, String> {
        let outputs: Vec<String> = outputs.split(',').map(str::to_owned).collect();
        Rules::new(&outputs, json)
    }

    #[test]
    fn etcds_default_and_an_empty_object_mean_the_same() {
        let usual = crate::flags::find("log-rotation-config-json").unwrap().default;
        let expected = Rules { max_bytes: 100 * MIB, ..Rules::default() };
        for json in [usual, "{}", "null", "{\"maxsize\": null, \"other\": [1]}", "{\"maxage\": -1}"] {
            assert_eq!(new("a.log", json).as_ref(), Ok(&expected), "{json}");
        }
    }

    #[test]
    fn every_rule_is_read_whatever_the_case_of_its_name() {
        let json = r#"{"MaxSize": 1, "maxAge": 2, "maxbackups": 3, "localtime": true, "COMPRESS": true, "filename": "x"}"#;
        let expected =
            Rules { max_bytes: MIB, max_days: Some(2), max_files: Some(3), local_time: true, compress: true };
        assert_eq!(new("a.log", json), Ok(expected));
    }

    #[test]
    fn there_must_be_one_file() {
        for outputs in ["a.log", "/a/b.log", "a.log,stderr", "stderr,stdout"] {
            assert!(new(outputs, "{}").is_ok(), "{outputs}");
        }
        for outputs in ["default", "stderr", "stdout", "a.log,b.log", "a.log,b.log,stderr"] {
            assert_eq!(new(outputs, "{}"), Err(ONE_FILE.to_owned()), "{outputs}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_etcds_words() {
        let unfit = |words: &str| format!("invalid log rotation config: json: cannot unmarshal {words}");
        let cases = [
            (
                r#"{"maxsize": true}"#,
                unfit("bool into Go struct field logRotationConfig.Logger.maxsize of type int"),
            ),
            (
                r#"{"maxage": 1.5}"#,
                unfit("number 1.5 into Go struct field logRotationConfig.Logger.maxage of type int"),
            ),
            (
                r#"{"maxbackups": "3"}"#,
                unfit("string into Go struct field logRotationConfig.Logger.maxbackups of type int"),
            ),
            (
                r#"{"localtime": 1}"#,
                unfit("number into Go struct field logRotationConfig.Logger.localtime of type bool"),
            ),
            (
                r#"{"filename": {}}"#,
                unfit("object into Go struct field logRotationConfig.Logger.filename of type string"),
            ),
            ("[]", unfit("array into Go value of type embed.logRotationConfig")),
            (
                "{\"maxsize\": 1",
                "improperly formatted log rotation config: unexpected end of JSON input".to_owned(),
            ),
            ("", "improperly formatted log rotation config: unexpected end of JSON input".to_owned()),
            ("{\"maxsize\": -1}", "invalid log rotation config: maxsize must not be negative".to_owned()),
        ];
        for (json, words) in cases {
            assert_eq!(new("a.log", json), Err(words), "{json}");
        }
        let broken = new("a.log", "{maxsize").unwrap_err();
        assert!(broken.starts_with("improperly formatted log rotation config: "), "{broken}");
    }
}
