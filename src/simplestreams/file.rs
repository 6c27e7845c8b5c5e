//! The file that an item names, and what is claimed of it.

use crate::digest::{Claim, Expected};
use crate::http::path::StreamPath;
use crate::simplestreams::fault::Reason;
use crate::simplestreams::object::Object;

/// A file as a document lists it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListedFile {
    /// Where it is, below the top of its server.
    pub path: StreamPath,
    /// What is claimed of its bytes.
    pub expected: Expected,
}

impl ListedFile {
    /// Reads an item. `Ok(None)` if it names no file at all, as the items of `image-ids` do.
    pub fn of_item(fields: &Object<'_>) -> Result<Option<Self>, Reason> {
        let Some(path) = fields.text("path")? else { return Ok(None) };
        let path = StreamPath::from_document(&path).map_err(Reason::Path)?;
        let hash = |name| fields.text_or_none(name);
        let claim = Claim::strongest(hash("sha256").as_deref(), hash("sha512").as_deref(), hash("md5").as_deref());
        let claim = claim.ok_or(Reason::NoHash)?;
        Ok(Some(Self { path, expected: Expected { claim, size: size(fields)? } }))
    }
}

/// The size of an item: a number, or the number that a string holds (some servers write `"size": "123"`).
pub fn size(fields: &Object<'_>) -> Result<Option<u64>, Reason> {
    // The usual case first: it is one of the hottest lines of a refresh.
    if let Some(size) = fields.get("size").and_then(|value| value.get().parse().ok()).filter(|size| is_countable(*size)) {
        return Ok(Some(size));
    }
    let as_text = || fields.text("size").ok().flatten().and_then(|text| text.trim().parse().ok()).filter(|size| is_countable(*size));
    match fields.read::<i64>("size", "a number") {
        Ok(None) => Ok(None),
        Ok(Some(_)) => Err(Reason::WrongType { field: "size".to_owned(), wanted: "a number" }),
        Err(reason) => as_text().map(Some).ok_or(reason),
    }
}

/// Go clients count sizes in 63 bits.
fn is_countable(size: u64) -> bool {
    i64::try_from(size).is_ok()
}

#[cfg(test)]
mod tests {
    use crate::simplestreams::fault::Reason;
    use crate::simplestreams::file::ListedFile;
    use crate::simplestreams::object::Object;

    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";

    fn read(fields: &str) -> Result<Option<ListedFile>, Reason> {
        ListedFile::of_item(&Object::parse(fields).unwrap())
    }

    #[test]
    fn a_file_has_a_path_a_hash_and_perhaps_a_size() {
        let file = read(&format!(r#"{{"path":"a/b","md5":"{MD5}","size":7}}"#)).unwrap().unwrap();
        assert_eq!((file.path.as_str(), file.expected.to_string()), ("a/b", format!("md5-{MD5}-7")));
        let sizeless = read(&format!(r#"{{"path":"a/b","md5":"{MD5}"}}"#)).unwrap().unwrap();
        assert_eq!(sizeless.expected.size, None);
        let text = read(&format!(r#"{{"path":"a/b","md5":"{MD5}","size":"7"}}"#)).unwrap().unwrap();
        assert_eq!(text.expected, file.expected);
    }

    #[test]
    fn an_item_without_a_path_is_no_file_and_one_without_a_hash_cannot_be_checked() {
        assert_eq!(read(r#"{"id":"ami-1"}"#), Ok(None));
        assert_eq!(read(r#"{"path":"a"}"#), Err(Reason::NoHash));
        assert_eq!(read(r#"{"path":"a","md5":"short"}"#), Err(Reason::NoHash));
        assert!(matches!(read(&format!(r#"{{"path":"../a","md5":"{MD5}"}}"#)), Err(Reason::Path(_))));
        assert!(matches!(read(&format!(r#"{{"path":"a","md5":"{MD5}","size":-1}}"#)), Err(Reason::WrongType { .. })));
    }
}
