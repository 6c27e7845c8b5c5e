//! What tests from outside share: an image server that does as it is told, and a mirror of it.

pub mod disk;
pub mod documents;
pub mod faulty;
pub mod large;
pub mod mirror;
pub mod origin;
pub mod power;
pub mod proxy;
pub mod script;
pub mod server;
pub mod stage;
pub mod stream;
