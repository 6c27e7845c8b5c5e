//! What is wrong with a configuration: where, which key, why, and what may have been meant.

use std::fmt;

/// One thing that is wrong. It is shown as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or `environment variable NAME`.
    pub origin: String,
    /// The line in the file, counted from 1.
    pub line: Option<usize>,
    /// The key with its sections.
    pub key: Option<String>,
    /// What is wrong.
    pub reason: String,
}

impl ConfigError {
    /// Something wrong with a value, of which the line is found later.
    pub fn of_key(key: &str, reason: impl fmt::Display) -> Self {
        Self { origin: String::new(), line: None, key: Some(key.to_owned()), reason: reason.to_string() }
    }
}

/// Where a configuration comes from: a file, and the line of each of its keys.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// What errors call it.
    pub name: String,
    /// Each key with its sections, and its line.
    pub lines: Vec<(String, usize)>,
}

impl Origin {
    /// Says where the key of an error stands, or the nearest section above it.
    pub fn locate(&self, error: ConfigError) -> ConfigError {
        let is_at = |name: &str| error.key.as_deref().is_some_and(|key| key == name || key.starts_with(&format!("{name}.")));
        let line = self.lines.iter().filter(|(name, _)| is_at(name)).max_by_key(|(name, _)| name.len()).map(|(_, line)| *line);
        ConfigError { origin: self.name.clone(), line, ..error }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let origin = Some(format!("{}{line}", self.origin)).filter(|origin| !origin.is_empty());
        let parts: Vec<String> = [origin, self.key.clone(), Some(self.reason.clone())].into_iter().flatten().collect();
        f.write_str(&parts.join(": "))
    }
}
