//! Turns upstream's documents into those that hosts get.
//!
//! Pure: equal inputs give equal bytes, and so equal entity tags. Versions, items and aliases are dropped and added;
//! a field that is not understood is never touched. [`remote`] makes what is served under a remote's own name, and
//! [`root`] what is served of all remotes together.

pub mod assembly;
pub mod batch;
pub mod hold_back;
pub mod join;
pub mod own;
pub mod part;
pub mod policy;
pub mod product;
pub mod prune;
pub mod remote;
pub mod retain;
pub mod root;
pub mod sound;
pub mod twins;
pub mod view;
