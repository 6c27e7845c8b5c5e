//! Whether documents that upstream sends may take the place of those that we have.
//!
//! Decided from the bytes alone: [`document`] reads one document and refuses what is none; [`verdict`] compares a whole
//! set with the one before. What is refused changes nothing: the old set goes on being served.

pub mod census;
pub mod document;
pub mod refusal;
pub mod retirement;
pub mod schedule;
pub mod verdict;
