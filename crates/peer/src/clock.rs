//! Moments as the probes write them: RFC 3339, as Go's `time.Time` in JSON.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, now.
pub(crate) fn now() -> i128 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

const NANOS: i128 = 1_000_000_000;
const DAY: i128 = 86_400;

/// As text, in UTC.
pub(crate) fn format(nanos: i128) -> String {
    let (seconds, fraction) = (nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, date) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

/// Out of a text with any offset from UTC.
pub(crate) fn parse(text: &str) -> Option<i128> {
    let number = |range: std::ops::Range<usize>| -> Option<i128> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let signs = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')];
    signs.iter().all(|&(at, sign)| text.get(at..at + 1) == Some(&sign.to_string())).then_some(())?;
    let (year, month, date) = (number(0..4)?, number(5..7)?, number(8..10)?);
    ((1..=12).contains(&month) && (1..=31).contains(&date)).then_some(())?;
    let second = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let mut rest = text.get(19..)?;
    let mut fraction = 0;
    if let Some(after) = rest.strip_prefix('.') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        (1..=9).contains(&digits).then_some(())?;
        fraction = after[..digits].parse::<i128>().ok()? * 10i128.pow(9 - digits as u32);
        rest = &after[digits..];
    }
    let offset = match rest.split_at_checked(1)? {
        ("Z", "") => 0,
        (sign @ ("+" | "-"), zone) => {
            let (hour, minute) = zone.split_once(':')?;
            let seconds = hour.parse::<u8>().ok()? as i128 * 3600 + minute.parse::<u8>().ok()? as i128 * 60;
            if sign == "+" { seconds } else { -seconds }
        }
        _ => return None,
    };
    Some((days(year, month, date) * DAY + second - offset) * NANOS + fraction)
}

/// Days since 1970 of a date; years are counted from March, so that leap days come last.
fn days(year: i128, month: i128, date: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day = (153 * ((month + 9) % 12) + 2) / 5 + date - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day - 719_468
}

/// The date of a day since 1970.
fn civil(day: i128) -> (i128, i128, i128) {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i128::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_and_read_alike() {
        assert_eq!(format(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(format(1_709_208_000 * NANOS + 5), "2024-02-29T12:00:00.000000005Z");
        for day in (-200_000..200_000).step_by(37) {
            let moment = (day * DAY + 12_345) * NANOS + 678;
            assert_eq!(parse(&format(moment)), Some(moment), "{}", format(moment));
        }
    }

    #[test]
    fn offsets_and_short_fractions_are_understood() {
        let moment = Some(1_709_208_000 * NANOS + 500_000_000);
        assert_eq!(parse("2024-02-29T12:00:00.5Z"), moment);
        assert_eq!(parse("2024-02-29T14:30:00.5+02:30"), moment);
        assert_eq!(parse("2024-02-29T05:00:00.5-07:00"), moment);
        assert_eq!(parse("2024-02-29T12:00:00Z"), Some(1_709_208_000 * NANOS));
        for odd in
            ["", "now", "2024-02-29", "2024-02-29T12:00:00", "2024-13-01T00:00:00Z", "é024-02-29T12:00:00Z"]
        {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
