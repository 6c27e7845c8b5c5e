//! `metadata.yaml`, which every image has (LXD's image format).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::image::architecture::Architecture;

/// What an image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it runs on.
    pub architecture: Architecture,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, if it does.
    pub expires_at: Option<Timestamp>,
    /// Its properties.
    pub properties: BTreeMap<String, String>,
}

/// Why a `metadata.yaml` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMetadata {
    /// It is no YAML, or has values of other kinds.
    #[error("metadata.yaml cannot be read: {0}")]
    Unreadable(String),
    /// It does not say what the image runs on.
    #[error("metadata.yaml has no {0}, and every image needs one")]
    Missing(&'static str),
    /// Nobody knows such machines.
    #[error("metadata.yaml has the architecture '{0}', which neither LXD nor Incus knows")]
    Architecture(String),
    /// A time that is none.
    #[error("metadata.yaml has a {0} that is no time")]
    Time(&'static str),
}

#[derive(Deserialize)]
struct Yaml {
    architecture: Option<String>,
    creation_date: Option<i64>,
    expiry_date: Option<i64>,
    #[serde(default)]
    properties: BTreeMap<String, Scalar>,
}

/// Properties are strings, and people leave the quotes away.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(i64),
    Float(f64),
    Flag(bool),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

impl Metadata {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, BadMetadata> {
        let first_line = |error: &dyn std::fmt::Display| error.to_string().lines().next().unwrap_or_default().to_owned();
        let yaml: Yaml = serde_saphyr::from_str(text).map_err(|error| BadMetadata::Unreadable(first_line(&error)))?;
        let architecture = yaml.architecture.filter(|name| !name.is_empty()).ok_or(BadMetadata::Missing("architecture"))?;
        let time = |name, seconds: i64| Timestamp::from_second(seconds).map_err(|_| BadMetadata::Time(name));
        Ok(Self {
            architecture: Architecture::parse(&architecture).ok_or(BadMetadata::Architecture(architecture))?,
            created_at: time("creation_date", yaml.creation_date.ok_or(BadMetadata::Missing("creation_date"))?)?,
            expires_at: yaml.expiry_date.filter(|seconds| *seconds > 0).map(|seconds| time("expiry_date", seconds)).transpose()?,
            properties: yaml.properties.into_iter().map(|(name, value)| (name, value.into_text())).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::image::metadata::{BadMetadata, Metadata};

    #[test]
    fn what_an_image_says_of_itself_is_read() {
        let text = "architecture: amd64\ncreation_date: 1767225600\nexpiry_date: 1798761600\nproperties:\n  os: Alpine\n  release: 3.20\n  requirements.secureboot: false\ntemplates: {}\n";
        let metadata = Metadata::parse(text).unwrap();
        assert_eq!(
            (metadata.architecture.to_string(), metadata.created_at.to_string()),
            ("x86_64".to_owned(), "2026-01-01T00:00:00Z".to_owned())
        );
        assert_eq!(metadata.expires_at.unwrap().to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(metadata.properties["requirements.secureboot"], "false");
    }

    #[test]
    fn what_every_image_needs_is_missed_by_name() {
        assert_eq!(Metadata::parse("creation_date: 1"), Err(BadMetadata::Missing("architecture")));
        assert_eq!(Metadata::parse("architecture: x86_64"), Err(BadMetadata::Missing("creation_date")));
        assert_eq!(Metadata::parse("architecture: pdp11\ncreation_date: 1"), Err(BadMetadata::Architecture("pdp11".to_owned())));
        assert_eq!(Metadata::parse("architecture: x86_64\ncreation_date: 9999999999999999"), Err(BadMetadata::Time("creation_date")));
        assert!(matches!(Metadata::parse("[1, 2"), Err(BadMetadata::Unreadable(_))));
    }
}
