//! What documents say of images beside their files, in LXD's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::image::architecture::Architecture;

/// One build of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Of what.
    pub product: Arc<Product>,
    /// Its name.
    pub serial: Arc<str>,
    /// The day that its name begins with.
    pub date: Date,
    /// `label`
    pub label: Arc<str>,
}

/// What is built again and again under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its name.
    pub name: String,
    /// What its images run on.
    pub architecture: Architecture,
    /// The names by which clients find its newest images.
    pub aliases: Vec<String>,
    /// What LXD makes properties of an image, under LXD's names.
    pub properties: BTreeMap<String, String>,
    /// `release_title`, for descriptions.
    pub title: String,
    /// `support_eol`
    pub expires: Option<Date>,
}

impl Version {
    /// When it was made: the beginning of the day that its serial names.
    pub fn created_at(&self) -> Timestamp {
        midnight(self.date)
    }

    /// The properties that LXD gives an image of this version; `kind` is the `ftype` of its root.
    pub fn properties(&self, kind: &str) -> BTreeMap<String, String> {
        let mut properties = self.product.properties.clone();
        let own = [("label", &*self.label), ("serial", &self.serial), ("type", kind), ("description", &self.description())];
        properties.extend(own.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value.to_owned())));
        properties
    }

    fn description(&self) -> String {
        let property = |name| self.product.properties.get(name).map_or("", String::as_str);
        let label = if self.label.is_empty() { String::new() } else { format!("({})", self.label) };
        let serial = format!("({})", self.serial);
        let words = [property("os"), &self.product.title, property("architecture"), &label, &serial];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

impl Product {
    /// When its support ends.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires.map(midnight)
    }
}

/// When a day began.
pub fn midnight(date: Date) -> Timestamp {
    date.to_zoned_datetime(TimeZone::UTC).map_or(Timestamp::UNIX_EPOCH, |midnight| midnight.timestamp())
}
