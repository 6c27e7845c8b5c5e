//! Tests from outside: of the sources, of the server, of the commands.

mod serving;
#[path = "../support/main.rs"]
mod support;
mod tidy;
