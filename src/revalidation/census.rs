//! Counts what a set of documents has, and refuses a set that is none.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::http::path::StreamPath;
use crate::revalidation::document::{Wanted, read_index, read_products};
use crate::revalidation::refusal::Refusal;
use crate::simplestreams::index::Kind;
use crate::simplestreams::snapshot::{Role, Snapshot};

/// What is compared of a set of documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// When each document says that it was made, if it says so.
    pub updated: BTreeMap<StreamPath, Timestamp>,
    /// How many images each product has.
    pub images: BTreeMap<String, usize>,
    /// How many items each product of a document for others has.
    pub others: BTreeMap<String, usize>,
}

impl Census {
    /// Reads every document of a snapshot that is not signed.
    pub fn of(snapshot: &Snapshot) -> Result<Self, Refusal> {
        let mut census = Self::default();
        for index in snapshot.documents.iter().filter(|source| source.role == Role::Index) {
            let facts = read_index(&index.path, &index.bytes)?;
            census.updated.extend(facts.updated.map(|updated| (index.path.clone(), updated)));
            for wanted in facts.wanted.iter().filter(|wanted| wanted.kind != Kind::Nested) {
                census.count(wanted, snapshot)?;
            }
        }
        Ok(census)
    }

    /// How many images there are.
    pub fn total(&self) -> usize {
        self.images.values().sum()
    }

    fn count(&mut self, wanted: &Wanted, snapshot: &Snapshot) -> Result<(), Refusal> {
        let path = &wanted.path;
        let Some(source) = snapshot.document(path) else {
            return if wanted.kind == Kind::Images { Err(Refusal::Missing { path: path.clone() }) } else { Ok(()) };
        };
        let facts = match read_products(wanted, source) {
            // What others make of their documents is their business.
            Err(_) if wanted.kind == Kind::Other => return Ok(()),
            facts => facts?,
        };
        self.updated.extend(facts.updated.map(|updated| (path.clone(), updated)));
        let counts = if wanted.kind == Kind::Images { &mut self.images } else { &mut self.others };
        for (product, count) in facts.census {
            *counts.entry(product).or_default() += count;
        }
        Ok(())
    }
}
