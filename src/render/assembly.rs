//! A document that is put together of batches of its products.
//!
//! It is written twice: as it stands under the remote's own name, and as the root takes it; and what is in it is listed. All that is
//! done while the next batches are made, and what a batch was written into is let go of: a refresh needs little memory beside
//! what comes of it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use rayon::iter::ParallelIterator as _;
use rayon::slice::ParallelSlice as _;

use crate::catalog::listing::Listing;
use crate::render::batch::{Batch, Found, Json, Own, Press, len, room};
use crate::render::part::{Sheet, UnfinishedSheet};
use crate::render::policy::Retained;
use crate::render::product::Content;
use crate::simplestreams::outline::{Outline, Unfinished};

/// Into how many batches a document is divided.
const BATCHES: usize = 64;
/// How many of them are made side by side at least: more where there are many processors.
const AT_ONCE: usize = 8;

/// The products of a document, as far as they were rendered.
#[derive(Debug)]
pub struct Assembly<'d, 't> {
    outline: &'d Outline<'t>,
    /// For how many bytes each document gets room.
    room: usize,
    /// The keys of its products under the remote's own name.
    pub names: Vec<Cow<'t, str>>,
    /// The rest of each, for as long as all of them are upstream's: the document may go out as it came.
    texts: Vec<&'t str>,
    /// The document under the remote's own name, once one of them is not.
    own: Option<Unfinished>,
    sheet: UnfinishedSheet,
    /// What was found in them.
    pub found: Found,
}

impl<'d, 't> Assembly<'d, 't> {
    /// Renders the products of a document, and those of images that need one of their own, and lists what is in them.
    pub fn of(outline: &'d Outline<'t>, press: &Press<'_, 't>, listing: &mut Listing) -> Self {
        let mut assembly = Self::new(outline, press);
        let size = outline.products.len().div_ceil(BATCHES).max(1);
        let mut left = len(&outline.products);
        let mut ready = Vec::new();
        let at_once = AT_ONCE.max(2 * rayon::current_num_threads());
        for products in outline.products.chunks(size * at_once) {
            let render = || products.par_chunks(size).map(|products| press.batch(products)).collect();
            let (next, ()) = rayon::join(render, || ready.drain(..).for_each(|batch| assembly.add(batch, listing)));
            ready = next;
            // As many in what is left as in as much of this.
            let round = len(products);
            Content::reserve(ready.iter().flat_map(|batch| &batch.contents), left.div_ceil(round.max(1)), listing);
            left -= round;
        }
        ready.into_iter().for_each(|batch| assembly.add(batch, listing));
        assembly.set_apart(press, listing);
        assembly
    }

    fn new(outline: &'d Outline<'t>, press: &Press<'_, 't>) -> Self {
        // Of a document that is listed and nothing else nothing is written.
        let room = press.remote.map_or(0, |_| room(&outline.products));
        let sheet = UnfinishedSheet::new(&outline.fields, outline.place, room);
        Self { outline, room, names: Vec::new(), texts: Vec::new(), own: None, sheet, found: Found::default() }
    }

    fn add(&mut self, batch: Batch<'t>, listing: &mut Listing) {
        let Batch { own, written, strip, contents, found, .. } = batch;
        for Own { name, json } in own {
            match json {
                Json::AsItCame(text) => self.add_as_it_came(&name, text),
                Json::Written(place) => self.written().add(&name, &written[place]),
            }
            self.names.push(name);
        }
        self.sheet.add(strip);
        Content::list(contents, listing);
        self.found.append(found);
    }

    fn add_as_it_came(&mut self, name: &str, text: &'t str) {
        match &mut self.own {
            None => self.texts.push(text),
            Some(document) => document.add(name, text.as_bytes()),
        }
    }

    /// Adds products for retained images that need one of their own: there is none of that name, or it cannot take them.
    fn set_apart(&mut self, press: &Press<'_, 't>, listing: &mut Listing) {
        if press.retained.is_empty() {
            return;
        }
        let names: BTreeSet<String> = self.names.iter().map(ToString::to_string).collect();
        let has_none = |retained: &Retained| !names.contains(&*retained.slot.product) && !retained.is_selected;
        let of_none = (0..press.retained.len()).filter(|place| has_none(press.retained[*place].0));
        let places: Vec<usize> = of_none.chain(self.found.apart.iter().copied()).collect();
        if !places.is_empty() {
            let batch = press.set_apart(&places, names, &self.found.aliases);
            self.add(batch, listing);
        }
    }

    /// What hosts get under the remote's own name, unless that is what came, and what the root takes.
    pub fn finish(mut self, is_changed: bool) -> (Option<Vec<u8>>, Sheet) {
        if is_changed {
            self.written();
        }
        (self.own.filter(|_| is_changed).map(Unfinished::finish), self.sheet.finish())
    }

    /// The document with all products so far.
    fn written(&mut self) -> &mut Unfinished {
        let Self { outline, room, names, texts, own, .. } = self;
        own.get_or_insert_with(|| {
            let mut document = Unfinished::new(&outline.fields, outline.place, *room);
            names.iter().zip(texts).for_each(|(name, text)| document.add(name, text.as_bytes()));
            document
        })
    }
}
