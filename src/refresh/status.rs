//! What people see of each remote.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::api::{FailingUrl, HeldBack, LastRefresh, Missing, RefreshReport, RefreshResult, RemoteStatus};
use crate::catalog::{self, Catalog};
use crate::digest::Fingerprint;
use crate::fetch::source::Source;
use crate::health::Illness;
use crate::simplestreams::snapshot::Snapshot;

/// The status of every remote.
#[derive(Debug, Default)]
pub struct StatusBoard(Mutex<BTreeMap<String, Shown>>);

/// A remote's status, and whom to ask how it does at this moment.
#[derive(Debug)]
struct Shown {
    status: RemoteStatus,
    source: Arc<Source>,
    /// Why images that are held back could not be had, lately.
    problems: HashMap<Fingerprint, String>,
}

impl StatusBoard {
    /// Shows these remotes and no others. What is known of them already stays.
    pub fn show(&self, remotes: Vec<(RemoteStatus, Arc<Source>)>) {
        self.with(|board| {
            let mut old = std::mem::take(board);
            for (fresh, source) in remotes {
                let status = match old.remove(&fresh.name) {
                    Some(known) => {
                        // How the last refresh ended says nothing of one that is not refreshed.
                        let last_refresh = known.status.last_refresh.filter(|_| fresh.mode != "offline");
                        RemoteStatus {
                            urls: fresh.urls,
                            mode: fresh.mode,
                            missing: None,
                            held_back: Vec::new(),
                            last_refresh,
                            ..known.status
                        }
                    }
                    None => fresh,
                };
                board.insert(status.name.clone(), Shown { status, source, problems: HashMap::new() });
            }
        });
    }

    /// All of them, by name, with what is served of them.
    pub fn all(&self, catalog: &Catalog) -> Vec<RemoteStatus> {
        let now = |shown: &Shown| {
            let served = catalog.remotes.get(&*shown.status.name);
            RemoteStatus {
                healthy: shown.source.is_healthy(),
                failing: shown.source.illnesses().into_iter().map(failing).collect(),
                images: served.map_or(0, |remote| remote.listing.images().len()),
                held_back: served.map_or_else(Vec::new, |remote| remote.held_back.iter().map(|image| shown.held_back(image)).collect()),
                ..shown.status.clone()
            }
        };
        self.with(|board| board.values().map(now).collect())
    }

    /// Notes what the disk had.
    pub fn loaded(&self, remote: &str, newest: Option<&Snapshot>) {
        self.change(remote, |status| show_documents(status, newest));
    }

    /// Notes what a remote in mirror mode does not hold yet.
    pub fn missing(&self, remote: &str, missing: Missing) {
        self.change(remote, |status| status.missing = Some(missing));
    }

    /// Notes why images that are held back cannot be had.
    pub fn problems(&self, remote: &str, problems: HashMap<Fingerprint, String>) {
        self.with(|board| board.get_mut(remote).map(|shown| shown.problems = problems));
    }

    /// Notes how a refresh ended.
    pub fn refreshed(&self, report: &RefreshReport, at: Timestamp, newest: Option<&Snapshot>) {
        self.change(&report.remote, |status| {
            show_documents(status, newest);
            let at = at.to_string();
            if matches!(report.result, RefreshResult::Changed | RefreshResult::Unchanged) {
                status.last_success_at = Some(at.clone());
            }
            status.last_refresh = Some(LastRefresh { at, result: report.result, reason: report.reason.clone() });
        });
    }

    fn change(&self, remote: &str, change: impl FnOnce(&mut RemoteStatus)) {
        self.with(|board| board.get_mut(remote).map(|shown| change(&mut shown.status)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Shown>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shown {
    fn held_back(&self, held_back: &catalog::HeldBack) -> HeldBack {
        let catalog::HeldBack { image, since, .. } = held_back;
        HeldBack {
            product: image.version.product.name.clone(),
            version: image.version.serial.to_string(),
            image_type: image.image_type.to_string(),
            since: since.to_string(),
            problem: self.problems.get(&image.fingerprint).cloned(),
        }
    }
}

fn failing((url, illness): (&str, Illness)) -> FailingUrl {
    FailingUrl { url: url.to_owned(), failures: illness.failures, asked_last_until: illness.asked_last_until.to_string() }
}

fn show_documents(status: &mut RemoteStatus, newest: Option<&Snapshot>) {
    status.documents_from = newest.map(|snapshot| snapshot.url.clone());
    status.documents_taken_at = newest.map(|snapshot| snapshot.accepted_at.to_string());
}
