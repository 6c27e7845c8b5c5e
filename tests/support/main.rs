//! What tests from outside share: an image server that does as it is told, and a mirror of it.

pub mod disk;
pub mod documents;
pub mod large;
pub mod mirror;
pub mod origin;
pub mod power;
pub mod proxy;
pub mod server;
pub mod stream;
