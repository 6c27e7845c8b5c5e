//! What a person decided about one image. It counts whenever the image is held, and outlives the database.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ledger::record::{Owner, Record};

/// A person's decisions about an image; what is `None` was not decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decision {
    /// Whether it was copied on purpose, and stays until a person says otherwise.
    pub kept: bool,
    /// Whether a newer version takes its place.
    pub auto_update: Option<bool>,
    /// When it ends, in milliseconds since 1970; `Some(None)` means never.
    #[serde(with = "twofold", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Option<i64>>,
}

impl Decision {
    /// Makes a record what was decided.
    pub fn apply(&self, record: &mut Record) {
        if self.kept {
            record.owner = Owner::Operator;
            // Its support may end; that is no reason to take it from whoever copied it.
            record.expires_at = None;
        }
        record.auto_update = self.auto_update.unwrap_or(record.auto_update);
        if let Some(expires_at) = self.expires_at {
            record.expires_at = expires_at.and_then(|at| Timestamp::from_millisecond(at).ok());
        }
    }

    /// Whether the image was to end before now.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at.flatten().is_some_and(|at| at < now.as_millisecond())
    }

    /// Whether nothing was decided.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// JSON has one kind of nothing: what stands there is decided, be it `null`.
mod twofold {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::option_option, clippy::ref_option, reason = "nothing was decided, or that it never ends")]
    pub fn serialize<S: Serializer>(value: &Option<Option<i64>>, serializer: S) -> Result<S::Ok, S::Error> {
        value.flatten().serialize(serializer)
    }

    #[expect(clippy::option_option, reason = "nothing was decided, or that it never ends")]
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
        Option::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use crate::ledger::decision::Decision;

    #[test]
    fn nothing_is_decided_until_something_is() {
        assert!(Decision::default().is_empty());
        for decided in [
            Decision { kept: true, ..Decision::default() },
            Decision { auto_update: Some(false), ..Decision::default() },
            Decision { expires_at: Some(None), ..Decision::default() },
        ] {
            assert!(!decided.is_empty(), "{decided:?}");
        }
    }

    #[test]
    fn what_was_not_decided_is_told_from_what_never_ends() {
        for decision in [
            Decision::default(),
            Decision { kept: true, auto_update: Some(false), expires_at: Some(None) },
            Decision { expires_at: Some(Some(5)), ..Decision::default() },
        ] {
            let text = serde_json::to_string(&decision).unwrap();
            assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision, "{text}");
        }
        assert!(serde_json::from_str::<Decision>(r#"{"kpet":true}"#).is_err());
    }
}
