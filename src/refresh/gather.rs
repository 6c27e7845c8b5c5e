//! Gathers a whole set of documents from one URL.
//!
//! The index, what it names, and their signed twins if there are any. A document that is still what the URL sent last
//! time is not sent again.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use jiff::Timestamp;

use crate::cache::blocking;
use crate::fetch::source::Source;
use crate::http::path::StreamPath;
use crate::refresh::gathered::Gathered;
use crate::refresh::past::Past;
use crate::revalidation::census::Census;
use crate::revalidation::document::{Wanted, read_index};
use crate::revalidation::refusal::Refusal;
use crate::simplestreams::index::{INDEX_PATH, Kind, SIGNED_INDEX_PATH};
use crate::simplestreams::snapshot::{Role, Snapshot, Source as Document};
use crate::store::snapshots::Validators;
use crate::upstream::{self, Answer, Failure, Request};

/// The bounds of a set of documents.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The largest document, unpacked.
    pub document_bytes: u64,
    /// The most documents.
    pub documents: usize,
    /// The longest time for all of them.
    pub deadline: Duration,
}

/// Why a URL has no set of documents for us.
#[derive(Debug, thiserror::Error)]
pub enum NotGathered {
    /// It could not be asked for this document.
    #[error("{0}: {1}")]
    Failure(StreamPath, Failure),
    /// What it has is no set of documents.
    #[error(transparent)]
    Refusal(#[from] Refusal),
}

/// Gathers documents.
#[derive(Debug)]
pub struct Gatherer<'a> {
    /// From whom.
    pub source: &'a Source,
    /// From which of its URLs.
    pub url: usize,
    /// What we have already.
    pub past: &'a Past,
    /// Within which bounds.
    pub bounds: &'a Bounds,
    /// When.
    pub now: Timestamp,
}

#[derive(Debug, Default)]
struct Set {
    documents: Vec<Document>,
    validators: BTreeMap<String, Validators>,
    seen: HashSet<StreamPath>,
}

impl Gatherer<'_> {
    /// Gathers a whole set, or says why there is none.
    pub async fn gather(&self) -> Result<Gathered, NotGathered> {
        let all = tokio::time::timeout(self.bounds.deadline, self.gather_all()).await;
        let late = || NotGathered::Failure(well_known(INDEX_PATH), Failure::Silent("for all documents to come"));
        let Set { documents, validators, .. } = all.map_err(|_| late())??;
        let accepted_at = self.past.next_time(self.now);
        let snapshot = Arc::new(Snapshot { url: self.url_name().to_owned(), accepted_at, documents });
        // Large documents take as long to be written as to be read.
        let (census, staged) = tokio::join!(census(&snapshot), self.stage(&snapshot));
        Ok(Gathered { snapshot, staged, census: census?, validators: (self.url_name().to_owned(), validators) })
    }

    async fn stage(&self, snapshot: &Arc<Snapshot>) -> io::Result<()> {
        if self.past.has(snapshot) { Ok(()) } else { self.past.stage(Arc::clone(snapshot)).await }
    }

    async fn gather_all(&self) -> Result<Set, NotGathered> {
        let mut set = Set::default();
        self.unsigned(&mut set).await?;
        self.signed(&mut set).await?;
        Ok(set)
    }

    async fn unsigned(&self, set: &mut Set) -> Result<(), NotGathered> {
        let index = well_known(INDEX_PATH);
        let first = self.fetch(&index, Role::Index, set).await.map_err(|failure| NotGathered::Failure(index, failure))?;
        let mut indexes = VecDeque::from([first]);
        while let Some(index) = indexes.pop_front() {
            let wanted = read_index(&index.path, &index.bytes)?.wanted;
            set.add(index);
            for wanted in wanted {
                if !set.is_new(&wanted.path, self.bounds)? {
                    continue;
                }
                match self.wanted(&wanted, set).await? {
                    Some(nested) if nested.role == Role::Index => indexes.push_back(nested),
                    Some(document) => set.add(document),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// A document that an index names; `None` if hosts can do without it. They fail on the whole remote without one of
    /// images.
    async fn wanted(&self, wanted: &Wanted, set: &mut Set) -> Result<Option<Document>, NotGathered> {
        let is_needed = wanted.kind != Kind::Other;
        match self.fetch(&wanted.path, wanted.kind.into(), set).await {
            Ok(received) => Ok(Some(received)),
            Err(failure) if is_absent(&failure) && is_needed => Err(Refusal::Missing { path: wanted.path.clone() }.into()),
            Err(failure) if is_absent(&failure) || matches!(failure, Failure::TooLarge { .. }) && !is_needed => {
                tracing::info!(remote = %self.source.name(), document = %wanted.path, %failure, "left out: a document for others");
                Ok(None)
            }
            Err(failure) => Err(NotGathered::Failure(wanted.path.clone(), failure)),
        }
    }

    /// Signed twins and detached signatures, as far as upstream has them. Neither LXD nor Incus asks for any, so nothing
    /// that goes wrong with them keeps the rest back.
    async fn signed(&self, set: &mut Set) -> Result<(), Refusal> {
        let unsigned: Vec<StreamPath> = set.documents.iter().map(|document| document.path.clone()).collect();
        let index = well_known(SIGNED_INDEX_PATH);
        if let Some(received) = self.optional(&index, set).await
            && let Ok(facts) = read_index(&index, &received.bytes)
        {
            set.add(received);
            self.add_signed(facts.wanted.into_iter().map(|wanted| wanted.path), set).await?;
        }
        let signature = |path: &StreamPath| StreamPath::from_document(&format!("{path}.gpg")).ok();
        let mut signatures = unsigned.iter().filter_map(signature);
        let Some(first) = signatures.next() else { return Ok(()) };
        if let Some(received) = self.optional(&first, set).await.filter(|received| is_signature(&received.bytes)) {
            set.add(received);
            self.add_signed(signatures, set).await?;
        }
        Ok(())
    }

    async fn add_signed(&self, paths: impl Iterator<Item = StreamPath> + Send, set: &mut Set) -> Result<(), Refusal> {
        for path in paths {
            if set.is_new(&path, self.bounds)?
                && let Some(received) = self.optional(&path, set).await
            {
                set.add(received);
            }
        }
        Ok(())
    }

    /// A document that nobody named.
    async fn optional(&self, path: &StreamPath, set: &mut Set) -> Option<Document> {
        match self.fetch(path, Role::Signed, set).await {
            Ok(received) => Some(received),
            Err(failure) => {
                tracing::debug!(remote = %self.source.name(), document = %path, %failure, "no signed document");
                None
            }
        }
    }

    async fn fetch(&self, path: &StreamPath, role: Role, set: &mut Set) -> Result<Document, Failure> {
        let known = self.past.validators(self.url_name(), path);
        let (etag, last_modified) = known.map(|(known, _)| (known.etag.clone(), known.last_modified.clone())).unwrap_or_default();
        let kind = upstream::Kind::Document { etag, last_modified };
        let answer = self.source.upstream().get(Request { url: self.url, path: path.clone(), kind }).await?;
        let (document, validators) = match (answer.status, known) {
            (200, _) => self.receive(path, role, answer).await?,
            (304, Some((known, document))) => {
                let mut same = document.clone();
                same.role = role;
                (same, known.clone())
            }
            (status, _) => return Err(Failure::Nonsense(format!("{status} to a request for a document"))),
        };
        set.validators.insert(path.to_string(), validators);
        Ok(document)
    }

    async fn receive(&self, path: &StreamPath, role: Role, answer: Answer) -> Result<(Document, Validators), Failure> {
        let limit = self.bounds.document_bytes;
        // Memory that grows step by step is copied as often.
        let mut bytes = BytesMut::with_capacity(usize::try_from(answer.length.unwrap_or_default().min(limit)).unwrap_or_default());
        let mut body = answer.body;
        while let Some(piece) = body.next().await {
            let piece = piece?;
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(Failure::TooLarge { limit });
            }
            bytes.extend_from_slice(&piece);
        }
        if answer.length.is_some_and(|length| length != bytes.len() as u64) {
            return Err(Failure::Cut("it ended early".to_owned()));
        }
        let (path, bytes) = (path.clone(), bytes.freeze());
        // A large document takes longer to hash and to read than anybody else should wait for this thread.
        let read = blocking(move || Ok(Document::new(path, role, bytes))).await;
        let document = read.map_err(|error| Failure::Nonsense(error.to_string()))?;
        let digest = document.digest.to_string();
        Ok((document, Validators { etag: answer.etag, last_modified: answer.last_modified, digest }))
    }

    fn url_name(&self) -> &str {
        self.source.upstream().urls().get(self.url).map_or("", String::as_str)
    }
}

async fn census(snapshot: &Arc<Snapshot>) -> Result<Census, NotGathered> {
    let snapshot = Arc::clone(snapshot);
    let counted = blocking(move || Ok(Census::of(&snapshot))).await;
    let census = counted.map_err(|error| NotGathered::Failure(well_known(INDEX_PATH), Failure::Nonsense(error.to_string())))?;
    Ok(census?)
}

impl Set {
    fn add(&mut self, document: Document) {
        self.seen.insert(document.path.clone());
        self.documents.push(document);
    }

    /// Whether a document is to be fetched; an error if there are too many already.
    fn is_new(&mut self, path: &StreamPath, bounds: &Bounds) -> Result<bool, Refusal> {
        if self.seen.len() >= bounds.documents {
            return Err(Refusal::TooMuch(format!("more than {} documents (limits.documents)", bounds.documents)));
        }
        Ok(self.seen.insert(path.clone()))
    }
}

/// Storage services say 403 for what is not there.
fn is_absent(failure: &Failure) -> bool {
    failure.is_gone() || matches!(failure, Failure::Status { code: 403, .. })
}

/// A server that answers everything with a page has no signatures.
fn is_signature(bytes: &[u8]) -> bool {
    bytes.starts_with(b"-----BEGIN PGP") || bytes.first().is_some_and(|first| first & 0x80 != 0)
}

fn well_known(path: &str) -> StreamPath {
    StreamPath::from_document(path).expect("the paths of indexes are paths")
}
