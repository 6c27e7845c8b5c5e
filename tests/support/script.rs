//! An image server without a network, which does what it is told when it is told to, on tokio's clock.

#![allow(dead_code, reason = "each test target uses another part")]

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cistern::http::range::ContentRange;
use cistern::upstream::{Answer, Failure, Kind, Request, Upstream};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;

/// How one request is answered.
#[derive(Clone, Debug)]
pub enum Play {
    /// Well.
    Well,
    /// Not at all: the client gives up after so long.
    Silent(Duration),
    /// Not, for this reason.
    Fails(Failure),
    /// Well until so many bytes were sent; then there is silence.
    SilentAt(usize),
    /// Well until so many bytes were sent; then the connection is cut.
    CutAt(usize),
    /// Well, so many bytes at a time.
    InPieces(usize),
    /// So many bytes at a time, and then a pause.
    Slow(usize, Duration),
}

impl Play {
    /// Not, with this status, and the wish to be left alone for so long.
    pub fn status(code: u16, retry_after: Option<Duration>) -> Self {
        Self::Fails(Failure::Status { code, retry_after })
    }
}

/// A request for a file that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// To which URL.
    pub url: usize,
    /// From which byte on.
    pub from: u64,
    /// When.
    pub at: Instant,
}

/// The image server.
#[derive(Debug)]
pub struct Script {
    urls: Vec<String>,
    state: Mutex<State>,
    sent: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<String, Bytes>,
    plays: HashMap<(usize, String), VecDeque<Play>>,
    asked: Vec<(String, Asked)>,
}

impl Script {
    /// A server with so many URLs.
    pub fn new(urls: usize) -> Arc<Self> {
        Arc::new(Self { urls: (0..urls).map(|url| format!("script://{url}")).collect(), state: Mutex::default(), sent: Arc::default() })
    }

    /// Puts files there, in the place of those with the same paths.
    pub fn put(&self, files: impl IntoIterator<Item = (String, Vec<u8>)>) {
        self.state.lock().unwrap().files.extend(files.into_iter().map(|(path, bytes)| (path, bytes.into())));
    }

    /// How a URL answers the next requests for a path, one after the other; after that it answers well.
    pub fn play(&self, url: usize, path: &str, plays: impl IntoIterator<Item = Play>) {
        self.state.lock().unwrap().plays.insert((url, path.to_owned()), plays.into_iter().collect());
    }

    /// The requests for a path.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.state.lock().unwrap().asked.iter().filter(|(other, _)| other == path).map(|(_, asked)| asked.clone()).collect()
    }

    /// How many bytes of files were taken from it.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    fn next(&self, request: &Request) -> (Option<Bytes>, Play) {
        let mut state = self.state.lock().unwrap();
        let path = request.path.as_str().to_owned();
        let from = if let Kind::Blob { from, .. } = request.kind { from } else { 0 };
        state.asked.push((path.clone(), Asked { url: request.url, from, at: Instant::now() }));
        let file = state.files.get(&path).cloned();
        (file, state.plays.get_mut(&(request.url, path)).and_then(VecDeque::pop_front).unwrap_or(Play::Well))
    }
}

impl Upstream for Script {
    fn urls(&self) -> &[String] {
        &self.urls
    }

    fn get(&self, request: Request) -> BoxFuture<'_, Result<Answer, Failure>> {
        let (file, play) = self.next(&request);
        async move {
            match play {
                Play::Silent(time) => {
                    tokio::time::sleep(time).await;
                    Err(Failure::Silent("before it answered"))
                }
                Play::Fails(failure) => Err(failure),
                play => {
                    let sent = Arc::clone(&self.sent);
                    let count = move |piece: &Result<Bytes, Failure>| {
                        sent.fetch_add(piece.as_ref().map_or(0, Bytes::len), Ordering::Relaxed);
                    };
                    answer(file, &request.kind, &play).map(|answer| Answer { body: answer.body.inspect(count).boxed(), ..answer })
                }
            }
        }
        .boxed()
    }
}

fn answer(file: Option<Bytes>, kind: &Kind, play: &Play) -> Result<Answer, Failure> {
    let file = file.ok_or(Failure::Status { code: 404, retry_after: None })?;
    let total = file.len() as u64;
    let from = if let Kind::Blob { from, .. } = kind { *from } else { 0 };
    let range = (from > 0).then_some(ContentRange { start: from, end: total, total: Some(total) });
    let rest = file.slice(usize::try_from(from).unwrap()..);
    Ok(Answer {
        status: if range.is_some() { 206 } else { 200 },
        length: Some(rest.len() as u64),
        range,
        etag: None,
        last_modified: None,
        body: body(rest, play),
    })
}

fn body(bytes: Bytes, play: &Play) -> BoxStream<'static, Result<Bytes, Failure>> {
    let until = |at: &usize| bytes.slice(..(*at).min(bytes.len()));
    match play {
        Play::SilentAt(at) => pieces(until(at)).chain(futures_util::stream::pending()).boxed(),
        Play::CutAt(at) => pieces(until(at)).chain(futures_util::stream::iter([Err(Failure::Cut("told to".to_owned()))])).boxed(),
        Play::InPieces(size) => {
            let pieces: Vec<_> = bytes.chunks(*size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            futures_util::stream::iter(pieces).boxed()
        }
        Play::Slow(size, pause) => slowly(bytes, *size, *pause).boxed(),
        _ => pieces(bytes).boxed(),
    }
}

fn pieces(bytes: Bytes) -> impl futures_util::Stream<Item = Result<Bytes, Failure>> {
    futures_util::stream::iter([Ok(bytes)])
}

fn slowly(bytes: Bytes, size: usize, pause: Duration) -> impl futures_util::Stream<Item = Result<Bytes, Failure>> {
    futures_util::stream::unfold(bytes, move |mut bytes| async move {
        if bytes.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let piece = bytes.split_to(size.min(bytes.len()));
        Some((Ok(piece), bytes))
    })
}
