//! The documents of simplestreams: index and products, read into spans of the bytes they came in.
//!
//! A document becomes a tree whose leaves are still raw JSON ([`object::Object`]): unknown fields and their order
//! survive, and nothing is copied until it is changed. A part that makes no sense is left out of the tree with a
//! [`fault::Fault`] that says why; it never takes the rest of the document with it.

pub mod digestible;
pub mod fault;
pub mod file;
pub mod images;
pub mod index;
pub mod inherited;
pub mod object;
pub mod outline;
pub mod products;
pub mod snapshot;
pub mod tree;
pub mod updated;
