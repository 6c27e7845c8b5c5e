//! Tests from outside: of the sources, of the server, of the commands.

mod bounding;
mod bundling;
mod commands;
mod completing;
mod crashing;
mod database;
mod deeds;
mod draining;
mod evicting;
mod exporting;
mod failing;
mod fetching;
mod fuzzing;
mod handing;
mod hauling;
mod holding;
mod images;
mod importing;
mod keeping;
mod killing;
mod managing;
mod probing;
mod publishing;
mod querying;
mod queueing;
mod reconciling;
mod refreshing;
mod retaining;
mod running;
mod serving;
mod sharing;
#[path = "../support/main.rs"]
mod support;
mod tidy;
mod timing;
