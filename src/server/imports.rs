//! Bundles that a command sends.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use crate::api::{TrustRequest, TrustedKey};
use crate::bundle::arrival::Arrival;
use crate::bundle::error::NotImported;
use crate::bundle::import::Importer;
use crate::digest::Digest;
use crate::library::Library;
use crate::library::error::LibraryError;
use crate::library::supply::Supply;
use crate::manifest::{BundlePath, MAX_MANIFEST_BYTES};
use crate::passing::Handed;
use crate::seal::PublicKey;
use crate::server::intake::supply;
use crate::server::reply::{Reply, collect, error, json, read};
use crate::server::verdict;

/// What a request says with which a file was handed over.
const HANDED_OVER: &str = "handed=true";
const MAX_KEY_BYTES: usize = 64 << 10;

/// Looks at a manifest, which is the body; the query has its signature.
pub async fn begin(importer: &Importer, request: Request<Incoming>) -> Reply {
    let Some((signature, allow_rollback)) = wish(request.uri().query().unwrap_or_default()) else {
        return error(
            StatusCode::BAD_REQUEST,
            "this is no bundle that could be taken in; is the program of another version than the server?",
        );
    };
    let text = match collect(request, usize::try_from(MAX_MANIFEST_BYTES).unwrap_or(usize::MAX)).await {
        Ok(text) => text,
        Err(reply) => return reply,
    };
    answer(importer.begin(text, signature.into(), allow_rollback).await)
}

/// Takes a file in, which is the body, or was handed over open.
pub async fn take(importer: &Importer, id: &str, path: &str, request: Request<Incoming>) -> Reply {
    let Some(path) = BundlePath::parse(path) else { return error(StatusCode::NOT_FOUND, format!("'{path}' is no place in a bundle")) };
    let arrival = match arrival(importer, id) {
        Ok(arrival) => arrival,
        Err(reason) => return refused(&reason),
    };
    let BundlePath::Blob(digest) = path else { return add(importer, arrival, path, request).await };
    if request.uri().query() == Some(HANDED_OVER) {
        return take_open(importer, &arrival, digest, &request).await;
    }
    let (supply, feeding) = supply(request.into_body());
    let taken = importer.take(&arrival, digest, supply).await;
    // An answer in the middle of what a command sends would be lost.
    drop(feeding.await);
    answer(taken)
}

/// Takes in a file that a command handed over open, for as long as the command is there.
async fn take_open(importer: &Importer, arrival: &Arrival, digest: Digest, request: &Request<Incoming>) -> Reply {
    let handed = request.extensions().get::<Handed>().cloned().unwrap_or_default();
    let taken = async {
        let turn = importer.turns.take().await?;
        Ok::<_, LibraryError>((turn.run(move || handed.take()).await?, turn))
    };
    let reason = match taken.await {
        Ok((Some(file), turn)) => {
            let left = CancellationToken::new();
            let supply = Supply::open(file, left.clone(), turn);
            let _until_it_leaves = left.drop_guard();
            return answer(importer.take(arrival, digest, supply).await);
        }
        Ok((None, _)) => "it did not arrive".to_owned(),
        Err(reason) => reason.to_string(),
    };
    error(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{} cannot be taken open: {reason}", BundlePath::Blob(digest)))
}

async fn add(importer: &Importer, arrival: Arc<Arrival>, path: BundlePath, request: Request<Incoming>) -> Reply {
    let most = match arrival.document(&path) {
        Ok(document) => usize::try_from(document.size).unwrap_or(usize::MAX),
        Err(reason) => return refused(&reason),
    };
    match collect(request, most).await {
        Ok(bytes) => answer(importer.add(arrival, path, bytes).await),
        Err(reply) => reply,
    }
}

/// Says what would become of every remote.
pub async fn look(importer: &Importer, id: &str) -> Reply {
    match arrival(importer, id) {
        Ok(arrival) => answer(importer.look(&arrival).await),
        Err(reason) => refused(&reason),
    }
}

/// Lists a bundle. Once that began it is done to the end, also if the command leaves.
pub async fn commit(library: &Library, importer: &Arc<Importer>, id: &str) -> Reply {
    let arrival = match arrival(importer, id) {
        Ok(arrival) => arrival,
        Err(reason) => return refused(&reason),
    };
    let importer = Arc::clone(importer);
    let committed = library.to_the_end(async move { Ok(importer.commit(&arrival).await) }).await;
    match committed {
        Ok(committed) => answer(committed),
        Err(reason) => error(verdict::status(&reason), reason),
    }
}

/// Which bundles there are.
pub async fn list(importer: &Importer) -> Reply {
    answer(importer.selections().await)
}

/// Lets go of a selection. Once that began it is done to the end, also if the command leaves.
pub async fn forget(library: &Library, importer: &Arc<Importer>, id: String) -> Reply {
    let importer = Arc::clone(importer);
    match library.to_the_end(async move { Ok(importer.forget(id).await) }).await {
        Ok(forgotten) => answer(forgotten),
        Err(reason) => error(verdict::status(&reason), reason),
    }
}

/// The keys whose bundles are taken.
pub async fn trusted(importer: &Importer) -> Reply {
    let shown = |key: &PublicKey| TrustedKey { name: key.to_string(), pem: key.to_pem() };
    answer(importer.trusted().await.map(|keys| keys.iter().map(shown).collect::<Vec<_>>()))
}

/// Takes the bundles of a key from now on.
pub async fn trust(importer: &Importer, request: Request<Incoming>) -> Reply {
    let TrustRequest { pem } = match read(request, MAX_KEY_BYTES).await {
        Ok(wish) => wish,
        Err(reply) => return reply,
    };
    match PublicKey::from_pem(&pem) {
        Ok(key) => answer(importer.trust(key).await.map(|()| key.to_string())),
        Err(reason) => error(StatusCode::BAD_REQUEST, format!("the key cannot be taken: {reason}")),
    }
}

/// Takes the bundles of a key no more.
pub async fn distrust(importer: &Importer, name: String) -> Reply {
    match importer.distrust(name.clone()).await {
        Ok(false) => error(StatusCode::NOT_FOUND, format!("no key is called '{name}'; cistern bundle trust shows them")),
        distrusted => answer(distrusted.map(|_| name)),
    }
}

fn arrival(importer: &Importer, id: &str) -> Result<Arc<Arrival>, NotImported> {
    Digest::from_hex(id).ok_or(NotImported::Forgotten).and_then(|id| importer.arrival(id))
}

fn answer<T: serde::Serialize>(answer: Result<T, NotImported>) -> Reply {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(reason) => refused(&reason),
    }
}

fn refused(reason: &NotImported) -> Reply {
    let status = match reason {
        NotImported::Uncounted | NotImported::Ending | NotImported::NotServed { .. } | NotImported::Forgotten => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        NotImported::NoRoom { .. } => StatusCode::INSUFFICIENT_STORAGE,
        NotImported::NotInIt(_) | NotImported::NoSelection(_) => StatusCode::NOT_FOUND,
        NotImported::Blob { reason, .. } => verdict::status(reason),
        NotImported::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::CONFLICT,
    };
    error(status, reason)
}

/// The signature, and whether the bundle may take the place of a newer one.
fn wish(query: &str) -> Option<(Vec<u8>, bool)> {
    let url = Url::parse(&format!("http://admin/?{query}")).ok()?;
    let (mut signature, mut allow_rollback) = (None, false);
    for (name, value) in url.query_pairs() {
        match &*name {
            "signature" => signature = BASE64.decode(&*value).ok(),
            "allow_rollback" => allow_rollback = true,
            _ => return None,
        }
    }
    Some((signature?, allow_rollback))
}
