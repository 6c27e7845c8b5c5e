//! What people's commands ask, over a Unix socket. Whoever may open the socket may do everything, as with LXD.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{AliasRequest, CopyRequest, ImageChange, ImageFile, PruneRequest, RefreshRequest, Step, VerifyRequest};
use crate::bundle::export::Exporter;
use crate::bundle::import::Importer;
use crate::cache::Cache;
use crate::disk::Disk;
use crate::fetch::Found;
use crate::library::Library;
use crate::library::error::LibraryError;
use crate::passing::Passage;
use crate::refresh::desk::{Desk, NoRefresh};
use crate::refresh::status::StatusBoard;
use crate::server::images::{self, Wish};
use crate::server::reply::{self, Reply, error, json, steps};
use crate::server::verdict::status;
use crate::server::{aliases, body, bundles, imports, intake, stock, verify};
use crate::simplestreams::file::ListedFile;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// As with LXD's socket: who may open it may do everything.
const SOCKET_MODE: u32 = 0o660;
/// Commands at once.
const CONNECTIONS: usize = 64;
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// An inventory may come with the wish for a bundle: 67 bytes for each file that a site holds.
const MAX_EXPORT_BYTES: usize = 64 << 20;

/// What people's commands reach.
#[derive(Debug)]
pub struct Office {
    /// How remotes are doing.
    pub status: Arc<StatusBoard>,
    /// Who refreshes them.
    pub desk: Arc<Desk>,
    /// What is held, and what is served.
    pub cache: Arc<Cache>,
    /// Who does what people want done with images.
    pub library: Arc<Library>,
    /// Who makes bundles.
    pub exporter: Arc<Exporter>,
    /// Who takes them in.
    pub importer: Arc<Importer>,
}

/// Binds the socket, in the place of one that a killed process left. Its owner and group may open it.
pub async fn bind(disk: &dyn Disk, path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        disk.create_directory(folder)?;
    }
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another cistern answers there"));
            }
            if !disk.is_socket(path)? {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else of that name"));
            }
            disk.remove(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }?;
    disk.restrict(path, SOCKET_MODE)?;
    Ok(socket)
}

/// Answers commands until it is stopped.
pub async fn run(socket: UnixListener, office: Arc<Office>, stop: CancellationToken) {
    let (connections, turns) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&socket, &turns) => accepted,
        };
        let Some((turn, Ok((stream, _)))) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let office = Arc::clone(&office);
        connections.spawn(async move {
            serve(stream, office).await;
            drop(turn);
        });
    }
}

/// The next connection, when there is a turn for it; the others wait in the system's queue.
async fn accept(socket: &UnixListener, turns: &Arc<Semaphore>) -> Option<(OwnedSemaphorePermit, io::Result<(UnixStream, SocketAddr)>)> {
    let turn = Arc::clone(turns).acquire_owned().await.ok()?;
    Some((turn, socket.accept().await))
}

async fn serve(stream: UnixStream, office: Arc<Office>) {
    let (passage, handed) = Passage::receiving(stream);
    let service = service_fn(|mut request: Request<Incoming>| {
        let office = Arc::clone(&office);
        request.extensions_mut().insert(handed.clone());
        async move { Ok::<_, Infallible>(answer(&office, request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(passage), service).await {
        tracing::debug!(%error, "a connection of a command broke");
    }
}

async fn answer(office: &Office, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let wish = Wish::read(request.uri().query());
    let cache = &office.cache;
    match (request.method().as_str(), segments.as_slice()) {
        ("GET", ["1.0", "remotes"]) => json(StatusCode::OK, &office.status.all(&cache.current().load())),
        ("POST", ["1.0", "remotes", name, "refresh"]) => refresh(office, name, request).await,
        ("GET", ["1.0", "images"]) => of_images(images::list(&office.library, wish).await),
        ("POST", ["1.0", "images"]) => copy(office, request).await,
        ("GET", ["1.0", "images", name]) => of_images(images::info(&office.library, decoded(name), wish).await),
        ("PATCH", ["1.0", "images", name]) => change(office, decoded(name), wish, request).await,
        ("DELETE", ["1.0", "images", name]) => of_images(delete(office, decoded(name), wish).await),
        ("POST", ["1.0", "images", name, "refresh"]) => refresh_image(office, decoded(name), wish).await,
        ("GET", ["1.0", "images", name, "files"]) => of_images(files(office, decoded(name), wish).await),
        ("GET", ["1.0", "images", name, "files", number]) => file(office, decoded(name), wish, number).await,
        ("POST", ["1.0", "imports"]) => intake::publish(Arc::clone(&office.library), request).await,
        (_, ["1.0", "bundles", rest @ ..]) => of_bundles(office, rest, wish, request).await,
        ("GET", ["1.0", "aliases"]) => json(StatusCode::OK, &aliases::list(&office.library)),
        ("PUT" | "PATCH" | "DELETE", ["1.0", "aliases", name]) => of_images(alias(office, decoded(name), request).await),
        ("GET", ["1.0", "cache"]) => stock::info(cache).await,
        ("POST", ["1.0", "cache", "prune"]) => match read::<PruneRequest>(request).await {
            Ok(wish) => stock::prune(cache, wish.dry_run).await,
            Err(reply) => reply,
        },
        ("POST", ["1.0", "cache", "verify"]) => match read::<VerifyRequest>(request).await {
            Ok(wish) => verify::verify(&office.library, wish.repair),
            Err(reply) => reply,
        },
        _ => no_such_command(),
    }
}

/// Answers what is asked about bundles.
async fn of_bundles(office: &Office, segments: &[&str], wish: Wish, request: Request<Incoming>) -> Reply {
    let (exporter, importer) = (&office.exporter, &office.importer);
    match (request.method().as_str(), segments) {
        ("POST", []) => match reply::read(request, MAX_EXPORT_BYTES).await {
            Ok(wish) => bundles::begin(exporter, wish).await,
            Err(reply) => reply,
        },
        ("POST", ["preview"]) => match read(request).await {
            Ok(wish) => bundles::preview(exporter, wish).await,
            Err(reply) => reply,
        },
        ("GET", ["key"]) => bundles::key(exporter).await,
        ("GET", ["inventory"]) => bundles::inventory(exporter).await,
        ("GET", ["trusted"]) => imports::trusted(importer).await,
        ("POST", ["trusted"]) => imports::trust(importer, request).await,
        ("DELETE", ["trusted", name]) => imports::distrust(importer, decoded(name)).await,
        ("POST", ["imports"]) => imports::begin(importer, request).await,
        ("GET", ["imports", id]) => imports::look(importer, id).await,
        ("POST", ["imports", id]) => imports::commit(&office.library, importer, id).await,
        ("PUT", ["imports", id, file @ ..]) => imports::take(importer, id, &decoded(&file.join("/")), request).await,
        ("GET", ["imports"]) => imports::list(importer).await,
        ("DELETE", ["imports", id]) => imports::forget(&office.library, importer, decoded(id)).await,
        ("GET", [id, file @ ..]) => bundles::file(exporter, id, &decoded(&file.join("/")), wish.from()).await,
        _ => no_such_command(),
    }
}

fn no_such_command() -> Reply {
    error(StatusCode::NOT_FOUND, "this cistern has no such command; is the program of another version than the server?")
}

fn decoded(name: &str) -> String {
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// Reads what a command wants.
async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Reply> {
    reply::read(request, MAX_REQUEST_BYTES).await
}

fn of_images<T: Serialize>(answer: Result<T, LibraryError>) -> Reply {
    match answer {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(reason) => error(status(&reason), reason),
    }
}

/// Gives, takes away or changes a name.
async fn alias(office: &Office, name: String, request: Request<Incoming>) -> Result<(), LibraryError> {
    let (library, cache) = (Arc::clone(&office.library), Arc::clone(&office.cache));
    let is_deletion = request.method() == hyper::Method::DELETE;
    let wish: AliasRequest = if is_deletion { AliasRequest::default() } else { read(request).await.unwrap_or_default() };
    office
        .library
        .to_the_end(async move {
            match (wish.image, wish.name) {
                _ if is_deletion => library.shelf.delete_alias(&cache, &name).await,
                (Some(image), None) => {
                    let named = images::find(&library, image, Wish::for_machine(wish.virtual_machine, None)).await?;
                    library.shelf.create_alias(&cache, &name, &named).await
                }
                (_, Some(new)) => library.shelf.rename_alias(&cache, &name, &new).await,
                (None, None) => Err(LibraryError::BadAlias(name)),
            }
        })
        .await
}

async fn copy(office: &Office, request: Request<Incoming>) -> Reply {
    let CopyRequest { image, auto_update, architecture, virtual_machine } = match read(request).await {
        Ok(wish) => wish,
        Err(reply) => return reply,
    };
    match images::find(&office.library, image, Wish::for_machine(virtual_machine, architecture)).await {
        Ok(named) => steps(office.library.copy(named, auto_update)),
        Err(reason) => error(status(&reason), reason),
    }
}

async fn change(office: &Office, name: String, wish: Wish, request: Request<Incoming>) -> Reply {
    let change: ImageChange = match read(request).await {
        Ok(change) => change,
        Err(reply) => return reply,
    };
    let library = Arc::clone(&office.library);
    let changed = office.library.to_the_end(async move {
        let named = images::find(&library, name, wish).await?;
        library.change(&named, change).await
    });
    of_images(changed.await)
}

async fn delete(office: &Office, name: String, wish: Wish) -> Result<(), LibraryError> {
    let library = Arc::clone(&office.library);
    office
        .library
        .to_the_end(async move {
            let named = images::find(&library, name, wish).await?;
            library.delete(&named).await
        })
        .await
}

async fn refresh_image(office: &Office, name: String, wish: Wish) -> Reply {
    let refreshed = async {
        let named = images::find(&office.library, name, wish).await?;
        office.library.refresh(named).await
    };
    match refreshed.await {
        Ok((_, Some(under_way))) => steps(under_way),
        Ok((report, None)) => {
            let reason = report.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            json(StatusCode::OK, &Step::Done { text: format!("{} is {}{reason}", report.remote, report.result.label()) })
        }
        Err(reason) => error(status(&reason), reason),
    }
}

async fn files(office: &Office, name: String, wish: Wish) -> Result<Vec<ImageFile>, LibraryError> {
    let named = images::find(&office.library, name, wish).await?;
    let file = |file: &ListedFile| ImageFile { name: file.path.basename().to_owned(), size: file.expected.size };
    Ok(named.image.files.iter().map(file).collect())
}

async fn file(office: &Office, name: String, wish: Wish, number: &str) -> Reply {
    let named = match images::find(&office.library, name, wish).await {
        Ok(named) => named,
        Err(reason) => return error(status(&reason), reason),
    };
    let Some(file) = number.parse().ok().and_then(|number: usize| named.image.files.get(number)) else {
        return error(StatusCode::NOT_FOUND, "the image has no such file");
    };
    match office.library.open(&named, file).await {
        Ok(Found::Held(blob)) => {
            let whole = 0..blob.size;
            reply::bytes(body::of_blob(blob, whole))
        }
        Ok(Found::Fetched(reader) | Found::Collapsed(reader)) => reply::bytes(body::of_reader(reader)),
        Err(reason) => error(status(&reason), reason),
    }
}

async fn refresh(office: &Office, name: &str, request: Request<Incoming>) -> Reply {
    let wish: RefreshRequest = match read(request).await {
        Ok(wish) => wish,
        Err(reply) => return reply,
    };
    match office.desk.refresh(name, wish.accept).await {
        Ok(report) => json(StatusCode::OK, &report),
        Err(NoRefresh::NoRemote) => error(StatusCode::NOT_FOUND, format!("there is no remote '{name}'; cistern remote list shows them")),
        Err(reason @ (NoRefresh::Offline | NoRefresh::NotOffline)) => {
            error(StatusCode::CONFLICT, format!("remote '{name}' cannot be refreshed: {reason}"))
        }
        Err(reason @ NoRefresh::Stopped) => error(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}
