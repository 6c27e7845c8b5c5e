//! What LXD and Incus mean by an image: the kinds of files that make one, and the machines that it runs on.
//!
//! Tables of names, as LXD and Incus have them in `shared/simplestreams` and `shared/osarch`. Which files belong
//! together is read from a document, in `simplestreams`.

pub mod architecture;
pub mod ftype;
pub mod magic;
pub mod metadata;
pub mod version;
