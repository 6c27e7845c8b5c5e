//! Writes the ledger down, a batch at a time. What changes while a batch is written waits for the next one, and what could
//! not be written is tried again with it: nothing is lost but time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cache::books::Books;
use crate::database::Database;
use crate::ledger::Ledger;

/// How long changes wait for others to be written with. A crash loses the times of use of so long.
const PAUSE: Duration = Duration::from_secs(5);

/// Whoever waits until what changed is written down.
pub type Waiting = oneshot::Sender<()>;

/// Writes until it is stopped, and then the last batch.
pub async fn run(books: Arc<Books>, database: Database, mut wishes: mpsc::Receiver<Waiting>, stop: CancellationToken) {
    loop {
        let waiting = tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(PAUSE) => None,
            Some(waiting) = wishes.recv() => Some(waiting),
        };
        write(&books, &database).await;
        if let Some(Err(())) = waiting.map(|waiting| waiting.send(())) {
            tracing::debug!("whoever waited for the database has left");
        }
    }
    write(&books, &database).await;
    database.close().await;
}

async fn write(books: &Books, database: &Database) {
    let changes = books.change(Ledger::take_changes);
    if changes.is_empty() {
        return;
    }
    if let Err((error, changes)) = database.write(changes).await {
        tracing::error!(
            error,
            "the database could not be written; it is tried again, and made anew at the next start if that does not help"
        );
        books.change(|ledger| ledger.give_back(&changes));
    }
}
