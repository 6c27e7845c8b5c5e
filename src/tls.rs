//! Certificates: those of the operator, or our own CA and what it signs.
//!
//! Hosts pin what they are given, so they are only ever given the CA, which lasts ten years and survives renewals.

pub mod authority;
pub mod config;
pub mod names;
