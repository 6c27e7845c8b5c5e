//! Reads objects in objects in objects, in one pass over their text.
//!
//! A products document is nested four levels deep. Reading it level by level would go over its bytes as often, and that
//! is most of what a refresh costs. What is left unread at first ([`Unread`]) is gone over twice, and need not be there as a tree
//! together with everything else.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use foldhash::HashMap;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::simplestreams::fault::{Fault, Reason};
use crate::simplestreams::object::{Object, Text};

/// How deep a field may be nested. simplestreams needs two levels, and Go gives up at ten thousand.
const MAX_DEPTH: usize = 100;

/// What stands under a name in an object.
pub trait Child<'a>: Sized {
    /// Reads it; `None` if it is no object, which is noted.
    fn read<A: MapAccess<'a>>(name: Cow<'a, str>, entries: &mut A, faults: &mut Vec<Fault>) -> Result<Option<Self>, A::Error>;

    /// Its name.
    fn name(&self) -> &str;
}

/// One level of a document: an object with a name, one field of which may hold the next level.
pub trait Level<'a>: Sized {
    /// The field that holds the children; `None` for a leaf.
    const CHILDREN: Option<&'static str>;
    /// What they are.
    type Child: Child<'a>;

    /// Makes it of what was read.
    fn new(name: Cow<'a, str>, node: Node<'a, Self::Child>) -> Self;

    /// Its name.
    fn name(&self) -> &str;
}

/// What was read of an object.
#[derive(Debug)]
pub struct Node<'a, Child> {
    /// Its fields but for that of the children.
    pub fields: Object<'a>,
    /// Its children, in their order.
    pub children: Vec<Child>,
    /// Where among the fields the children stood; `None` if it has no such field.
    pub place: Option<usize>,
}

/// Reads a document whose field `children` holds the first level.
///
/// A child that is no object is left out, with the reason. It is an error if the text is no JSON, or no object.
pub fn read<'a, C: Child<'a>>(text: &'a str, children: &'static str) -> serde_json::Result<(Node<'a, C>, Vec<Fault>)> {
    let mut faults = Vec::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let read = NodeReader { children: Some(children), faults: &mut faults, child: PhantomData };
    let Found::Object(node) = Lenient(read).deserialize(&mut json)? else {
        return Err(serde_json::Error::custom("it is no object"));
    };
    json.end()?;
    Ok((node, faults))
}

/// What stands where an object should be.
enum Found<T> {
    Object(T),
    Null,
    Other,
}

/// Reads an object entry by entry.
trait ReadObject<'a> {
    type Value;

    fn read<A: MapAccess<'a>>(self, entries: A) -> Result<Self::Value, A::Error>;
}

/// Reads an object, and minds nothing else that may be there.
struct Lenient<R>(R);

impl<'a, R: ReadObject<'a>> DeserializeSeed<'a> for Lenient<R> {
    type Value = Found<R::Value>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a, R: ReadObject<'a>> Visitor<'a> for Lenient<R> {
    type Value = Found<R::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, entries: A) -> Result<Self::Value, A::Error> {
        self.0.read(entries).map(Found::Object)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Found::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Found::Other)
    }
}

/// Reads one object: its fields to spans, and its children level by level.
struct NodeReader<'f, C> {
    children: Option<&'static str>,
    faults: &'f mut Vec<Fault>,
    child: PhantomData<C>,
}

impl<'a, C: Child<'a>> ReadObject<'a> for NodeReader<'_, C> {
    type Value = Node<'a, C>;

    fn read<A: MapAccess<'a>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let fields = if self.children.is_none() { Object::with_room() } else { Object::default() };
        let mut node = Node { fields, children: Vec::new(), place: None };
        while let Some(Text(name)) = entries.next_key()? {
            match self.children.filter(|children| *children == name) {
                None => {
                    let value = entries.next_value::<&'a RawValue>()?;
                    if is_too_deep(value) {
                        self.faults.push(Fault::new(&[], Reason::TooDeep { field: name.into_owned(), limit: MAX_DEPTH }));
                    } else {
                        node.fields.push(name, value);
                    }
                }
                Some(_) => match entries.next_value_seed(Lenient(ChildrenReader { faults: &mut *self.faults, child: PhantomData }))? {
                    Found::Object(children) if node.place.is_none() => {
                        node.children = children;
                        node.place = Some(node.fields.len());
                    }
                    // The same field a second time adds to the first, as in Go.
                    Found::Object(children) => {
                        node.children.extend::<Vec<C>>(children);
                        self.faults.extend(drop_repeated(&mut node.children));
                    }
                    Found::Null => {}
                    Found::Other => self.faults.push(Fault::new(&[], wanted_object(&name))),
                },
            }
        }
        Ok(node)
    }
}

/// Reads the objects of one level.
struct ChildrenReader<'f, C> {
    faults: &'f mut Vec<Fault>,
    child: PhantomData<C>,
}

impl<'a, C: Child<'a>> ReadObject<'a> for ChildrenReader<'_, C> {
    type Value = Vec<C>;

    fn read<A: MapAccess<'a>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut children = Vec::new();
        while let Some(Text(name)) = entries.next_key()? {
            children.extend(C::read(name, &mut entries, self.faults)?);
        }
        self.faults.extend(drop_repeated(&mut children));
        Ok(children)
    }
}

impl<'a, L: Level<'a>> Child<'a> for L {
    fn read<A: MapAccess<'a>>(name: Cow<'a, str>, entries: &mut A, faults: &mut Vec<Fault>) -> Result<Option<Self>, A::Error> {
        let before = faults.len();
        let reader = NodeReader { children: L::CHILDREN, faults: &mut *faults, child: PhantomData };
        let found = entries.next_value_seed(Lenient(reader))?;
        // What is wrong below was noted without the names above.
        faults[before..].iter_mut().for_each(|fault| fault.at.insert(0, name.to_string()));
        match found {
            Found::Object(node) => return Ok(Some(L::new(name, node))),
            Found::Null | Found::Other => faults.push(no_object(&name)),
        }
        Ok(None)
    }

    fn name(&self) -> &str {
        Level::name(self)
    }
}

/// An object that was not read, but to its end.
#[derive(Clone, Debug)]
pub struct Unread<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// The whole of it.
    pub text: &'a str,
}

impl<'a> Unread<'a> {
    /// Reads it, and what is wrong in it; `None` if it cannot be read.
    pub fn read<L: Level<'a>>(&self) -> (Option<L>, Vec<Fault>) {
        let mut faults = Vec::new();
        let mut json = serde_json::Deserializer::from_str(self.text);
        let reader = NodeReader { children: L::CHILDREN, faults: &mut faults, child: PhantomData };
        let Ok(Found::Object(node)) = Lenient(reader).deserialize(&mut json) else {
            // It is an object, but names in it are none.
            return (None, vec![no_object(&self.name)]);
        };
        faults.iter_mut().for_each(|fault| fault.at.insert(0, self.name.to_string()));
        (Some(L::new(self.name.clone(), node)), faults)
    }
}

impl<'a> Child<'a> for Unread<'a> {
    fn read<A: MapAccess<'a>>(name: Cow<'a, str>, entries: &mut A, faults: &mut Vec<Fault>) -> Result<Option<Self>, A::Error> {
        let text = entries.next_value::<&'a RawValue>()?.get();
        if text.starts_with('{') {
            return Ok(Some(Self { name, text }));
        }
        faults.push(no_object(&name));
        Ok(None)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Of two children with one name clients know the last.
fn drop_repeated<'a, C: Child<'a>>(children: &mut Vec<C>) -> Vec<Fault> {
    const FEW: usize = 16;
    let comes_again = |at: usize| children[at + 1..].iter().any(|other| other.name() == children[at].name());
    if children.len() <= FEW && !(0..children.len()).any(comes_again) {
        return Vec::new();
    }
    let mut last: HashMap<String, usize> = HashMap::default();
    last.extend(children.iter().enumerate().map(|(at, child)| (child.name().to_owned(), at)));
    let (mut at, mut faults) = (0, Vec::new());
    children.retain(|child| {
        at += 1;
        let is_last = last.get(child.name()) == Some(&(at - 1));
        faults.extend((!is_last).then(|| Fault::new(&[child.name()], Reason::Repeated)));
        is_last
    });
    faults
}

/// Whether somebody who reads a value level by level would choke on it.
fn is_too_deep(value: &RawValue) -> bool {
    matches!(value.get().as_bytes().first(), Some(b'{' | b'[')) && depth(value.get()) > MAX_DEPTH
}

/// How deep the arrays and objects of a JSON text go.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn no_object(name: &str) -> Fault {
    Fault::new(&[name], wanted_object(name))
}

fn wanted_object(field: &str) -> Reason {
    Reason::WrongType { field: field.to_owned(), wanted: "an object" }
}
