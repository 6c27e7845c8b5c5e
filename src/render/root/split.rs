//! Makes each product say which of its images have which aliases.
//!
//! A product has one list of aliases for all its images. Where ownership gives its images different ones, it becomes
//! several products: the first keeps its name, and what is part of no image.

use std::collections::{BTreeSet, HashMap};

use crate::render::prune::{Rest, prune};
use crate::render::root::ownership::{Ownership, Spot};
use crate::simplestreams::images::{self, Image};
use crate::simplestreams::products::Product;

/// Splits the product at `spot` as ownership asks for. `names` are those of all products of the document, and get those of
/// the new ones.
pub fn split<'a>(mut product: Product<'a>, spot: Spot, ownership: &Ownership, names: &mut BTreeSet<String>) -> Vec<Product<'a>> {
    let images: Vec<Vec<Image>> = product.versions.iter().map(|version| images::of_version(&product.name, version).0).collect();
    let owned = owned(&product, &images, spot, ownership);
    let is_whole = owned.len() == images.iter().map(Vec::len).sum::<usize>();
    match groups(&owned).as_slice() {
        [] => Vec::new(),
        [aliases] if is_whole => {
            set_aliases(&mut product, aliases);
            vec![product]
        }
        groups => groups
            .iter()
            .enumerate()
            .filter_map(|(number, aliases)| {
                let is_in = |at: usize, image: usize| owned.get(&(at, image)).is_some_and(|other| other == aliases);
                let mut part = part(&product, &images, number, aliases, is_in)?;
                if number > 0 {
                    part.name = free_name(&product.name, number, names).into();
                }
                Some(part)
            })
            .collect(),
    }
}

/// The images that stay here, by version and number, with their aliases. Those that no client sees stay as they are.
fn owned<'o>(product: &Product<'_>, images: &[Vec<Image>], spot: Spot, ownership: &'o Ownership) -> HashMap<(usize, usize), &'o [String]> {
    let mut owned = HashMap::new();
    for (at, version) in product.versions.iter().enumerate() {
        let is_seen = images::serial_date(&version.name).is_ok();
        for number in 0..images[at].len() {
            let aliases = if is_seen { ownership.aliases(Spot { version: at, image: number, ..spot }) } else { Some(&[][..]) };
            owned.extend(aliases.map(|aliases| ((at, number), aliases)));
        }
    }
    owned
}

/// The different lists of aliases, in the order in which they come up.
fn groups<'o>(owned: &HashMap<(usize, usize), &'o [String]>) -> Vec<&'o [String]> {
    let mut places: Vec<_> = owned.keys().collect();
    places.sort_unstable();
    let mut groups: Vec<&[String]> = Vec::new();
    for aliases in places.into_iter().map(|place| owned[place]) {
        if !groups.contains(&aliases) {
            groups.push(aliases);
        }
    }
    groups
}

fn part<'a>(
    product: &Product<'a>,
    images: &[Vec<Image>],
    number: usize,
    aliases: &[String],
    is_in: impl Fn(usize, usize) -> bool,
) -> Option<Product<'a>> {
    let mut part = product.clone();
    let rest = if number == 0 { Rest::Keep } else { Rest::Drop };
    for (at, version) in part.versions.iter_mut().enumerate() {
        let kept = |image: &Image| images[at].iter().position(|other| other == image).is_some_and(|number| is_in(at, number));
        prune(version, &images[at], kept, rest);
    }
    part.versions.retain(|version| !version.items.is_empty());
    set_aliases(&mut part, aliases);
    (!part.versions.is_empty()).then_some(part)
}

fn free_name(product: &str, number: usize, names: &mut BTreeSet<String>) -> String {
    let mut numbered = (number + 1..).map(|number| format!("{product}:{number}"));
    numbered.find(|name| names.insert(name.clone())).expect("a numbered name is free sooner or later")
}

fn set_aliases(product: &mut Product<'_>, aliases: &[String]) {
    if product.aliases() == aliases {
        return;
    }
    if aliases.is_empty() {
        product.fields.remove("aliases");
    } else {
        product.fields.set("aliases", &aliases.join(","));
    }
}
