//! Cistern: a content-addressed caching proxy and mirror for LXD and Incus image servers.
//!
//! Hosts that run LXD or Incus download their images from image servers far away, each host for itself, over and over.
//! Cistern stands in between. It speaks simplestreams to the image servers and to the hosts, and holds every file once,
//! under the SHA-256 of its bytes.
//!
//! ```text
//! image servers ──documents──▶ refresh ──▶ publish ──▶ catalog ──▶ server ──documents──▶ hosts
//!               ──blobs──────▶ fetch   ──▶ cache   ──▶ store   ──▶ server ──blobs──────▶ (LXD, Incus, Juju, MAAS, curl)
//! ```
//!
//! # The floors
//!
//! A module uses only rows below its own: not its neighbours, not rows above, not the crate root. `tests/it/tidy.rs`
//! holds this picture as data and fails on anything that breaks it, or closes a circle inside a module.
//!
//! ```text
//! 5 assembly    cli
//!               demo
//!               app
//!               config
//! ──────────────────────────────────────────────────────────────────
//! 4 doors       server
//! ──────────────────────────────────────────────────────────────────
//! 3 work        bundle
//!               library
//!               prefetch · scrub
//!               refresh
//!               publish
//!               fetch
//!               cache
//! ──────────────────────────────────────────────────────────────────
//! 2 hands       store · database · upstream · tls · passing
//!               clock · disk · metrics
//! ──────────────────────────────────────────────────────────────────
//! 1 decisions   render · retention
//!               catalog · ledger · revalidation · selection · health
//! ──────────────────────────────────────────────────────────────────
//! 0 words       simplestreams · manifest · inventory · api
//!               image · signature · seal
//!               digest · http
//! ```
//!
//! - **Floor 0, words**: types and parsing. No I/O, no async, no clock. [`digest`] names bytes; [`http`] has paths, ranges
//!   and conditions; [`image`] has what LXD and Incus call the parts of an image; [`signature`] takes the frame off a
//!   signed document; [`seal`] has the keys that bundles are signed with; [`simplestreams`] reads documents into spans;
//!   [`manifest`] is what a bundle says that it has, and [`inventory`] what a site says; [`api`] is what travels over the admin socket.
//! - **Floor 1, decisions**: values in, values out; `now` is an argument. [`catalog`] is what is served; [`render`] makes
//!   it of upstream's documents; [`revalidation`] says which of those are taken; [`selection`] which part of them is
//!   listed; [`health`] which URL is asked next; [`ledger`] what is held and whether there is room; [`retention`] what
//!   goes, when and why.
//! - **Floor 2, hands**: each touches one outside thing and decides nothing: [`disk`], [`clock`], [`metrics`],
//!   [`upstream`], [`tls`], [`passing`], which hands open files over a socket, [`store`], which is a folder with rules, and
//!   [`database`], which indexes it.
//! - **Floor 3, work**: long-lived tasks. [`cache`] has blobs and the fetches under way; [`fetch`] brings them in;
//!   [`publish`] alone makes the next generation of what is served; [`refresh`] keeps documents like upstream's; [`prefetch`]
//!   holds ahead of requests what is to be held: all that a mirrored remote lists, and new versions of what is kept up to
//!   date; [`scrub`] reads again what is held; [`library`] does what people want done with images; [`bundle`] is what
//!   crosses an air gap.
//! - **Floor 4, doors**: [`server`]: HTTP in, HTTP out, over any `AsyncRead + AsyncWrite`; the fast lane over sockets.
//! - **Floor 5, assembly**: [`cli`] reads arguments, [`config`] reads the configuration, [`app`] puts everything together
//!   and ends it, [`demo`] shows it. Modules define their own `Options`; only [`config`] knows them all.
//!
//! [`upstream::Upstream`], [`clock::Clock`] and [`disk::Disk`] are the only traits of our own. Tests have disks
//! that run full, fail or lose their power, scripted upstreams, and a clock that they turn.
//!
//! # Invariants
//!
//! 1. A module uses only rows below its own. Floors 0 and 1 are ordinary functions.
//! 2. A file under `blobs/` is whole and verified. Only [`store::partial::Verified::commit`] makes one: bytes are hashed as
//!    they are written, then sync, rename, sync of the folder.
//! 3. Ground state is blobs, the last good documents, one file for each image that is held ([`store::records`]), and one for
//!    each thing that people decided ([`store::decisions`], [`store::publications`]), and what bundles say ([`store::imports`],
//!    [`store::begun`]). The database indexes these and can be
//!    made anew; only times of use may be lost.
//! 4. Only paths that the catalog names are served. Cistern is no open proxy.
//! 5. Nothing is listed that cannot be had: held, or obtainable from upstream. Replaced documents are kept for grace, across
//!    restarts, and the paths of all are served.
//! 6. A host can see a short body, never a complete wrong one: the last byte of every answer, whole or range, waits until
//!    the blob is verified ([`cache::flight::Progress::readable`]). Where a length is unknown, HTTP/1.0 hosts wait for the
//!    whole.
//! 7. A generation is published after everything that it names is on the disk.
//! 8. One blob, one fetch, however many readers; the fetch belongs to the cache and not to a request.
//! 9. Every queue, body, document, wait and task has a bound, with a name in `[limits]` or in the code.
//! 10. What upstream or a disk says may be wrong: it is checked, refused with a reason and counted, and what was there before
//!     goes on being served. An error of the disk means *unknown*, never *absent*.
//!
//! # How data flows
//!
//! **GET of a document.** [`server::route`] finds it in the catalog, [`server::document`] sends bytes that were made ready,
//! plain or gzipped. No parsing, no lock, no I/O.
//!
//! **GET of a file that is held.** [`server::route`] → catalog → [`server::blob`] → [`cache::Cache::find`]: an open file
//! out of a bounded cache of open files. Conditions and ranges are answered from digest and size. Over plain HTTP, asked for as LXD
//! does, the kernel sends it ([`server::lane`]); otherwise [`server::body`] reads
//! with `preadv2(RWF_NOWAIT)` on the async thread, and on a blocking one if the page is not in memory; frames grow only
//! while the host takes them at once.
//!
//! **GET of a file that is not held.** [`fetch::Fetcher::find`] boards a [`cache::flight::Flight`], or begins one: the entry
//! is in the map before its task runs. [`fetch::download`] looks into the store once more, waits for its turn, opens the
//! partial file (what an earlier fetch left is hashed again and goes on), asks one URL after the other, and sees to room
//! before the status is told: [`fetch::sink`] writes and hashes on a thread of its own and tells readers of every batch;
//! without room, or when the disk fails in the middle, bytes go through a ring in memory instead. What is in the file goes to
//! hosts in the same two ways as above. A cut is resumed with
//! a range, at the next URL if need be. Gone is only what every URL calls gone. *Verified* releases the last byte,
//! *landed* makes a hit, *failed* aborts every reader. When an image's last file has come, [`publish::recorder`] computes
//! its fingerprint; an image that has another one is listed no more, and one that is right is recorded in the ledger, by the
//! rules of [`publish::admission`].
//!
//! **Refresh.** [`refresh::gather`] asks for the index, what it names and signed twins, conditionally, all from one URL;
//! [`revalidation::census`] reads them, [`revalidation::verdict`] compares with what we have. A good set is written
//! down by [`store::snapshots`] and given to the publisher. A bad one is refused and counted, and the next URL is tried.
//!
//! **Publish.** [`publish::shelf`] renders what depends on a change: [`render::remote`] for a remote's own name (exactly as
//! it came, unless selection, twins, a wrong fingerprint or an item that clients cannot digest require otherwise), product
//! by product ([`render::product`]). Each product is also made ready for the root ([`render::part`]), and put in its place
//! while the next ones are rendered ([`render::assembly`]); [`render::root`] only settles who owns what and joins the pieces
//! of all remotes. The new [`catalog::Catalog`] takes the
//! place of the old one whole.
//!
//! **Modes.** A remote in *proxy* mode is fetched from when a host first asks. One in *mirror* mode has a [`prefetch::Prefetcher`]
//! that asks first, for everything that is listed. One that is *offline* asks nobody and is fed by bundles: of its documents
//! only what is held is listed ([`ledger::holdings`]).
//!
//! **Hold-back.** An image that is kept up to date is listed until its newer version is held: [`render::hold_back`] hides
//! that one, [`prefetch`] brings it in, the recorder lets it take the place of the older one ([`publish::admission`]), and
//! the publisher lists it then. What upstream lists no more and has to stay is listed by what was kept of its documents
//! ([`render::retain`]).
//!
//! **Eviction.** [`retention`] names what goes, out of the ledger and the catalog: by its time, or when a fetch finds no
//! room. [`cache::eviction`] carries that out under the lock that fetches begin under; what is being read
//! ([`cache::lease`]) stays. What only we hold is taken off the list first and goes when grace is over.
//!
//! **The database.** [`cache::scribe`] writes down what changed in the ledger, every few seconds. At the start the ledger is
//! what the database says, and of images that it does not know what their own files say ([`cache::restore`]). While hosts are
//! served it is compared with the names in the store ([`cache::reconcile`]), and until that is done nobody is promised room.
//! From then on it is what is held: a file that turns out to be missing corrects it. What the database does not
//! know is a stranger: it is read once before anybody gets it ([`cache::adoption`]), by a flight like a download's.
//!
//! **People's commands.** [`cli`] speaks HTTP and JSON with [`server::admin`] over a Unix socket; [`library`] does what is
//! wanted. What a person decides is written down before it counts, and answered when the database has it. Bytes of own images
//! travel over the socket and come into the store as a fetch's do ([`library::intake`]); [`library::inspect`] looks into them,
//! and [`render::own`] makes the documents of the remote `local` of them.
//!
//! **Bundles.** [`bundle::export`] has everything held that is to be carried, [`bundle::plan`] names and signs it, and [`cli`] writes it to
//! folders. At a site [`bundle::import`] checks whose it is and says what it wants; the command hands over the files of blobs, open
//! ([`passing`]), and they come in as a fetch's do. When all that a
//! bundle names is held, it is written down in the place of the one before ([`store::imports`]), what all bundles list of a remote
//! is joined ([`render::join`]), and that is given to the remote's keeper ([`refresh::Refresher::be_fed`]), which does with it what a refresh
//! does. What a bundle brought belongs to its selection ([`ledger::record::Owner::Selection`]) and goes when no bundle lists it. What
//! came of one that is not complete ([`store::begun`]) stays for the rest to come, or until somebody forgets it ([`bundle::selections`]).
//!
//! **Start.** Sockets are bound, the store is locked, the ledger is made of its database (without one, of all that lies in the
//! store), the documents on disk are published, and the server listens, upstream or none. Refreshes begin, and the store is
//! looked through, a part at a time.
//!
//! # What is kept open
//!
//! Several replicas over an object store are not built. What keeps the way open: opening a blob is async and fallible and
//! yields an opaque [`disk::File`], never one of `std`; a flight's task claims its fetch before it asks upstream; documents
//! are stored by snapshot; rendering is pure.

pub mod api;
pub mod app;
pub mod bundle;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod database;
pub mod demo;
pub mod digest;
pub mod disk;
pub mod fetch;
pub mod health;
pub mod http;
pub mod image;
pub mod inventory;
pub mod ledger;
pub mod library;
pub mod manifest;
pub mod metrics;
pub mod passing;
pub mod prefetch;
pub mod publish;
pub mod refresh;
pub mod render;
pub mod retention;
pub mod revalidation;
pub mod scrub;
pub mod seal;
pub mod selection;
pub mod server;
pub mod signature;
pub mod simplestreams;
pub mod store;
pub mod tls;
pub mod upstream;
