//! Lists for people and for programs.

use serde::Serialize;

use crate::cli::exit::{FAILED, Failure};
use crate::cli::plain::plain;

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// Prints a list: `rows` for a table with these `headers`, `values` for the rest.
pub fn print<T: Serialize>(format: Format, headers: &[&str], rows: &[Vec<String>], values: &T) -> Result<(), Failure> {
    let unprintable = |error: &dyn std::fmt::Display| Failure::new(FAILED, format!("cannot be printed: {error}"));
    match format {
        Format::Table => print!("{}", table(headers, &rows.iter().map(|row| escaped(row)).collect::<Vec<_>>())),
        Format::Json => println!("{}", serde_json::to_string_pretty(values).map_err(|error| unprintable(&error))?),
        Format::Yaml => print!("{}", serde_saphyr::to_string(values).map_err(|error| unprintable(&error))?),
    }
    Ok(())
}

fn escaped(row: &[String]) -> Vec<String> {
    row.iter().map(|cell| plain(cell).into_owned()).collect()
}

/// Columns as wide as their widest cell.
fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain([headers[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(headers.to_vec())).chain(body).collect()
}

/// A size as `lxc` prints it: binary units, two digits.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use crate::cli::table::{size, table};

    #[test]
    fn sizes_are_printed_as_lxc_prints_them() {
        for (bytes, expected) in [(0, "0B"), (1023, "1023B"), (1024, "1.00KiB"), (687_865_856, "656.00MiB"), (u64::MAX, "16384.00PiB")] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["ubuntu".to_owned(), "12".to_owned()], vec!["é".to_owned(), "3".to_owned()]];
        assert_eq!(table(&["NAME", "IMAGES"], &rows), "NAME    IMAGES\nubuntu  12\né       3\n");
    }
}
