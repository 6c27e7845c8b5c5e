//! Documents in a cleartext signature (RFC 9580 §7): the JSON inside an `.sjson`.
//!
//! Takes the frame off; it verifies nothing. Some servers name plain JSON `.sjson` (Juju's users do), and that is taken
//! as it is.

use std::borrow::Cow;

const BEGIN_MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";

/// Why a signed document cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// It is neither UTF-8 nor anything else that a document may be.
    #[error("it is not text")]
    NotText,
    /// There is no empty line after the headers, or no signature after the text.
    #[error("its cleartext signature has no {0}")]
    Missing(&'static str),
}

/// The text that a document carries: all of it, or what its signature frame holds.
pub fn payload(document: &[u8]) -> Result<Cow<'_, [u8]>, BadFrame> {
    if !document.starts_with(BEGIN_MESSAGE.as_bytes()) {
        return Ok(Cow::Borrowed(document));
    }
    let text = std::str::from_utf8(document).map_err(|_| BadFrame::NotText)?;
    let mut lines = text.lines();
    if !lines.any(|line| line.trim().is_empty()) {
        return Err(BadFrame::Missing("empty line after its headers"));
    }
    let mut inside = String::with_capacity(text.len());
    for line in lines {
        if line.starts_with(BEGIN_SIGNATURE) {
            return Ok(Cow::Owned(inside.into_bytes()));
        }
        inside.push_str(line.strip_prefix("- ").unwrap_or(line));
        inside.push('\n');
    }
    Err(BadFrame::Missing("signature after its text"))
}

/// The payload as text, which JSON always is.
pub fn text(document: &[u8]) -> Result<Cow<'_, str>, BadFrame> {
    match payload(document)? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| BadFrame::NotText),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| BadFrame::NotText),
    }
}

#[cfg(test)]
mod tests {
    use crate::signature::{BadFrame, payload};

    #[test]
    fn a_plain_document_is_its_own_payload() {
        assert_eq!(&*payload(b"{}").unwrap(), b"{}");
        assert_eq!(&*payload(b"").unwrap(), b"");
    }

    #[test]
    fn a_signed_document_is_opened_and_its_dashes_unescaped() {
        let signed = "-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA512\r\n\r\n{\r\n- -1\r\n}\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\nxx\r\n-----END PGP SIGNATURE-----\r\n";
        assert_eq!(&*payload(signed.as_bytes()).unwrap(), b"{\n-1\n}\n");
    }

    #[test]
    fn a_broken_frame_is_refused() {
        let begin = "-----BEGIN PGP SIGNED MESSAGE-----\n";
        assert_eq!(payload(format!("{begin}Hash: x").as_bytes()), Err(BadFrame::Missing("empty line after its headers")));
        assert_eq!(payload(format!("{begin}\n{{}}\n").as_bytes()), Err(BadFrame::Missing("signature after its text")));
        assert_eq!(payload([begin.as_bytes(), &[0xff]].concat().as_slice()), Err(BadFrame::NotText));
    }
}
