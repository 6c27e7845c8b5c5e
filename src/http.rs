//! The parts of HTTP that are pure: paths, ranges, conditions, codings.
//!
//! Headers and bytes in, values out. Nothing here knows of a socket or of what is served.

pub mod condition;
pub mod encoding;
pub mod path;
pub mod range;
