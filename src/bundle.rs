//! Bundles: what crosses an air gap on a disk (design.md §7).
//!
//! On the connected side [`choosing`] says which images a selection means, [`holding`] brings them in, [`rendering`] makes
//! documents that list them and nothing else, [`split`] spreads files over volumes; [`plan`] names and signs it, and the command
//! fetches file by file. [`inspection`] reads a bundle without a server.
//!
//! At a site [`import`] takes them in: [`offer`] says whether one may come and what is wanted of it, an [`arrival`] is one on its way, its
//! [`outlook`] what would become of each remote; [`joining`] makes what is listed then, and [`belonging`] has it held for that.
//! [`stocktaking`] says what is there, for the next bundle.

pub mod arrival;
pub mod belonging;
pub mod choosing;
pub mod error;
pub mod export;
pub mod holding;
pub mod import;
pub mod inspection;
pub mod joining;
pub mod offer;
pub mod outcome;
pub mod outlook;
pub mod plan;
pub mod rendering;
pub mod selections;
pub mod split;
pub mod stocktaking;
pub mod volume;
