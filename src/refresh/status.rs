//! What people see of each remote.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::api::{LastRefresh, Missing, RefreshReport, RefreshResult, RemoteStatus};
use crate::fetch::source::Source;
use crate::simplestreams::snapshot::Snapshot;

/// The status of every remote.
#[derive(Debug, Default)]
pub struct StatusBoard(Mutex<BTreeMap<String, Shown>>);

/// A remote's status, and whom to ask how it does at this moment.
#[derive(Debug)]
struct Shown {
    status: RemoteStatus,
    source: Arc<Source>,
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
                        RemoteStatus { urls: fresh.urls, mode: fresh.mode, missing: None, last_refresh, ..known.status }
                    }
                    None => fresh,
                };
                board.insert(status.name.clone(), Shown { status, source });
            }
        });
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<RemoteStatus> {
        let now = |shown: &Shown| RemoteStatus { healthy: shown.source.is_healthy(), ..shown.status.clone() };
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

fn show_documents(status: &mut RemoteStatus, newest: Option<&Snapshot>) {
    status.documents_from = newest.map(|snapshot| snapshot.url.clone());
    status.documents_taken_at = newest.map(|snapshot| snapshot.accepted_at.to_string());
}
