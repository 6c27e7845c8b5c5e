//! Products of a document that were rendered one after the other.
//!
//! Each is read, edited, written and let go of before the next one: as trees they take three times their bytes, and never are
//! there together. Products know nothing of each other, so that some batches of a large document are made side by side.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use crate::render::part::Strip;
use crate::render::policy::{Policy, Retained};
use crate::render::product::{Awaited, Content, Edited, Whence};
use crate::render::{retain, twins};
use crate::simplestreams::fault::Fault;
use crate::simplestreams::products::{Item, Product};
use crate::simplestreams::snapshot::Role;
use crate::simplestreams::tree::Unread;

/// How the products of a document are rendered.
#[derive(Clone, Copy, Debug)]
pub struct Press<'p, 't> {
    /// What the document is.
    pub role: Role,
    /// What is to be done with it.
    pub policy: &'t Policy,
    /// Images that may have to be put back.
    pub retained: &'p [(&'t Retained, Product<'t>)],
    /// Where it comes from.
    pub whence: Whence<'p, 't>,
    /// What the remote is called at the root; `None` if the products are listed and nothing else.
    pub remote: Option<&'p str>,
}

/// Products that were rendered.
#[derive(Debug, Default)]
pub struct Batch<'t> {
    /// As they are under the remote's own name.
    pub own: Vec<Own<'t>>,
    /// The JSON of those that are not as they came, one after the other.
    pub written: Vec<u8>,
    /// How much room that gets, once there is one.
    room: usize,
    /// As they are at the root.
    pub strip: Strip,
    /// What is in them, to be listed.
    pub contents: Vec<Content>,
    /// What was found in them.
    pub found: Found,
}

/// What was found in products, beside what is written of them.
#[derive(Debug, Default)]
pub struct Found {
    /// Images that are listed when they are held.
    pub awaited: Vec<Awaited>,
    /// The places of retained images that need a product of their own.
    pub apart: Vec<usize>,
    /// The names that clients find them by, if some image may need a product of its own.
    pub aliases: BTreeSet<String>,
    /// What was left out of them, and what is invisible, and why.
    pub faults: Vec<Fault>,
    /// Whether one of them is another than upstream's.
    pub is_changed: bool,
    /// Whether upstream names a file in them that is not listed.
    pub is_incomplete: bool,
}

/// A product as it is under the remote's own name.
#[derive(Debug)]
pub struct Own<'t> {
    /// Its key.
    pub name: Cow<'t, str>,
    /// The rest of it.
    pub json: Json<'t>,
}

/// The JSON of a product.
#[derive(Debug)]
pub enum Json<'t> {
    /// As upstream has it.
    AsItCame(&'t str),
    /// Where it was written.
    Written(Range<usize>),
}

impl<'t> Press<'_, 't> {
    /// Renders some products.
    pub fn batch(&self, products: &[Unread<'t>]) -> Batch<'t> {
        let mut batch = Batch::default();
        if self.remote.is_some() {
            batch.room = room(products);
            batch.strip.reserve(batch.room);
        }
        products.iter().for_each(|unread| self.add(&mut batch, unread));
        batch
    }

    fn add(&self, batch: &mut Batch<'t>, unread: &Unread<'t>) {
        let (product, faults) = unread.read();
        // What others make of their documents is their business.
        let faults = if self.role == Role::Images { faults } else { Vec::new() };
        let is_changed = !faults.is_empty();
        batch.found.faults.extend(faults);
        batch.found.is_changed |= is_changed;
        let Some(product) = product else {
            batch.found.is_incomplete = true;
            return;
        };
        let edited = match self.role {
            Role::Images => Edited::of_images(product, &self.whence, self.policy, self.retained),
            _ => Edited::of_others(product, self.policy),
        };
        batch.add(edited, Some(unread.text).filter(|_| !is_changed), self);
    }

    /// Renders products of their own for retained images, which stand at these places. `names` are those of all products.
    pub fn set_apart(&self, places: &[usize], mut names: BTreeSet<String>, aliases: &BTreeSet<String>) -> Batch<'t> {
        let mut batch = Batch::default();
        batch.found.is_changed = true;
        for place in places {
            let product = retain::set_apart(self.retained[*place].1.clone(), &mut names, aliases);
            batch.add(Edited::of_excerpt(product), None, self);
        }
        batch
    }
}

impl<'t> Batch<'t> {
    /// Adds a product. `text` is what upstream has, if that can be taken as it is.
    fn add(&mut self, edited: Edited<'t>, text: Option<&'t str>, press: &Press<'_, 't>) {
        let Edited { product, is_changed, is_incomplete, content, awaited, apart, faults } = edited;
        self.contents.push(content);
        let found = &mut self.found;
        found.is_changed |= is_changed;
        found.is_incomplete |= is_incomplete;
        found.awaited.extend(awaited);
        found.apart.extend(apart);
        found.faults.extend(faults);
        if let Some((product, remote)) = product.zip(press.remote) {
            self.write(product, text.filter(|_| !is_changed), press, remote);
        }
    }

    fn write(&mut self, mut product: Product<'t>, text: Option<&'t str>, press: &Press<'_, 't>, remote: &str) {
        if !press.retained.is_empty() {
            self.found.aliases.extend(product.aliases());
        }
        // Where nothing else is changed these are only the root's.
        let has_more = press.role == Role::Images && twins::add_requirements(&mut product);
        self.strip.add(&product, press.role, remote);
        let json = text.filter(|_| !has_more).map_or_else(|| self.write_own(&product), Json::AsItCame);
        self.own.push(Own { name: product.name, json });
    }

    fn write_own(&mut self, product: &Product<'_>) -> Json<'t> {
        if self.written.is_empty() {
            self.written.reserve(self.room);
        }
        let start = self.written.len();
        product.write(&mut self.written, &Item::write);
        Json::Written(start..self.written.len())
    }
}

impl Found {
    /// Adds what was found in other products.
    pub fn append(&mut self, mut next: Self) {
        self.awaited.append(&mut next.awaited);
        self.apart.append(&mut next.apart);
        self.aliases.append(&mut next.aliases);
        self.faults.append(&mut next.faults);
        self.is_changed |= next.is_changed;
        self.is_incomplete |= next.is_incomplete;
    }
}

/// How long the JSON of products is at upstream.
pub fn len(products: &[Unread<'_>]) -> usize {
    products.iter().map(|unread| unread.text.len()).sum()
}

/// Room for the JSON of products: memory that grows step by step costs more than the writing. Twins and the root's longer paths make
/// most of them longer by a third.
pub fn room(products: &[Unread<'_>]) -> usize {
    let len = len(products);
    len + len / 2
}
