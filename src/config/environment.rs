//! Environment variables that override keys: `CISTERN_SERVER_LISTEN` is `server.listen`.

use toml::{Table, Value};

/// What every name begins with.
const PREFIX: &str = "CISTERN_";

/// A variable and the key that it overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Its name.
    pub variable: String,
    /// The section.
    pub section: String,
    /// The key there.
    pub key: String,
    /// Its text.
    pub text: String,
}

/// The variables that override keys of `defaults`. Others with the prefix are none of ours: Kubernetes makes some.
pub fn overrides(defaults: &Table, variables: impl IntoIterator<Item = (String, String)>) -> Vec<Override> {
    let mut names: Vec<(String, &str, &str)> = Vec::new();
    for (section, keys) in defaults.iter().filter(|(section, _)| *section != "remotes") {
        let keys = keys.as_table().into_iter().flat_map(Table::keys);
        names
            .extend(keys.map(|key| (format!("{PREFIX}{}_{}", section.to_uppercase(), key.to_uppercase()), section.as_str(), key.as_str())));
    }
    let overriding = variables.into_iter().filter_map(|(variable, text)| {
        let (_, section, key) = names.iter().find(|(name, ..)| *name == variable)?;
        Some(Override { section: (*section).to_owned(), key: (*key).to_owned(), variable, text })
    });
    overriding.collect()
}

impl Override {
    /// Puts the value into a file's table. It is read like the default: text as it is, a list at its commas, the rest as
    /// TOML.
    pub fn apply(&self, table: &mut Table, defaults: &Table) {
        let default = defaults.get(&self.section).and_then(|section| section.get(&self.key));
        let section = table.entry(self.section.clone()).or_insert_with(|| Value::Table(Table::new()));
        if let Some(section) = section.as_table_mut() {
            section.insert(self.key.clone(), self.value(default));
        }
    }

    fn value(&self, default: Option<&Value>) -> Value {
        let text = || Value::String(self.text.clone());
        let toml = || toml::from_str::<Table>(&format!("value = {}", self.text)).ok().and_then(|table| table.get("value").cloned());
        match default {
            Some(Value::String(_)) => text(),
            Some(Value::Array(_)) if !self.text.trim_start().starts_with('[') => {
                let items = self.text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
            }
            _ => toml().unwrap_or_else(text),
        }
    }
}
