//! Answers on standard output.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, ErrorKind, Write};

/// Prints `text` as it is. A reader that went away (`serval status | head`) is no error.
pub fn text(text: &str) -> io::Result<()> {
    line(text).map(drop)
}

/// The same, and says whether there is still a reader.
pub fn line(line: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}

/// Prints `answer` as JSON.
pub fn json(answer: &impl Serialize) -> io::Result<()> {
    text(&format!("{}\n", serde_json::to_string_pretty(answer)?))
}

/// An empty table with `columns`.
pub fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns);
    table
}

/// `seconds` as people say it: two units at most.
pub fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(size, _)| seconds >= *size).unwrap_or(units.len() - 1);
    let (size, name) = units[first];
    let rest = units.get(first + 1).map(|(size, name)| (seconds % units[first].0 / size, name));
    match rest {
        Some((count, unit)) if count > 0 => format!("{} {name} {count} {unit}", seconds / size),
        _ => format!("{} {name}", seconds / size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (8_999, "2 h 29 min"),
            (86_400, "1 d"),
            (90_000, "1 d 1 h"),
            (86_401, "1 d"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
    }
}
