//! Results, as etcdutl prints them.

use serde_json::json;
use tools::{HashKv, Status};

use super::Refused;

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Simple,
    Fields,
    Json,
    Table,
}

impl Format {
    pub(super) fn parse(text: &str) -> Result<Format, Refused> {
        let refused = |words: &str| Refused { words: words.to_owned(), code: Refused::BAD_FEATURE };
        match text {
            "simple" => Ok(Format::Simple),
            "fields" => Ok(Format::Fields),
            "json" => Ok(Format::Json),
            "table" => Ok(Format::Table),
            "protobuf" => Err(refused("protobuf not supported as output format")),
            _ => Err(refused("unsupported output format")),
        }
    }
}

pub(super) fn status(status: &Status, format: Format) -> String {
    let Status { hash, revision, total_key, total_size, version } = status;
    match format {
        // etcd's order of fields, which a map would not keep.
        Format::Json => format!(
            "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{total_key},\"totalSize\":{total_size},\
             \"version\":{}}}\n",
            json!(version)
        ),
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {total_key}\n\"Size\" : {total_size}\n\
             \"Version\" : {version}\n"
        ),
        Format::Simple | Format::Table => {
            let size = human(*total_size);
            let row =
                [format!("{hash:x}"), revision.to_string(), total_key.to_string(), size, version.clone()];
            rows(format, &["hash", "revision", "total keys", "total size", "version"], &row)
        }
    }
}

pub(super) fn hash_kv(hash: &HashKv, format: Format) -> String {
    let HashKv { hash, compact_revision, revision } = hash;
    match format {
        Format::Json => format!(
            "{{\"hash\":{hash},\"hashRevision\":{revision},\"compactRevision\":{compact_revision}}}\n"
        ),
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Hash revision\" : {revision}\n\"Compact revision\" : {compact_revision}\n"
        ),
        Format::Simple | Format::Table => {
            let row = [hash.to_string(), revision.to_string(), compact_revision.to_string()];
            rows(format, &["hash", "hash revision", "compact revision"], &row)
        }
    }
}

fn rows(format: Format, header: &[&str], row: &[String]) -> String {
    if format == Format::Simple {
        return format!("{}\n", row.join(", "));
    }
    let widths: Vec<usize> =
        header.iter().zip(row).map(|(name, cell)| name.len().max(cell.chars().count())).collect();
    let rule = |left: char, between: &str, right: char| {
        let dashes: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", dashes.join(between))
    };
    let line = |cells: Vec<String>| format!("│ {} │\n", cells.join(" │ "));
    let header = header.iter().zip(&widths).map(|(name, width)| format!("{:^width$}", name.to_uppercase()));
    let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
    let (header, cells) = (line(header.collect()), line(cells.collect()));
    rule('┌', "┬", '┐') + &header + &rule('├', "┼", '┤') + &cells + &rule('└', "┴", '┘')
}

/// Bytes with a decimal unit and two digits at most before it.
pub(super) fn human(bytes: u64) -> String {
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let value = (value * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {}", units[unit]) } else { format!("{value:.0} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_look_like_etcdutls() {
        let found = Status {
            hash: 0x4e0b_76ee,
            revision: 7,
            total_key: 4,
            total_size: 16_384,
            version: "3.7.0".to_owned(),
        };
        let cases = [
            (Format::Simple, "4e0b76ee, 7, 4, 16 kB, 3.7.0\n"),
            (
                Format::Json,
                "{\"hash\":1309374190,\"revision\":7,\"totalKey\":4,\"totalSize\":16384,\"version\":\"3.7.0\"}\n",
            ),
            (
                Format::Fields,
                "\"Hash\" : 1309374190\n\"Revision\" : 7\n\"Keys\" : 4\n\"Size\" : 16384\n\
                 \"Version\" : 3.7.0\n",
            ),
            (
                Format::Table,
                "┌──────────┬──────────┬────────────┬────────────┬─────────┐\n\
                 │   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │\n\
                 ├──────────┼──────────┼────────────┼────────────┼─────────┤\n\
                 │ 4e0b76ee │        7 │          4 │      16 kB │   3.7.0 │\n\
                 └──────────┴──────────┴────────────┴────────────┴─────────┘\n",
            ),
        ];
        for (format, text) in cases {
            assert_eq!(status(&found, format), text, "{format:?}");
        }
        let found = HashKv { hash: 1, compact_revision: -1, revision: 9 };
        assert_eq!(hash_kv(&found, Format::Simple), "1, 9, -1\n");
        let json = "{\"hash\":1,\"hashRevision\":9,\"compactRevision\":-1}\n";
        assert_eq!(hash_kv(&found, Format::Json), json);
        let fields = "\"Hash\" : 1\n\"Hash revision\" : 9\n\"Compact revision\" : -1\n";
        assert_eq!(hash_kv(&found, Format::Fields), fields);
    }

    #[test]
    fn sizes_have_decimal_units() {
        let cases = [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (16_384, "16 kB"),
            (82_854_982, "83 MB"),
            (1_073_741_824, "1.1 GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }
}
