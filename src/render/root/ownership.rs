//! Who owns which alias and which fingerprint at the root.

use foldhash::{HashMap, HashSet};

use crate::digest::Fingerprint;
use crate::image::ftype::Client;
use crate::render::view::{Class, Seen, View};

/// Where a product or an image stands: counted from 0 in each list. Those of an earlier remote sort before those of a later
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// The remote.
    pub remote: usize,
    /// Its document.
    pub part: usize,
    /// The product there.
    pub product: usize,
    /// The version there; 0 for a product.
    pub version: usize,
    /// The image there; 0 for a product.
    pub image: usize,
}

/// A product at its spot.
type Standing<'a> = (Spot, &'a View);

/// Who owns what.
#[derive(Debug, Default)]
pub struct Ownership {
    /// The products of which not every image has all aliases. There are few: most remotes share nothing.
    touched: HashSet<Spot>,
    /// The images of these that belong where they stand, with their aliases.
    images: HashMap<Spot, Vec<String>>,
}

impl Ownership {
    /// Gives each alias and each fingerprint to the first that has it.
    ///
    /// A remote may lose an image to another one and own an alias whose newest image that is. The alias then goes over
    /// to the place that the image kept: it must not fall back to an older image.
    pub fn settle(products: &[Standing<'_>]) -> Self {
        let owners = Owners::first_come(products);
        if !owners.has_rivals {
            return Self::default();
        }
        let touched: HashSet<Spot> = products.iter().flat_map(|product| owners.touched_by(*product)).collect();
        let kept = owners.images.values().filter(|spot| touched.contains(&spot.of_product()));
        let mut images: HashMap<Spot, Vec<String>> = kept.map(|spot| (*spot, Vec::new())).collect();
        for product in products.iter().filter(|(spot, _)| touched.contains(spot)) {
            for class in product.1.classes() {
                for heir in owners.heirs(*product, class) {
                    let Some(aliases) = images.get_mut(&heir) else { continue };
                    owners.own_aliases(*product, class).for_each(|alias| push_new(aliases, alias));
                }
            }
        }
        Self { touched, images }
    }

    /// Whether anything of a product is to be changed.
    pub fn touches(&self, product: Spot) -> bool {
        self.touched.contains(&product)
    }

    /// The aliases of an image of such a product; `None` if the image belongs to another spot.
    pub fn aliases(&self, spot: Spot) -> Option<&[String]> {
        self.images.get(&spot).map(Vec::as_slice)
    }
}

/// Who came first: for each alias the remote, for each image the spot.
#[derive(Default)]
struct Owners<'a> {
    aliases: HashMap<(&'a str, Class), usize>,
    images: HashMap<(Client, Fingerprint), Spot>,
    /// Whether anybody came later.
    has_rivals: bool,
}

impl<'a> Owners<'a> {
    fn first_come(products: &[Standing<'a>]) -> Self {
        let mut owners = Self::default();
        // A table that grows step by step is written anew as often.
        owners.images.reserve(products.iter().map(|(_, view)| view.images.len()).sum());
        for (spot, view) in products {
            for image in &view.images {
                let own = spot.of_image(image);
                owners.has_rivals |= *owners.images.entry((image.class.client, image.fingerprint)).or_insert(own) != own;
            }
            for class in view.classes() {
                for alias in &view.aliases {
                    owners.has_rivals |= *owners.aliases.entry((alias, class)).or_insert(spot.remote) != spot.remote;
                }
            }
        }
        owners
    }

    /// This product if not all of its images stay with all of its aliases, and those to which its aliases move.
    fn touched_by(&self, product: Standing<'_>) -> Vec<Spot> {
        let (spot, view) = product;
        let is_lost = |image: &Seen| self.keeper(image) != spot.of_image(image);
        let loses_alias = |class| !self.own_aliases(product, class).eq(&view.aliases);
        let classes = view.classes();
        if !view.images.iter().any(is_lost) && !classes.iter().any(|class| loses_alias(*class)) {
            return Vec::new();
        }
        let heirs = classes.iter().filter_map(|class| view.newest(*class)).map(|newest| self.keeper(newest).of_product());
        std::iter::once(spot).chain(heirs).collect()
    }

    /// To whom the aliases of a class go: to all its images, unless the newest has moved away. Then they move there.
    fn heirs(&self, (spot, view): Standing<'_>, class: Class) -> Vec<Spot> {
        let moved = view.newest(class).filter(|newest| self.keeper(newest) != spot.of_image(newest));
        match moved {
            Some(newest) => vec![self.keeper(newest)],
            None => view.of_class(class).map(|image| spot.of_image(image)).collect(),
        }
    }

    /// The aliases that a product has for a class, but for those of remotes before its own.
    fn own_aliases<'p>(&self, (spot, view): Standing<'p>, class: Class) -> impl Iterator<Item = &'p String> {
        view.aliases.iter().filter(move |alias| self.aliases[&(alias.as_str(), class)] == spot.remote)
    }

    /// Where an image stays.
    fn keeper(&self, image: &Seen) -> Spot {
        self.images[&(image.class.client, image.fingerprint)]
    }
}

impl Spot {
    fn of_product(self) -> Self {
        Self { version: 0, image: 0, ..self }
    }

    fn of_image(self, image: &Seen) -> Self {
        Self { version: image.version, image: image.image, ..self }
    }
}

fn push_new(aliases: &mut Vec<String>, alias: &str) {
    if !aliases.iter().any(|other| other == alias) {
        aliases.push(alias.to_owned());
    }
}
