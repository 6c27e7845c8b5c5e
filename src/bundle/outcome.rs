//! What came of an import, or would come of it.

use std::collections::BTreeMap;

use crate::api::{ImportReport, MissingVolume, RefreshReport, RefreshResult};
use crate::bundle::arrival::Arrival;
use crate::bundle::outlook::Outlook;
use crate::manifest::Manifest;
use crate::refresh::desk::NoRefresh;

/// Why documents are not served.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// Nobody takes them.
    #[error(transparent)]
    NotFed(#[from] NoRefresh),
    /// They are none that can be served.
    #[error("{0}")]
    Refused(String),
}

/// Whether documents are served now.
pub fn served(fed: Result<RefreshReport, NoRefresh>) -> Result<(), NotServed> {
    let report = fed?;
    match report.result {
        RefreshResult::Changed | RefreshResult::Unchanged => Ok(()),
        RefreshResult::Refused | RefreshResult::Failed => Err(NotServed::Refused(report.reason.unwrap_or_default())),
    }
}

/// What people are told.
pub fn report(arrival: &Arrival, outlook: &Outlook, newcomers: &[String], listed: bool) -> ImportReport {
    let Manifest { generation, created_at, .. } = &arrival.manifest;
    let missing = outlook.missing.iter().fold(BTreeMap::new(), |mut volumes: BTreeMap<usize, MissingVolume>, (volume, file)| {
        let missing = volumes.entry(*volume).or_insert_with(|| MissingVolume { volume: volume + 1, blobs: 0, size: 0 });
        missing.blobs += 1;
        missing.size += file.size;
        volumes
    });
    ImportReport {
        generation: *generation,
        created_at: created_at.clone(),
        signed_by: arrival.key.to_string(),
        listed,
        remotes: outlook.remotes.iter().map(|prospect| prospect.shown(newcomers)).collect(),
        missing: missing.into_values().collect(),
        lacking: outlook.lacking.clone(),
        why: outlook.why.clone(),
    }
}
