//! What commands ask about bundles.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;

use crate::api::{ExportRequest, ExportedFile, ExportedImage, ExportedTree};
use crate::bundle::error::NoBundle;
use crate::bundle::export::{Content, Exporter};
use crate::bundle::plan::{Order, Plan, TREE, Tree};
use crate::cache::blocking;
use crate::catalog::images::Image;
use crate::digest::Digest;
use crate::fetch::Found;
use crate::image::architecture::Architecture;
use crate::inventory::{BadInventory, Inventory};
use crate::manifest::{BundlePath, MANIFEST, SIGNATURE, Selection};
use crate::render::part::Ready;
use crate::seal::SigningKey;
use crate::server::body;
use crate::server::reply::{self, Reply, error, json, steps};

/// How long an image server may take to accept to send what went meanwhile.
const PATIENCE: Duration = Duration::from_mins(1);

/// Makes a bundle.
pub async fn begin(exporter: &Arc<Exporter>, mut wish: ExportRequest) -> Reply {
    let volume_size = wish.volume_size;
    let key = match wish.key.take().map(|key| SigningKey::from_pem(&key)).transpose() {
        Ok(key) => key.map(Arc::new),
        Err(reason) => return error(StatusCode::BAD_REQUEST, format!("the key cannot be taken: {reason}")),
    };
    let have = wish.have.take();
    let read = blocking(move || Ok(have.map(|have| Inventory::read(&have)).transpose())).await;
    match read.map_err(|reason| BadInventory::NotReadable(reason.to_string())).flatten() {
        Ok(have) => steps(exporter.begin(Order { selection: selection(wish), volume_size, key, have: have.map(Arc::new) })),
        Err(reason) => error(StatusCode::BAD_REQUEST, format!("the inventory cannot be taken: {reason}")),
    }
}

/// Says what would be in a bundle.
pub async fn preview(exporter: &Exporter, wish: ExportRequest) -> Reply {
    let show = |(remote, image, held): (Arc<str>, Image, bool)| ExportedImage {
        remote: remote.to_string(),
        product: image.version.product.name.clone(),
        version: image.version.serial.to_string(),
        image_type: image.image_type.to_string(),
        architecture: image.version.product.architecture.to_string(),
        fingerprint: image.fingerprint.to_string(),
        size: image.size(),
        held,
    };
    match exporter.preview(selection(wish)).await {
        Ok(images) => json(StatusCode::OK, &images.into_iter().map(show).collect::<Vec<_>>()),
        Err(reason) => error(StatusCode::CONFLICT, reason),
    }
}

/// Shows the public half of the key that bundles are signed with.
pub async fn key(exporter: &Exporter) -> Reply {
    match exporter.key().await {
        Ok(key) => json(StatusCode::OK, &key.to_pem()),
        Err(reason) => error(StatusCode::INTERNAL_SERVER_ERROR, reason),
    }
}

/// Says what is held, signed.
pub async fn inventory(exporter: &Exporter) -> Reply {
    match exporter.inventory().await {
        Ok(text) => reply::bytes(body::full(text.into())),
        Err(reason) => error(StatusCode::INTERNAL_SERVER_ERROR, reason),
    }
}

/// The same selection, in whatever order it is written.
fn selection(wish: ExportRequest) -> Selection {
    let ExportRequest { mut images, mut select, arch, vm, versions, .. } = wish;
    [&mut images, &mut select].into_iter().for_each(|names| {
        names.sort();
        names.dedup();
    });
    // One architecture has many names.
    let arch = arch.map(|name| Architecture::parse(&name).map_or(name, |architecture| architecture.to_string()));
    Selection { images, select, arch, vm, versions }
}

/// Sends a file of a bundle, from byte `from` on.
pub async fn file(exporter: &Exporter, id: &str, path: &str, from: u64) -> Reply {
    let grace = exporter.grace();
    let plan = match Digest::from_hex(id).ok_or(NoBundle::Forgotten).and_then(|id| exporter.plan(id)) {
        Ok(plan) => plan,
        Err(reason) => return error(StatusCode::NOT_FOUND, reason),
    };
    match path {
        MANIFEST => reply::bytes(body::full(plan.manifest.clone())),
        SIGNATURE => reply::bytes(body::full(plan.signature.clone())),
        TREE => json(StatusCode::OK, &tree(&plan.tree, grace)),
        path => content(exporter, &plan, path, from).await,
    }
}

/// What is in a tree, and how long what is listed no more has to stay in it.
fn tree(tree: &Tree, grace: Duration) -> ExportedTree {
    let document = |ready: &Ready| ExportedFile {
        path: ready.path.to_string(),
        sha256: Digest::of(&ready.bytes).to_string(),
        size: ready.bytes.len() as u64,
    };
    let file =
        |(path, (digest, size)): (&String, &(Digest, u64))| ExportedFile { path: path.clone(), sha256: digest.to_string(), size: *size };
    ExportedTree {
        grace: grace.as_secs(),
        documents: tree.documents.iter().map(document).collect(),
        files: tree.files.iter().map(file).collect(),
    }
}

async fn content(exporter: &Exporter, plan: &Plan, path: &str, from: u64) -> Reply {
    if let Some(path) = path.strip_prefix(TREE).and_then(|below| below.strip_prefix('/')) {
        return match plan.tree.documents.iter().find(|ready| ready.path.as_str() == path) {
            Some(ready) => reply::bytes(body::full(ready.bytes.clone())),
            None => error(StatusCode::NOT_FOUND, format!("'{path}' is no document of the tree")),
        };
    }
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
            // Why there is nothing is only told before there is something.
            if let Err(reason) = reader.answered(PATIENCE).await {
                return error(StatusCode::BAD_GATEWAY, format!("{path} went meanwhile, and cannot be fetched again: {reason}"));
            }
            reader.select(from.min(size)..size);
            reply::bytes(body::of_reader(reader))
        }
        Err(reason) => error(StatusCode::BAD_GATEWAY, reason),
    }
}
