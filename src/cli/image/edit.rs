//! What of an image can be changed, as people write it.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::api::{Image, ImageChange};
use crate::cli::exit::{FAILED, Failure, WRONG_USAGE};
use crate::disk::{Disk as _, OsDisk};

const HELP: &str = "\
### How this image is held. What is not here cannot be changed: it is what the image's files are, or what its remote says.
### expires_at is a day, a time, or never. Only images of 'local' have properties of their own, and can be hidden.
";
/// Nobody writes more than this.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// What can be edited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Editable {
    auto_update: bool,
    expires_at: String,
    public: bool,
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

impl Editable {
    fn of(image: &Image) -> Self {
        Self {
            auto_update: image.auto_update,
            expires_at: image.expires_at.clone().unwrap_or_else(|| "never".to_owned()),
            public: image.public,
            properties: image.properties.clone(),
        }
    }

    /// What is different in `edited`.
    fn change(&self, edited: Self) -> ImageChange {
        let mut properties: BTreeMap<String, Option<String>> =
            self.properties.keys().filter(|key| !edited.properties.contains_key(*key)).map(|key| (key.clone(), None)).collect();
        let changed = edited.properties.into_iter().filter(|(key, value)| self.properties.get(key) != Some(value));
        properties.extend(changed.map(|(key, value)| (key, Some(value))));
        ImageChange {
            auto_update: Some(edited.auto_update).filter(|new| *new != self.auto_update),
            expires_at: Some(edited.expires_at).filter(|new| *new != self.expires_at),
            public: Some(edited.public).filter(|new| *new != self.public),
            properties,
        }
    }
}

/// Reads `KEY=VALUE` as often as it is given.
pub fn of_settings(settings: &[String]) -> Result<ImageChange, Failure> {
    let mut change = ImageChange::default();
    for setting in settings {
        let wrong = |reason: &str| Failure::new(WRONG_USAGE, format!("'{setting}': {reason}"));
        let (key, value) = setting.split_once('=').ok_or_else(|| wrong("write KEY=VALUE"))?;
        let yes_or_no = || value.parse().map_err(|_| wrong("this is true or false"));
        match key {
            "" => return Err(wrong("write KEY=VALUE")),
            "auto_update" => change.auto_update = Some(yes_or_no()?),
            "public" => change.public = Some(yes_or_no()?),
            "expires_at" => change.expires_at = Some(value.to_owned()),
            "fingerprint" | "remote" | "product" | "version" | "type" | "architecture" | "size" | "cached" | "created_at" | "cached_at"
            | "last_used_at" | "use_count" => {
                return Err(wrong("this cannot be set; it is what the image is, or what happened to it"));
            }
            property => drop(change.properties.insert(property.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty()))),
        }
    }
    Ok(change)
}

/// Has an image edited; `None` if nothing was changed.
pub fn edited(image: &Image) -> Result<Option<ImageChange>, Failure> {
    let before = Editable::of(image);
    let text = serde_saphyr::to_string(&before).map_err(|error| Failure::new(FAILED, error))?;
    let text = if std::io::stdin().is_terminal() { in_editor(&format!("{HELP}{text}"))? } else { from_stdin()? };
    let after = serde_saphyr::from_str(&text)
        .map_err(|error| Failure::new(FAILED, format!("this cannot be taken: {}", one_line(&error.to_string()))))?;
    let change = before.change(after);
    Ok(Some(change).filter(|change| *change != ImageChange::default()))
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_TEXT_BYTES).read_to_string(&mut text);
    read.map(|_| text).map_err(|error| Failure::new(FAILED, format!("cannot read standard input: {error}")))
}

fn in_editor(text: &str) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(FAILED, format!("cannot edit: {error}"));
    let mut file = tempfile::Builder::new().prefix("cistern-").suffix(".yaml").tempfile().map_err(|error| failed(&error))?;
    file.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
    let editor = std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR")).unwrap_or_else(|_| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status =
        Command::new(program).args(words).arg(file.path()).status().map_err(|error| failed(&format!("{program}: {error}; set EDITOR")))?;
    if !status.success() {
        return Err(failed(&format!("{program} ended with {status}; nothing was changed")));
    }
    // By its name: many editors put a new file in the place of the old one.
    let edited = OsDisk.open(file.path()).and_then(|file| file.read_all(MAX_TEXT_BYTES)).map_err(|error| failed(&error))?;
    String::from_utf8(edited).map_err(|error| failed(&error))
}
