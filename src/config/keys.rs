//! The keys of a configuration file: which there are, and on which line one stands.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::config::error::ConfigError;
use crate::config::file::{File, Remote, Remotes};

/// Keys of interface.md that no code reads yet. They are refused by name, so that nobody relies on them.
const NOT_BUILT: [&str; 3] = ["remotes.*.signature", "remotes.*.keyring", "remotes.*.users"];

/// Below these, every key is the user's own.
const FREE: [&str; 1] = ["remotes.*.headers"];

/// A key that stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// With its sections.
    pub name: String,
    /// The same with `*` for a remote's name.
    general: String,
    /// Where it stands, with its value.
    pub span: Range<usize>,
}

/// All keys of a file that have values, or the reason why it is no TOML.
pub fn of_text(text: &str) -> Result<Vec<Key>, (Range<usize>, String)> {
    let table = DeTable::parse(text).map_err(|error| (error.span().unwrap_or_default(), error.message().to_owned()))?;
    let mut keys = Vec::new();
    collect(table.get_ref(), ("", ""), &mut keys);
    Ok(keys)
}

/// `above` is the section's name, and the same with `*` for a remote's name.
fn collect(table: &DeTable<'_>, above: (&str, &str), keys: &mut Vec<Key>) {
    for (key, value) in table {
        let part = key.get_ref();
        let name = below(above.0, part);
        let general = below(above.1, if above.1 == "remotes" { "*" } else { part });
        match value.get_ref() {
            DeValue::Table(table) if !FREE.contains(&general.as_str()) => {
                keys.push(Key { name: name.clone(), general: general.clone(), span: key.span() });
                collect(table, (&name, &general), keys);
            }
            _ => keys.push(Key { span: key.span().start..value.span().end, name, general }),
        }
    }
}

fn below(above: &str, part: &str) -> String {
    if above.is_empty() { part.to_owned() } else { format!("{above}.{part}") }
}

/// Refuses keys that there are not, with the nearest one that there is.
pub fn check(keys: &[Key]) -> Result<(), (Range<usize>, ConfigError)> {
    let known = known();
    for Key { name, general, span } in keys {
        if NOT_BUILT.contains(&general.as_str()) {
            return Err((span.clone(), ConfigError::of_key(name, "not built yet; leave it out")));
        }
        if !known.contains(general) {
            let nearest = nearest(general, &known);
            return Err((span.clone(), ConfigError::of_key(name, format!("there is no such key; the nearest is {nearest}"))));
        }
    }
    Ok(())
}

/// Every key and section that there is, with `*` for a remote's name.
pub fn known() -> Vec<String> {
    let file = File { remotes: Remotes(vec![("*".to_owned(), Remote::default())]), ..File::default() };
    let table = toml::Table::try_from(file).expect("the defaults can be written as TOML");
    let mut known = Vec::new();
    list(&table, "", &mut known);
    known
}

fn list(table: &toml::Table, above: &str, known: &mut Vec<String>) {
    for (key, value) in table {
        let name = below(above, key);
        known.push(name.clone());
        if let toml::Value::Table(table) = value {
            list(table, &name, known);
        }
    }
}

fn nearest<'a>(name: &str, known: &'a [String]) -> &'a str {
    let distance = |other: &&String| {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        (strsim::damerau_levenshtein(&last(name), &last(other)), strsim::damerau_levenshtein(name, other))
    };
    known.iter().min_by_key(distance).map_or("", String::as_str)
}

/// The line, counted from 1, on which an offset lies.
pub fn line(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}
