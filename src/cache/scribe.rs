//! Writes the ledger down, a batch at a time. What changes while a batch is written waits for the next one, and what could
//! not be written is tried again with it: nothing is lost but time.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cache::books::Books;
use crate::database::Database;
use crate::ledger::Ledger;

/// How long changes wait for others to be written with. A crash loses the times of use of so long.
const PAUSE: Duration = Duration::from_secs(5);

/// Writes until it is stopped, and then the last batch.
pub async fn run(books: Arc<Books>, database: Database, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
        write(&books, &database).await;
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
