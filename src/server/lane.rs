//! The fast lane: a file over plain HTTP/1.1, the way LXD and Incus ask for it, which is one GET on a connection that ends then. The
//! kernel moves the bytes from the file to the socket ([`super::haul`]), also while it is fetched. Only the last byte of such a file,
//! which waits until all is verified, and what is not on the disk come out of the program's memory.
//!
//! The request is looked at and left in the socket. Whatever is not plainly one of these is hyper's, as if nobody had looked; what
//! is, is answered by [`route::answer`] like every other one, and only the way of its body is another.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::header::{CONNECTION, DATE, HeaderName, HeaderValue};
use hyper::http::response::Parts;
use hyper::{Method, Request, StatusCode, Version};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cache::error::FetchError;
use crate::cache::reader::Whereabouts;
use crate::server::body::{Body, Flow, Part};
use crate::server::door::{Door, Peer, PlainHttp};
use crate::server::haul::Haul;
use crate::server::route;
use crate::server::tally::Tally;

/// So much of a request is looked at. LXD's have some 200 bytes.
const LOOK_BYTES: usize = 2048;
/// Hosts of ours send five at most.
const MOST_HEADERS: usize = 8;
/// What is said instead of a file is no longer than this: a line of text.
const MOST_SAID_BYTES: u64 = 4096;
/// What such a request may say besides. Anything else may change the answer.
const HARMLESS: [&str; 5] = ["accept", "accept-encoding", "connection", "host", "user-agent"];

/// Whether the connection was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It was answered, and is over.
    Taken,
    /// Nothing was read of it.
    NotTaken,
}

/// Answers a connection, if it asks for a file and nothing else.
pub async fn serve(door: &Arc<Door>, stream: &TcpStream, peer: Peer, stop: &CancellationToken) -> io::Result<Lane> {
    let mut bytes = [0; LOOK_BYTES];
    let begun = tokio::select! {
        begun = timeout(door.bounds.header_timeout, stream.peek(&mut bytes)) => begun,
        () = stop.cancelled() => return Ok(Lane::NotTaken),
    };
    let count = begun.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no request came"))??;
    if door.policy.load().plain_http == PlainHttp::Off {
        return Ok(Lane::NotTaken);
    }
    let Some((len, request)) = wish(&bytes[..count]) else { return Ok(Lane::NotTaken) };
    if !route::has_sized_file(door, request.uri().path()) {
        return Ok(Lane::NotTaken);
    }
    let (head, body) = route::answer(door, peer, request).await.into_parts();
    let (head, haul) = (head_of(&head, door), Haul::to(stream, &door.metrics));
    match body.into_parts() {
        (Body::Part(part), tally) => {
            read_past(stream, len)?;
            haul.fill_segments()?;
            haul.write(&head).await?;
            send_part(haul, part, tally).await?;
        }
        (Body::Flow(flow), tally) if flow.reader.left().is_some() => {
            read_past(stream, len)?;
            haul.write(&head).await?;
            send_flow(haul, flow, tally).await?;
        }
        (said, mut tally) if said.size_hint().exact().is_some_and(|size| size <= MOST_SAID_BYTES) => {
            read_past(stream, len)?;
            let said = said.collect().await.map_err(io::Error::other)?.to_bytes();
            haul.write(&[&head[..], &said[..]].concat()).await?;
            tally.sent(said.len() as u64);
        }
        // Other documents came in between, and it is another one, of which nobody says how long it is; then hyper asks once more.
        _ => return Ok(Lane::NotTaken),
    }
    read_away(stream);
    Ok(Lane::Taken)
}

/// Takes what came after the request, within reason: of a connection that is closed with something unread, the system throws away
/// what the host has not taken yet.
fn read_away(stream: &TcpStream) {
    const LOOKS: usize = 32;
    let mut bytes = [0; LOOK_BYTES];
    let takes_something = |_| stream.try_read(&mut bytes).is_ok_and(|read| read > 0);
    let _ = (0..LOOKS).all(takes_something);
}

/// What these bytes ask for, if they are one whole request for a file, of an ordinary kind.
fn wish(bytes: &[u8]) -> Option<(usize, Request<()>)> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(len)) = parsed.parse(bytes) else { return None };
    let path = parsed.path.filter(|path| path.starts_with('/'))?;
    if len != bytes.len() || parsed.method != Some("GET") || parsed.version != Some(1) {
        return None;
    }
    let mut request = Request::builder().method(Method::GET).uri(path).version(Version::HTTP_11);
    let (mut hosts, mut closes) = (0, false);
    for header in parsed.headers.iter() {
        let name = HARMLESS.into_iter().find(|name| header.name.eq_ignore_ascii_case(name))?;
        match name {
            "host" => hosts += 1,
            "connection" if header.value.eq_ignore_ascii_case(b"close") => closes = true,
            "connection" => return None,
            _ => {}
        }
        request = request.header(HeaderName::from_static(name), HeaderValue::from_bytes(header.value).ok()?);
    }
    let request = request.body(()).ok()?;
    (closes && hosts == 1).then_some((len, request))
}

/// Takes a request out of the socket that was looked at.
fn read_past(stream: &TcpStream, len: usize) -> io::Result<()> {
    let mut bytes = [0; LOOK_BYTES];
    let read = stream.try_read(&mut bytes[..len])?;
    if read == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The head of an answer, as it goes over the wire.
fn head_of(head: &Parts, door: &Door) -> Vec<u8> {
    let status = head.status;
    let mut bytes = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), reason(status)).into_bytes();
    let mut add = |name: &HeaderName, value: &[u8]| {
        for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    };
    head.headers.iter().for_each(|(name, value)| add(name, value.as_bytes()));
    if let Ok(now) = door.clock.now().try_into() {
        add(&DATE, httpdate::fmt_http_date(now).as_bytes());
    }
    add(&CONNECTION, b"close");
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or_default()
}

/// Sends a part. It is complete and verified, and what turns out to be wrong of it meanwhile ends in the middle.
async fn send_part(mut haul: Haul<'_>, part: Part, mut tally: Tally) -> io::Result<()> {
    let (blob, mut position, end) = (&part.blob, part.range.start, part.range.end);
    while position < end {
        haul.writable().await?;
        haul.bring_in(blob.file(), position, end - position).await.inspect_err(|_| blob.note_failure())?;
        // It may have waited for its host for long.
        if blob.is_broken() {
            return Err(io::Error::other(FetchError::Broken));
        }
        let Some(sent) = haul.send(blob.file(), position, end - position).await? else { continue };
        if sent == 0 {
            blob.note_failure();
            return Err(ended_early());
        }
        position += sent;
        tally.sent(sent);
    }
    Ok(())
}

/// Sends a file as it comes in. Its last byte waits until all of it is verified.
async fn send_flow(mut haul: Haul<'_>, mut flow: Flow, mut tally: Tally) -> io::Result<()> {
    loop {
        // First, so that the file is not kept open for a host that takes nothing.
        haul.writable().await?;
        let Some(next) = flow.reader.whereabouts(usize::MAX).await else { break };
        match next.map_err(io::Error::other)? {
            Whereabouts::Memory(bytes) => {
                haul.write(&bytes).await?;
                tally.sent(bytes.len() as u64);
            }
            Whereabouts::File(file, Range { start, end }) => {
                haul.bring_in(&file, start, end - start).await.inspect_err(|_| flow.reader.note_failure())?;
                let Some(sent) = haul.send(&file, start, end - start).await? else { continue };
                if sent == 0 {
                    flow.reader.note_failure();
                    return Err(ended_early());
                }
                flow.reader.advance(sent);
                tally.sent(sent);
            }
        }
    }
    if flow.reader.left() == Some(0) { Ok(()) } else { Err(ended_early()) }
}

fn ended_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a file is shorter than it was")
}

#[cfg(test)]
mod tests {
    use crate::server::lane::wish;

    const LXD: &str = "GET /lab/images/noble/squashfs HTTP/1.1\r\nHost: localhost:18443\r\nUser-Agent: LXD 5.0.2 (Linux; x86_64; 6.18.44; Debian GNU/Linux; 12)\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";

    #[test]
    fn what_lxd_asks_is_understood() {
        let (len, request) = wish(LXD.as_bytes()).unwrap();
        assert_eq!((len, request.uri().path(), request.headers().len()), (LXD.len(), "/lab/images/noble/squashfs", 4));
    }

    #[test]
    fn whatever_is_not_plainly_that_is_left_alone() {
        for (from, to) in [
            ("GET", "HEAD"),
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("GET /lab", "GET http://x/lab"),
            ("Connection: close", "Connection: keep-alive"),
            ("Connection: close\r\n", ""),
            ("Connection: close", "Connection: close, upgrade"),
            ("Accept-Encoding: gzip", "Range: bytes=0-1"),
            ("Accept-Encoding: gzip", "If-None-Match: *"),
            ("Accept-Encoding: gzip", "Content-Length: 5"),
            ("Accept-Encoding: gzip", "Transfer-Encoding: chunked"),
            ("Accept-Encoding: gzip", "X-Forwarded-For: 1.1.1.1"),
            ("Accept-Encoding: gzip", "Host: other"),
            ("Host: localhost:18443\r\n", ""),
            ("\r\n\r\n", "\r\n"),
            ("\r\n\r\n", "\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
            ("GET", "\u{16}"),
            ("Host: localhost", "Host : localhost"),
        ] {
            assert!(wish(LXD.replacen(from, to, 1).as_bytes()).is_none(), "{from:?} -> {to:?}");
        }
    }
}
