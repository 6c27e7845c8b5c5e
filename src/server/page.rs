//! The page for people who open the server in a browser.

use std::fmt::Write as _;

use hyper::header::{CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use hyper::http::uri::Authority;
use hyper::{Response, StatusCode};

use crate::catalog::Catalog;
use crate::server::body::{self, Body};
use crate::server::respond;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;color:#222}\
pre{background:#f4f4f4;padding:.75rem 1rem;overflow-x:auto}table{border-collapse:collapse}td,th{padding:.2rem 1.5rem .2rem 0;text-align:left}\
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#262626}a{color:#8ab4f8}}";

/// Says what is served here and how a host uses it. `authority` is what the visitor calls this server.
pub fn answer(catalog: &Catalog, authority: Option<Authority>, is_head: bool) -> Response<Body> {
    let name = authority.map_or_else(|| "this-server".to_owned(), |authority| authority.to_string());
    let html = render(catalog, &escape(&name));
    let head = respond::head(StatusCode::OK)
        .header(CONTENT_TYPE, "text/html; charset=utf-8")
        .header(CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")
        .header(CONTENT_LENGTH, html.len());
    if is_head { respond::without_body(head) } else { respond::finish(head, body::full(html.into())) }
}

fn render(catalog: &Catalog, name: &str) -> String {
    let mut remotes: Vec<_> = catalog.remotes.iter().collect();
    remotes.sort_by_key(|(name, _)| (*name).clone());
    let mut rows = String::new();
    for (remote, served) in remotes {
        let (remote, images) = (escape(remote), served.listing.images().len());
        let state = if served.stale { "its image server cannot be asked at the moment" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(rows, "<tr><td><a href=\"/{remote}/streams/v1/index.json\">{remote}</a><td>{images}<td>{state}");
    }
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>Cistern</title><style>{STYLE}</style>\
<h1>Cistern</h1><p>A mirror of image servers for LXD and Incus.</p>\
<h2>Use it</h2><pre>lxc remote add mirror https://{name} --protocol=simplestreams\nlxc launch mirror:24.04\n\nincus remote add mirror https://{name} --protocol=simplestreams\nincus launch mirror:24.04</pre>\
<p>A host must trust this server's certificate first: <code>cistern certificate trust</code> on the server prints how.</p>\
<h2>What is here</h2><table><tr><th>Remote<th>Images<th>{rows}</table>\
<p>Each remote also stands alone: <code>https://{name}/REMOTE</code>.</p></html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
