//! Asks URLs that failed whether they are back, while another is well.
//!
//! Requests ask the one that is well, so that nobody would ever ask the other; and what is shown of it to people and to
//! Prometheus has to be true.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::fetch::source::Source;
use crate::http::path::StreamPath;
use crate::simplestreams::index::INDEX_PATH;
use crate::upstream::{Kind, Request};

/// How often it is looked whether one is to be asked.
const LOOK: Duration = Duration::from_secs(30);

/// Asks, one URL at a time, for as long as it is let.
pub async fn run(source: Arc<Source>) {
    let Ok(index) = StreamPath::from_document(INDEX_PATH) else { return };
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Some(url) = source.probe() {
            ask(&source, url, index.clone()).await;
        }
    }
}

async fn ask(source: &Source, url: usize, path: StreamPath) {
    let kind = Kind::Document { etag: None, last_modified: None };
    match source.upstream().get(Request { url, path, kind }).await {
        // What it has to say is for a refresh to read.
        Ok(_) => source.is_back(url),
        Err(failure) => source.failed(url, &failure),
    }
}
