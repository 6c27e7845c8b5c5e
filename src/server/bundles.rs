//! What commands ask about bundles.

use std::sync::Arc;

use hyper::StatusCode;

use crate::api::ExportRequest;
use crate::bundle::export::{Content, Exporter, NoBundle, Order, Plan};
use crate::digest::Digest;
use crate::fetch::Found;
use crate::manifest::{BundlePath, MANIFEST, SIGNATURE, Selection};
use crate::server::body;
use crate::server::reply::{self, Reply, error, steps};

/// Makes a bundle.
pub fn begin(exporter: &Arc<Exporter>, wish: ExportRequest) -> Reply {
    let ExportRequest { images, select, arch, vm, versions, volume_size } = wish;
    steps(exporter.begin(Order { selection: Selection { images, select, arch, vm, versions }, volume_size }))
}

/// Sends a file of a bundle, from byte `from` on.
pub async fn file(exporter: &Exporter, id: &str, path: &str, from: u64) -> Reply {
    let plan = match Digest::from_hex(id).ok_or(NoBundle::Forgotten).and_then(|id| exporter.plan(id)) {
        Ok(plan) => plan,
        Err(reason) => return error(StatusCode::NOT_FOUND, reason),
    };
    match path {
        MANIFEST => reply::bytes(body::full(plan.manifest.clone())),
        SIGNATURE => reply::bytes(body::full(plan.signature.clone())),
        path => content(exporter, &plan, path, from).await,
    }
}

async fn content(exporter: &Exporter, plan: &Plan, path: &str, from: u64) -> Reply {
    let Some(path) = BundlePath::parse(path) else { return error(StatusCode::NOT_FOUND, format!("'{path}' is no place in a bundle")) };
    match exporter.open(plan, &path, from).await {
        Ok(Content::Document(bytes)) => {
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            reply::bytes(body::full(bytes.slice(from..)))
        }
        Ok(Content::Blob(Found::Held(blob), _)) => {
            let rest = from.min(blob.size)..blob.size;
            reply::bytes(body::of_blob(blob, rest))
        }
        Ok(Content::Blob(Found::Fetched(mut reader) | Found::Collapsed(mut reader), size)) => {
            reader.select(from.min(size)..size);
            reply::bytes(body::of_reader(reader))
        }
        Err(reason) => error(StatusCode::BAD_GATEWAY, reason),
    }
}
