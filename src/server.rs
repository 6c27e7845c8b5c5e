//! HTTP in, HTTP out: what hosts, people and Prometheus talk to.
//!
//! [`listener`] accepts, [`connection`] tells TLS from plain HTTP, [`route`] tells what is asked for, and one file each
//! answers that. What goes through hyper works over any `AsyncRead + AsyncWrite`; the fast lane is for sockets.

pub mod access;
pub mod admin;
pub mod aliases;
pub mod blob;
pub mod body;
pub mod bundles;
pub mod connection;
pub mod document;
pub mod door;
pub mod haul;
pub mod images;
pub mod imports;
pub mod intake;
pub mod lane;
pub mod listener;
pub mod observe;
pub mod page;
pub mod problem;
pub mod reply;
pub mod respond;
pub mod route;
pub mod stock;
pub mod stream;
pub mod tally;
pub mod verdict;
pub mod verify;
pub mod watch;
