//! Numbers, booleans and durations as Go writes and reads them.
//!
//! Scripts that start etcd hold values in Go's spelling: `1h30m`, `0x10`, `1_000`, `T`. Errors carry the words
//! that etcd prints for them.

use std::fmt::Write;

/// What etcd says about a value that is not a number, a boolean or a duration at all.
const SYNTAX: &str = "parse error";
/// What etcd says about a number that does not fit.
const RANGE: &str = "value out of range";

/// A signed or unsigned integer: a sign (for signed ones), then decimal digits or one of the prefixes `0x`,
/// `0o`, `0b` and `0`, with underscores between digits where a prefix allows them.
///
/// # Errors
/// The words etcd prints, when `text` is no integer or lies outside `min..=max`.
pub(crate) fn integer(text: &str, min: i128, max: i128) -> Result<i128, &'static str> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') if min < 0 => (true, &text[1..]),
        Some(b'+') if min < 0 => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let body = if radix == 10 { body.to_owned() } else { without_underscores(body)? };
    if body.is_empty() || !body.chars().all(|digit| digit.is_digit(radix)) {
        return Err(SYNTAX);
    }
    let size = i128::from_str_radix(&body, radix).map_err(|_| RANGE)?;
    let value = if negative { -size } else { size };
    if (min..=max).contains(&value) { Ok(value) } else { Err(RANGE) }
}

/// Underscores may stand after the prefix and between digits, one at a time.
fn without_underscores(body: &str) -> Result<String, &'static str> {
    if body.contains("__") || body.ends_with('_') {
        return Err(SYNTAX);
    }
    Ok(body.replace('_', ""))
}

/// A boolean in any of the spellings that Go takes.
///
/// # Errors
/// The words etcd prints for everything else.
pub(crate) fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(SYNTAX),
    }
}

/// A duration such as `300ms`, `-1.5h` or `2h45m`, in nanoseconds. A bare `0` needs no unit.
///
/// # Errors
/// The words etcd prints for everything else.
pub(crate) fn duration(text: &str) -> Result<i64, &'static str> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(SYNTAX);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (nanos, after) = component(rest)?;
        total += nanos;
        if total > i128::from(i64::MAX) {
            return Err(SYNTAX);
        }
        rest = after;
    }
    let total = i64::try_from(total).map_err(|_| SYNTAX)?;
    Ok(if negative { -total } else { total })
}

/// One number with its unit, in nanoseconds, and what follows it.
fn component(text: &str) -> Result<(i128, &str), &'static str> {
    let number_ends = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(SYNTAX)?;
    let (number, rest) = text.split_at(number_ends);
    let unit_ends = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_ends);
    let unit: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(SYNTAX),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && part.is_empty()) || part.contains('.') {
        return Err(SYNTAX);
    }
    let digits = |digits: &str| match digits {
        "" => Ok(0),
        _ => digits.parse::<i128>().map_err(|_| SYNTAX),
    };
    // Eighteen places are finer than a nanosecond of the largest unit.
    let part = &part[..part.len().min(18)];
    let scale = 10_i128.pow(u32::try_from(part.len()).map_err(|_| SYNTAX)?);
    let nanos = digits(whole)?.checked_mul(unit).ok_or(SYNTAX)? + digits(part)? * unit / scale;
    Ok((nanos, rest))
}

/// Nanoseconds in Go's spelling: `1h30m0s`, `1.5s`, `100ms`, `0s`.
pub(crate) fn show_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    if size == 0 {
        return "0s".to_owned();
    }
    if size < 1_000_000_000 {
        let (unit, name) = match size {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{name}", decimal(size, unit));
    }
    let minutes = size / 60_000_000_000;
    let seconds = decimal(size % 60_000_000_000, 1_000_000_000);
    let mut text = sign.to_owned();
    if minutes >= 60 {
        let _ = write!(text, "{}h", minutes / 60);
    }
    if minutes > 0 {
        let _ = write!(text, "{}m", minutes % 60);
    }
    text + &seconds + "s"
}

/// `size / unit` with as many decimal places as it needs.
fn decimal(size: u64, unit: u64) -> String {
    let places = unit.ilog10() as usize;
    let part = format!("{:0places$}", size % unit);
    match part.trim_end_matches('0') {
        "" => format!("{}", size / unit),
        _ if places == 0 => format!("{size}"),
        part => format!("{}.{part}", size / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_in_every_spelling() {
        let unsigned = |text| integer(text, 0, i128::from(u64::MAX));
        let cases = [
            ("0", Ok(0)),
            ("1000", Ok(1000)),
            ("0x10", Ok(16)),
            ("0X1_0", Ok(16)),
            ("0b101", Ok(5)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("18446744073709551615", Ok(i128::from(u64::MAX))),
            ("18446744073709551616", Err(RANGE)),
            ("-1", Err(SYNTAX)),
            ("+1", Err(SYNTAX)),
            ("", Err(SYNTAX)),
            ("0x", Err(SYNTAX)),
            ("08", Err(SYNTAX)),
            ("1_000", Err(SYNTAX)),
            ("1e3", Err(SYNTAX)),
            (" 1", Err(SYNTAX)),
        ];
        for (text, expected) in cases {
            assert_eq!(unsigned(text), expected, "{text:?}");
        }
        assert_eq!(integer("-5", i128::from(i64::MIN), i128::from(i64::MAX)), Ok(-5));
        assert_eq!(integer("+5", i128::from(i64::MIN), i128::from(i64::MAX)), Ok(5));
    }

    #[test]
    fn durations_there_and_back() {
        let cases = [
            ("0", 0, "0s"),
            ("5s", 5_000_000_000, "5s"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("300ms", 300_000_000, "300ms"),
            ("1500ms", 1_500_000_000, "1.5s"),
            ("1.5us", 1_500, "1.5µs"),
            ("7ns", 7, "7ns"),
            (".5s", 500_000_000, "500ms"),
            ("-1m", -60_000_000_000, "-1m0s"),
            ("1m0.05s", 60_050_000_000, "1m0.05s"),
        ];
        for (text, nanos, shown) in cases {
            assert_eq!(duration(text), Ok(nanos), "{text:?}");
            assert_eq!(show_duration(nanos), shown, "{text:?}");
            assert_eq!(duration(shown), Ok(nanos), "{shown:?}");
        }
        for wrong in ["", "5", "s", "-", "5x", "1.2.3s", ".s", "1h5", "99999999999h", "5 s"] {
            assert_eq!(duration(wrong), Err(SYNTAX), "{wrong:?}");
        }
    }
}
