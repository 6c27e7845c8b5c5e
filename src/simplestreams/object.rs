//! A JSON object whose values are left as they came.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

use crate::simplestreams::fault::Reason;

/// Fields in their order, each value a span of the document or a value of ours.
#[derive(Clone, Debug, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Object<'a> {
    /// Reads an object out of a document's text.
    pub fn parse(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// An object that takes as many fields as most items have before it grows.
    pub fn with_room() -> Self {
        Self(Vec::with_capacity(5))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends a field as it came.
    pub fn push(&mut self, name: Cow<'a, str>, value: &'a RawValue) {
        self.0.push((name, Cow::Borrowed(value)));
    }

    /// The fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&Cow<'a, str>, &Cow<'a, RawValue>)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The value of a field. The last one wins, as in Go; `null` is as good as absent, as in Go.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| &**value).filter(|value| value.get() != "null")
    }

    /// A field that must be a string, if it is there at all.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'_, str>>, Reason> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // A raw value is valid JSON, so that one in quotes is a string, and one without escapes is its own value.
        match value.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            None => Err(Reason::WrongType { field: name.to_owned(), wanted: "a string" }),
            Some(plain) if !plain.contains('\\') => Ok(Some(Cow::Borrowed(plain))),
            Some(_) => self.read::<String>(name, "a string").map(|text| text.map(Cow::Owned)),
        }
    }

    /// A field that should be a string; one of another type is as good as absent.
    pub fn text_or_none(&self, name: &str) -> Option<Cow<'_, str>> {
        self.text(name).ok().flatten()
    }

    /// A field of the type `T`, if it is there at all; `wanted` names the type, with its article.
    pub fn read<'b, T: Deserialize<'b>>(&'b self, name: &str, wanted: &'static str) -> Result<Option<T>, Reason> {
        let Some(value) = self.get(name) else { return Ok(None) };
        serde_json::from_str(value.get()).map(Some).map_err(|_| Reason::WrongType { field: name.to_owned(), wanted })
    }

    /// Removes fields that come again later; their names.
    pub fn drop_repeated(&mut self) -> Vec<String> {
        let comes_again = |at: usize| self.0[at + 1..].iter().any(|(other, _)| *other == self.0[at].0);
        // Nearly always there is none, and there are very many objects.
        let Some(mut at) = (0..self.0.len()).find(|at| comes_again(*at)) else { return Vec::new() };
        let mut names = Vec::new();
        while at < self.0.len() {
            if self.0[at + 1..].iter().any(|(other, _)| *other == self.0[at].0) {
                names.push(self.0.remove(at).0.into_owned());
            } else {
                at += 1;
            }
        }
        names
    }

    /// Removes a field; whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(key, _)| key != name);
        self.0.len() != before
    }

    /// Gives a field a value, in its old place if it has one.
    pub fn set<T: serde::Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        let value = to_raw_value(value).expect("strings, numbers and raw values always serialize");
        match self.0.iter_mut().rev().find(|(key, _)| key == name) {
            Some(field) => field.1 = Cow::Owned(value),
            None => self.0.push((Cow::Owned(name.to_owned()), Cow::Owned(value))),
        }
    }

    /// This object as JSON.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out, None, |_| {});
        String::from_utf8(out).expect("JSON is written as UTF-8")
    }

    /// Appends this object as JSON. `children` writes a field of its own that stands at its `place`.
    pub fn write(&self, out: &mut Vec<u8>, place: Option<usize>, children: impl FnOnce(&mut Vec<u8>)) {
        self.write_fields(out, place, children, |out, _, value| out.extend_from_slice(value.get().as_bytes()));
    }

    /// Appends this object as JSON, each value as `write_value` has it.
    pub fn write_with(&self, out: &mut Vec<u8>, write_value: impl Fn(&mut Vec<u8>, &str, &RawValue)) {
        self.write_fields(out, None, |_| {}, write_value);
    }

    fn write_fields(
        &self,
        out: &mut Vec<u8>,
        place: Option<usize>,
        children: impl FnOnce(&mut Vec<u8>),
        write_value: impl Fn(&mut Vec<u8>, &str, &RawValue),
    ) {
        let mut children = Some(children).filter(|_| place.is_some());
        let place = place.unwrap_or_default().min(self.0.len());
        out.push(b'{');
        for at in 0..=self.0.len() {
            if at == place
                && let Some(children) = children.take()
            {
                separate(out);
                children(out);
            }
            if let Some((name, value)) = self.0.get(at) {
                separate(out);
                write_name(out, name);
                write_value(out, name, value);
            }
        }
        out.push(b'}');
    }
}

/// Appends a comma, unless an object has just begun.
pub fn separate(out: &mut Vec<u8>) {
    if out.last().is_some_and(|last| *last != b'{') {
        out.push(b',');
    }
}

/// Appends a field's name and its colon.
pub fn write_name(out: &mut Vec<u8>, name: &str) {
    write_text(out, name);
    out.push(b':');
}

/// Appends a string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string always serializes, and a Vec takes it");
}

/// Appends the field `name`: an object of `children`, each written by `write` with its name.
pub fn write_children<T>(out: &mut Vec<u8>, name: &str, children: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    write_name(out, name);
    out.push(b'{');
    for child in children {
        separate(out);
        write(out, child);
    }
    out.push(b'}');
}

/// A string that is borrowed from the document where it has no escapes.
#[derive(serde::Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    fields.push((name, Cow::Borrowed(value)));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use crate::simplestreams::fault::Reason;
    use crate::simplestreams::object::Object;

    fn written(object: &Object<'_>) -> String {
        let mut out = Vec::new();
        object.write(&mut out, None, |_| {});
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn unknown_fields_and_their_order_survive() {
        let text = r#"{"z":1.50,"a":{"b":[1, 2]},"m\u00e9":null}"#;
        assert_eq!(written(&Object::parse(text).unwrap()), r#"{"z":1.50,"a":{"b":[1, 2]},"mé":null}"#);
    }

    #[test]
    fn a_field_is_changed_in_its_place() {
        let mut object = Object::parse(r#"{"a":1,"b":2,"c":3}"#).unwrap();
        object.set("b", "two");
        object.set("d", &4);
        assert!(object.remove("a"));
        assert_eq!(written(&object), r#"{"b":"two","c":3,"d":4}"#);
    }

    #[test]
    fn null_is_absent_and_a_wrong_type_is_named() {
        let object = Object::parse(r#"{"a":null,"b":7,"c":"x"}"#).unwrap();
        assert_eq!(object.text("a"), Ok(None));
        assert_eq!(object.text("b"), Err(Reason::WrongType { field: "b".to_owned(), wanted: "a string" }));
        assert_eq!(object.text("c").unwrap().unwrap(), "x");
        assert_eq!(object.read::<u64>("b", "a number"), Ok(Some(7)));
    }
}
