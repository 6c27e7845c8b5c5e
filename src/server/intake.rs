//! Images that a command sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper::{Request, StatusCode};
use reqwest::Url;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::api::Step;
use crate::digest::Digest;
use crate::library::Library;
use crate::library::intake::Sent;
use crate::library::publishing::Offer;
use crate::library::supply::{SILENCE, Supply, silent};
use crate::server::reply::{Reply, error, json};
use crate::server::verdict;

/// How many pieces of a body may wait for the disk.
const QUEUED_PIECES: usize = 4;

/// Publishes the image whose files are the body, one after the other. The query says what they are: `file` as
/// `SHA256:SIZE:NAME` for each, `alias`, `public`, and `property` as `KEY=VALUE`.
pub async fn publish(library: Arc<Library>, request: Request<Incoming>) -> Reply {
    let Some(offer) = offer(request.uri().query().unwrap_or_default()) else {
        return error(
            StatusCode::BAD_REQUEST,
            "this is no image that could be taken in; is the program of another version than the server?",
        );
    };
    let (supply, feeding) = supply(request.into_body());
    // Once all is here it is done to the end, also if the command leaves.
    let publisher = Arc::clone(&library);
    let published = library.to_the_end(async move { publisher.publish(offer, supply).await }).await;
    // An answer in the middle of what a command sends would be lost.
    drop(feeding.await);
    match published {
        Ok(fingerprint) => json(StatusCode::OK, &Step::Done { text: fingerprint.to_string() }),
        Err(reason) => error(verdict::status(&reason), reason),
    }
}

/// The bytes of a body, as a file's; and the task that reads them.
pub fn supply(body: Incoming) -> (Supply, JoinHandle<()>) {
    let (pieces, queue) = mpsc::channel(QUEUED_PIECES);
    (Supply::queued(queue), tokio::spawn(feed(body, pieces)))
}

async fn feed<B>(body: B, pieces: mpsc::Sender<Result<Bytes, String>>)
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    loop {
        let piece = match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(reason))) => Err(reason.to_string()),
            Err(_) => Err(silent()),
        };
        // Nobody wants it any more; what comes is read all the same, up to where the connection breaks.
        let is_broken = piece.is_err();
        drop(pieces.send(piece).await);
        if is_broken {
            return;
        }
    }
}

fn offer(query: &str) -> Option<Offer> {
    let url = Url::parse(&format!("http://admin/?{query}")).ok()?;
    let mut offer = Offer::default();
    let mut properties = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        match &*name {
            "file" => offer.files.push(file(&value)?),
            "alias" => offer.aliases.push(value.into_owned()),
            "public" => offer.public = true,
            "property" => {
                let (key, value) = value.split_once('=')?;
                properties.insert(key.to_owned(), value.to_owned());
            }
            _ => return None,
        }
    }
    offer.properties = properties;
    (1..=2).contains(&offer.files.len()).then_some(offer)
}

fn file(text: &str) -> Option<(String, Sent)> {
    let (digest, rest) = text.split_once(':')?;
    let (size, name) = rest.split_once(':')?;
    Some((name.to_owned(), Sent { digest: Digest::from_hex(digest)?, size: size.parse().ok()? }))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tokio::sync::mpsc;

    use crate::library::supply::SILENCE;
    use crate::server::intake::{QUEUED_PIECES, feed};

    #[tokio::test(start_paused = true)]
    async fn a_command_that_sends_nothing_is_gone_on_without() {
        let piece = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"a")));
        let body = StreamBody::new(stream::iter([piece]).chain(stream::pending()));
        let (pieces, mut queue) = mpsc::channel(QUEUED_PIECES);
        let started = tokio::time::Instant::now();
        let feeding = tokio::spawn(feed(body, pieces));
        assert_eq!(queue.recv().await.unwrap().unwrap(), "a");
        assert_eq!(queue.recv().await.unwrap().unwrap_err(), "nothing came for 60 seconds");
        assert_eq!(started.elapsed(), SILENCE);
        feeding.await.unwrap();
    }
}
