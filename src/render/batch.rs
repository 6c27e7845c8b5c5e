//! Products of a document that were rendered one after the other.
//!
//! Each is read, edited, written and let go of before the next one: as trees they take three times their bytes, and never are
//! there together. Products know nothing of each other, so that the batches of a large document are made side by side.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use rayon::iter::ParallelIterator as _;
use rayon::slice::ParallelSlice as _;

use crate::render::part::Strip;
use crate::render::policy::{Policy, Retained};
use crate::render::product::{Awaited, Content, Edited, Whence};
use crate::render::{retain, twins};
use crate::simplestreams::fault::Fault;
use crate::simplestreams::outline::Outline;
use crate::simplestreams::products::{Item, Product};
use crate::simplestreams::snapshot::Role;
use crate::simplestreams::tree::Unread;

/// Into how many batches a document is divided: some for each processor of most machines.
const BATCHES: usize = 64;

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
    own: Vec<Own<'t>>,
    /// The JSON of those that are not as they came, one after the other.
    written: Vec<u8>,
    /// How much room that gets, once there is one.
    room: usize,
    /// As they are at the root.
    pub strip: Strip,
    /// What is in them, to be listed.
    pub contents: Vec<Content>,
    /// Images that are listed when they are held.
    pub awaited: Vec<Awaited>,
    /// The places of retained images that need a product of their own.
    pub apart: Vec<usize>,
    /// The names that clients find them by, if some image may need a product of its own.
    pub aliases: BTreeSet<String>,
    /// What was left out, and what is invisible, and why.
    pub faults: Vec<Fault>,
    /// Whether one of them is another than upstream's.
    pub is_changed: bool,
    /// Whether upstream names a file in them that is not listed.
    pub is_incomplete: bool,
}

/// A product as it is under the remote's own name.
#[derive(Debug)]
struct Own<'t> {
    /// Its key.
    name: Cow<'t, str>,
    /// The rest of it.
    json: Json<'t>,
}

/// The JSON of a product.
#[derive(Debug)]
enum Json<'t> {
    /// As upstream has it.
    AsItCame(&'t str),
    /// Where it was written.
    Written(Range<usize>),
}

impl<'t> Press<'_, 't> {
    /// Renders the products of a document, and those of images that need one of their own.
    pub fn render(&self, document: &Outline<'t>) -> Vec<Batch<'t>> {
        let size = document.products.len().div_ceil(BATCHES).max(1);
        let mut batches: Vec<Batch<'t>> = document.products.par_chunks(size).map(|products| self.batch(products)).collect();
        let apart = self.apart(&batches);
        if !apart.is_empty() {
            let apart = self.set_apart(&apart, &batches);
            batches.push(apart);
        }
        batches
    }

    fn batch(&self, products: &[Unread<'t>]) -> Batch<'t> {
        let mut batch = Batch::default();
        if self.remote.is_some() {
            batch.reserve(products.iter().map(|unread| unread.text.len()).sum());
        }
        products.iter().for_each(|unread| self.add(&mut batch, unread));
        batch
    }

    fn add(&self, batch: &mut Batch<'t>, unread: &Unread<'t>) {
        let (product, faults) = unread.read();
        // What others make of their documents is their business.
        let faults = if self.role == Role::Images { faults } else { Vec::new() };
        let is_changed = !faults.is_empty();
        batch.faults.extend(faults);
        batch.is_changed |= is_changed;
        let Some(product) = product else {
            batch.is_incomplete = true;
            return;
        };
        let edited = match self.role {
            Role::Images => Edited::of_images(product, &self.whence, self.policy, self.retained),
            _ => Edited::of_others(product, self.policy),
        };
        batch.add(edited, Some(unread.text).filter(|_| !is_changed), self);
    }

    /// The places of retained images that need a product of their own: there is none of that name, or it cannot take them.
    fn apart(&self, batches: &[Batch<'t>]) -> Vec<usize> {
        if self.retained.is_empty() {
            return Vec::new();
        }
        let known: BTreeSet<&str> = batches.iter().flat_map(|batch| &batch.own).map(|own| &*own.name).collect();
        let has_none = |(retained, _): &(&Retained, Product<'_>)| !known.contains(&*retained.slot.product) && !retained.is_selected;
        let of_none = (0..self.retained.len()).filter(|place| has_none(&self.retained[*place]));
        of_none.chain(batches.iter().flat_map(|batch| batch.apart.iter().copied())).collect()
    }

    /// Lists images that need products of their own.
    fn set_apart(&self, places: &[usize], batches: &[Batch<'t>]) -> Batch<'t> {
        let mut names: BTreeSet<String> = batches.iter().flat_map(|batch| &batch.own).map(|own| own.name.to_string()).collect();
        let aliases: BTreeSet<String> = batches.iter().flat_map(|batch| batch.aliases.iter().cloned()).collect();
        let mut apart = Batch { is_changed: true, ..Batch::default() };
        for place in places {
            let product = retain::set_apart(self.retained[*place].1.clone(), &mut names, &aliases);
            apart.add(Edited::of_excerpt(product), None, self);
        }
        apart
    }
}

impl<'t> Batch<'t> {
    /// The products under the remote's own name: the name and the JSON of each.
    pub fn own(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.own.iter().map(|own| {
            let json = match &own.json {
                Json::AsItCame(text) => text.as_bytes(),
                Json::Written(place) => &self.written[place.clone()],
            };
            (&*own.name, json)
        })
    }

    /// Makes room for products whose JSON is this long at upstream: memory that grows step by step costs more than the writing. Twins
    /// and the root's longer paths make most of them longer by a third.
    fn reserve(&mut self, len: usize) {
        self.room = len + len / 2;
        self.strip.reserve(self.room);
    }

    /// Adds a product. `text` is what upstream has, if that can be taken as it is.
    fn add(&mut self, edited: Edited<'t>, text: Option<&'t str>, press: &Press<'_, 't>) {
        let Edited { product, is_changed, is_incomplete, content, awaited, apart, faults } = edited;
        self.is_changed |= is_changed;
        self.is_incomplete |= is_incomplete;
        self.contents.push(content);
        self.awaited.extend(awaited);
        self.apart.extend(apart);
        self.faults.extend(faults);
        if let Some((product, remote)) = product.zip(press.remote) {
            self.write(product, text.filter(|_| !is_changed), press, remote);
        }
    }

    fn write(&mut self, mut product: Product<'t>, text: Option<&'t str>, press: &Press<'_, 't>, remote: &str) {
        if !press.retained.is_empty() {
            self.aliases.extend(product.aliases());
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
