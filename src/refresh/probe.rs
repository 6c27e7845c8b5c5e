//! Asks URLs that failed whether they are back, while another is well.
//!
//! Requests ask the one that is well, so that nobody would ever ask the other; and what is shown of it to people and to
//! Prometheus has to be true.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::MissedTickBehavior;

use crate::fetch::source::Source;
use crate::http::path::StreamPath;
use crate::revalidation::document::read_index;
use crate::simplestreams::index::INDEX_PATH;
use crate::upstream::{Failure, Kind, Request};

/// How often it is looked whether one is to be asked.
const LOOK: Duration = Duration::from_secs(30);
/// How long one may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Indexes have some kilobytes.
const MOST_BYTES: usize = 4 << 20;

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
    let asked = tokio::time::timeout(PATIENCE, index(source, url, path)).await;
    match asked.unwrap_or(Err(Failure::Silent("for an index to come"))) {
        Ok(()) => source.is_back(url),
        Err(failure) => source.failed(url, &failure),
    }
}

/// Asks for an index, which is to be one. What it has to say is for a refresh to read.
async fn index(source: &Source, url: usize, path: StreamPath) -> Result<(), Failure> {
    let kind = Kind::Document { etag: None, last_modified: None };
    let mut body = source.upstream().get(Request { url, path: path.clone(), kind }).await?.body;
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() > MOST_BYTES {
            return Err(Failure::TooLarge { limit: MOST_BYTES as u64 });
        }
    }
    read_index(&path, &bytes).map(drop).map_err(|refusal| Failure::Nonsense(refusal.to_string()))
}
