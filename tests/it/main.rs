//! Tests from outside: of the sources, of the server, of the commands.

mod tidy;
