//! Cistern: a content-addressed caching proxy and mirror for LXD and Incus image servers.

pub mod catalog;
pub mod clock;
pub mod digest;
pub mod disk;
pub mod health;
pub mod http;
pub mod image;
pub mod ledger;
pub mod metrics;
pub mod render;
pub mod revalidation;
pub mod selection;
pub mod signature;
pub mod simplestreams;
pub mod store;
pub mod tls;
pub mod upstream;
