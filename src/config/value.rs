//! Values as people write them: times, sizes, shares.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time: `"90s"`, `"6h"`, `"10d"`, or several of these in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A time of which a bare integer counts hours, as LXD has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours(pub Duration);

/// A time of which a bare integer counts days, as LXD has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(pub Duration);

/// An amount of bytes: `"200GiB"`, `"5GB"`, or a share of the file system: `"80%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many.
    Bytes(u64),
    /// So many hundredths of the file system.
    Percent(u8),
}

/// An amount of bytes that is no share of anything: `"8MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub u64);

/// A share in percent: `"50%"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub u8);

/// Why a value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no {wanted}")]
pub struct BadValue {
    text: String,
    wanted: &'static str,
}

impl BadValue {
    fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.to_owned(), wanted }
    }
}

const TIME: &str = "time; write a number and a unit, such as \"90s\", \"15m\", \"6h\" or \"10d\"";
const SIZE: &str = "size; write a number and a unit, such as \"512MiB\" or \"200GiB\", or a share of the file system, such as \"80%\"";
const AMOUNT: &str = "size; write a number and a unit, such as \"64KiB\" or \"8MiB\"";
const SHARE: &str = "share; write a number from 0 to 100 and a percent sign, such as \"50%\"";

const TIME_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// Splits off a number and the letters after it.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, rest.trim_start()))
}

fn unit(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units.iter().find(|(unit, _)| *unit == name).map(|(_, factor)| *factor)
}

fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let (number, name, after) = number_and_unit(rest)?;
        millis = millis.checked_add(number.checked_mul(unit(&TIME_UNITS, name)?)?)?;
        rest = after;
    }
    (!text.trim().is_empty()).then(|| Duration::from_millis(millis))
}

fn percent(text: &str) -> Option<u8> {
    text.trim().strip_suffix('%')?.trim_end().parse().ok().filter(|percent| *percent <= 100)
}

impl FromStr for Span {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        duration(text).map(Self).ok_or_else(|| BadValue::new(text, TIME))
    }
}

fn bytes(text: &str) -> Option<u64> {
    let (number, name, rest) = number_and_unit(text.trim())?;
    let bytes = number.checked_mul(unit(&SIZE_UNITS, name)?)?;
    rest.is_empty().then_some(bytes)
}

impl FromStr for Size {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let size = percent(text).map(Self::Percent).or_else(|| bytes(text).map(Self::Bytes));
        size.ok_or_else(|| BadValue::new(text, SIZE))
    }
}

impl FromStr for Amount {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        bytes(text).map(Self).ok_or_else(|| BadValue::new(text, AMOUNT))
    }
}

impl FromStr for Share {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        percent(text).map(Self).ok_or_else(|| BadValue::new(text, SHARE))
    }
}

impl Size {
    /// How many bytes that is, of a file system of `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => total / 100 * u64::from(percent),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let fits = TIME_UNITS.iter().rev().find(|(_, factor)| millis % factor == 0 && millis >= *factor);
        let (unit, factor) = fits.unwrap_or(&("s", 1000));
        write!(f, "{}{unit}", millis / factor)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => {
                let binary = SIZE_UNITS.iter().rev().filter(|(unit, _)| unit.ends_with("iB"));
                let (unit, factor) = binary.copied().find(|(_, factor)| *bytes >= *factor && bytes % factor == 0).unwrap_or(("B", 1));
                write!(f, "{}{unit}", bytes / factor)
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Number(u64),
    Text(String),
}

macro_rules! counted {
    ($($type:ident: $unit:literal, $secs:literal),*) => {$(
        impl $type {
            /// So many.
            pub fn of(count: u64) -> Self {
                Self(Duration::from_secs(count.saturating_mul($secs)))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let wrong = |_| D::Error::custom(format!(concat!("this is no {}, or a bare number of ", $unit), TIME));
                match TextOrNumber::deserialize(deserializer).map_err(wrong)? {
                    TextOrNumber::Number(count) => Ok(Self::of(count)),
                    // The environment has no numbers.
                    TextOrNumber::Text(text) => match text.parse() {
                        Ok(count) => Ok(Self::of(count)),
                        Err(_) => text.parse::<Span>().map(|span| Self(span.0)).map_err(D::Error::custom),
                    },
                }
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&Span(self.0))
            }
        }
    )*};
}

counted!(Hours: "hours", 3_600, Days: "days", 86_400);

macro_rules! as_text {
    ($($type:ty: $wanted:expr),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer).map_err(|_| D::Error::custom(format!("this is no {}", $wanted)))?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

as_text!(Span: TIME, Size: SIZE, Amount: AMOUNT, Share: SHARE);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Size::Bytes(self.0).fmt(f)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::value::{Share, Size, Span};

    #[test]
    fn times_are_read_and_shown() {
        for (text, seconds, shown) in [
            ("90s", 90, "90s"),
            ("6h", 21600, "6h"),
            ("10d", 864_000, "10d"),
            ("1h 30m", 5400, "90m"),
            ("24h", 86400, "1d"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0, span.to_string().as_str()), (Duration::from_secs(seconds), shown), "{text}");
        }
        for text in ["", "6", "h", "6 hours", "-1s", "1.5h", "99999999999999999999s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, size, shown) in [
            ("200GiB", Size::Bytes(200 << 30), "200GiB"),
            ("5 GB", Size::Bytes(5_000_000_000), "5000000000B"),
            ("80%", Size::Percent(80), "80%"),
            ("0B", Size::Bytes(0), "0B"),
        ] {
            let read: Size = text.parse().unwrap();
            assert_eq!((read, read.to_string().as_str()), (size, shown), "{text}");
        }
        for text in ["", "80", "101%", "5 XB", "5GB5", "%", "999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(Size::Percent(5).of(1000), 50);
        assert!("50".parse::<Share>().is_err());
    }
}
