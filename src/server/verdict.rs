//! What a command is told when something cannot be done with images: one match, from error to status.

use hyper::StatusCode;

use crate::library::error::LibraryError;
use crate::refresh::desk::NoRefresh;

/// The status that goes with a reason.
pub fn status(reason: &LibraryError) -> StatusCode {
    match reason {
        LibraryError::NoImage(_) | LibraryError::NoAlias(_) | LibraryError::Refresh(NoRefresh::NoRemote) => StatusCode::NOT_FOUND,
        LibraryError::Time(_)
        | LibraryError::Architecture(_)
        | LibraryError::BadAlias(_)
        | LibraryError::BadProperty(_)
        | LibraryError::NoImageFile(_)
        | LibraryError::NotSent(_) => StatusCode::BAD_REQUEST,
        LibraryError::NotHeld(_)
        | LibraryError::Mirrored(_)
        | LibraryError::NotEditable { .. }
        | LibraryError::Wrong
        | LibraryError::NoUpdates
        | LibraryError::AliasTaken(..)
        | LibraryError::Refresh(NoRefresh::Offline | NoRefresh::NotOffline) => StatusCode::CONFLICT,
        LibraryError::InUse(_)
        | LibraryError::SentByAnother(_)
        | LibraryError::Leftover
        | LibraryError::Uncounted
        | LibraryError::Ending(_)
        | LibraryError::Refresh(NoRefresh::Stopped) => StatusCode::SERVICE_UNAVAILABLE,
        LibraryError::Fetch { .. } => StatusCode::BAD_GATEWAY,
        LibraryError::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
        LibraryError::NotRecorded | LibraryError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
