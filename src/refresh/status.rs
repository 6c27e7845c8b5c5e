//! What people see of each remote.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::api::{LastRefresh, RefreshReport, RefreshResult, RemoteStatus};
use crate::simplestreams::snapshot::Snapshot;

/// The status of every remote.
#[derive(Debug, Default)]
pub struct StatusBoard(Mutex<BTreeMap<String, RemoteStatus>>);

impl StatusBoard {
    /// Shows these remotes and no others. What is known of them already stays.
    pub fn show(&self, remotes: Vec<RemoteStatus>) {
        self.with(|board| {
            let mut old = std::mem::take(board);
            for fresh in remotes {
                let known = old.remove(&fresh.name);
                let status = match known {
                    Some(known) => RemoteStatus { urls: fresh.urls, mode: fresh.mode, ..known },
                    None => fresh,
                };
                board.insert(status.name.clone(), status);
            }
        });
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<RemoteStatus> {
        self.with(|board| board.values().cloned().collect())
    }

    /// Notes what the disk had.
    pub fn loaded(&self, remote: &str, newest: Option<&Snapshot>) {
        self.change(remote, |status| show_documents(status, newest));
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
        self.with(|board| board.get_mut(remote).map(change));
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, RemoteStatus>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn show_documents(status: &mut RemoteStatus, newest: Option<&Snapshot>) {
    status.documents_from = newest.map(|snapshot| snapshot.url.clone());
    status.documents_taken_at = newest.map(|snapshot| snapshot.accepted_at.to_string());
}
