//! The power goes at each single change of the disk, and what was not synced is lost, kept or torn: what is found afterwards
//! is sound, and what was said to be done is done (design.md §6, invariants 2, 3, 5 and 7; T20).

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use crate::deeds::{
    Deed, Stage, Verdict, comes_to_hold, commit, decision, eviction, exposure, feeding, feeding_again, feeding_in_part, forgetting, import,
    is_counted, is_sound, keeping, learning, refresh, withdrawal,
};
use crate::support::mirror::Mirror;
use crate::support::power::{Database, Outcome, Unsynced};

/// What may be found when the power is back: each state of the database, and with each what was not synced in two ways.
const OUTCOMES: [Outcome; 6] = [
    Outcome { names: Unsynced::Lost, bytes: Unsynced::Lost, database: Database::Now },
    Outcome { names: Unsynced::Kept, bytes: Unsynced::Lost, database: Database::Then },
    Outcome { names: Unsynced::Kept, bytes: Unsynced::Torn, database: Database::Missing },
    Outcome { names: Unsynced::Torn, bytes: Unsynced::Kept, database: Database::Now },
    Outcome { names: Unsynced::Lost, bytes: Unsynced::Kept, database: Database::Then },
    Outcome { names: Unsynced::Torn, bytes: Unsynced::Torn, database: Database::Missing },
];

impl<P, S: AsyncFn() -> Stage, A: AsyncFn(&Stage) -> P, C: AsyncFn(&Mirror, &P) -> Verdict> Deed<S, A, C> {
    /// Lets the power go instead of each change, one after the other, and looks at whatever is found then, upstream being
    /// away.
    async fn survives(&self) {
        for changes in 0.. {
            assert!(changes < 200, "it goes on changing the disk");
            let (went_at, verdicts) = self.verdicts(changes, None, OUTCOMES).await;
            for (outcome, verdict) in verdicts {
                assert_eq!(verdict, Ok(()), "the power went at change {changes}, {went_at:?}; then {outcome:?}");
            }
            if went_at.is_none() {
                return;
            }
        }
    }

    /// Ignores all syncs of one kind of path at a time, and expects that this shows. What is in `harmless` need not.
    async fn needs_every_sync_but(&self, harmless: &[&str]) {
        let stage = (self.stage)().await;
        stage.disk.arm(&stage.mirror.store(), usize::MAX);
        (self.act)(&stage).await;
        let kinds = stage.disk.synced();
        stage.mirror.stop().await;
        for kind in kinds.iter().filter(|kind| !harmless.contains(&kind.as_str())) {
            let (_, verdicts) = self.verdicts(usize::MAX, Some(kind), OUTCOMES).await;
            assert!(verdicts.iter().any(|(_, verdict)| verdict.is_err()), "without the sync of {kind} all is well; all are {kinds:?}");
        }
    }

    /// What is found when the power went after so many changes.
    async fn verdicts(
        &self,
        changes: usize,
        deaf: Option<&str>,
        outcomes: impl IntoIterator<Item = Outcome>,
    ) -> (Option<String>, Vec<(Outcome, Verdict)>) {
        let mut stage = (self.stage)().await;
        deaf.into_iter().for_each(|kind| stage.disk.ignore_syncs_of(kind));
        stage.disk.arm(&stage.mirror.store(), changes);
        let promise = (self.act)(&stage).await;
        let went_at = stage.disk.went_at();
        stage.disk.cut();
        stage.origin.stop().await;
        let Stage { mut mirror, disk, .. } = stage;
        let mut verdicts = Vec::new();
        for outcome in outcomes {
            let started = AssertUnwindSafe(mirror.restart_after(|| disk.restore(outcome))).catch_unwind().await;
            let Ok(again) = started else {
                verdicts.push((outcome, Err("it does not start".to_owned())));
                return (went_at, verdicts);
            };
            mirror = again;
            // The store is looked through while hosts are served.
            comes_to_hold(async || is_counted(&mirror).await.is_ok()).await;
            let verdict = match is_sound(&mirror).await {
                Ok(()) => (self.check)(&mirror, &promise).await,
                unsound => unsound,
            };
            verdicts.push((outcome, verdict));
        }
        mirror.stop().await;
        (went_at, verdicts)
    }
}

/// T20
#[tokio::test]
async fn what_was_committed_is_there_and_whole_after_the_power_went() {
    commit().survives().await;
}

#[tokio::test]
async fn what_only_we_hold_stays_listed_after_the_power_went() {
    keeping().survives().await;
}

#[tokio::test]
async fn what_only_we_hold_needs_the_syncs_of_its_record() {
    keeping().needs_every_sync_but(&["documents/lab/validators.json.new"]).await;
}

#[tokio::test]
async fn hosts_see_no_older_documents_after_the_power_went() {
    refresh().survives().await;
}

#[tokio::test]
async fn what_was_to_go_is_there_whole_or_gone_whole_after_the_power_went() {
    eviction().survives().await;
}

#[tokio::test]
async fn what_goes_needs_every_sync() {
    // It had no name of people's.
    eviction().needs_every_sync_but(&["state/published"]).await;
}

#[tokio::test]
async fn what_was_learnt_of_a_file_is_known_after_the_power_went() {
    learning().survives().await;
    learning().needs_every_sync_but(&[]).await;
}

#[tokio::test]
async fn an_image_that_was_found_to_be_wrong_is_hidden_after_the_power_went() {
    // It needs no sync by itself: what is lost is found out again, as soon as the start has looked at all images.
    exposure().survives().await;
}

#[tokio::test]
async fn what_people_decided_is_so_after_the_power_went() {
    decision().survives().await;
}

#[tokio::test]
async fn a_name_that_was_taken_back_is_gone_after_the_power_went() {
    withdrawal().survives().await;
}

#[tokio::test]
async fn an_image_of_our_own_is_there_and_whole_after_the_power_went() {
    import().survives().await;
}

#[tokio::test]
async fn a_commit_needs_every_sync() {
    // Documents list the image, so that it is found again without its record.
    commit().needs_every_sync_but(&["records", "records/*.new"]).await;
}

#[tokio::test]
async fn a_refresh_needs_every_sync() {
    // Documents that are asked for whole are the same documents.
    refresh().needs_every_sync_but(&["documents/lab/validators.json.new"]).await;
}

#[tokio::test]
async fn decisions_need_every_sync() {
    decision().needs_every_sync_but(&[]).await;
    withdrawal().needs_every_sync_but(&[]).await;
}

#[tokio::test]
async fn an_import_needs_every_sync() {
    // What was published says all that a record does.
    import().needs_every_sync_but(&["records", "records/*.new"]).await;
}

/// T40
#[tokio::test]
async fn what_a_bundle_brought_is_there_and_whole_after_the_power_went() {
    feeding().survives().await;
}

/// T40
#[tokio::test]
async fn a_site_lists_one_bundle_or_the_next_after_the_power_went() {
    feeding_again().survives().await;
}

/// T40
#[tokio::test]
async fn what_was_forgotten_is_listed_no_more_after_the_power_went() {
    forgetting().survives().await;
}

/// T40
#[tokio::test]
async fn what_came_of_a_bundle_is_kept_for_the_rest_after_the_power_went() {
    feeding_in_part().survives().await;
    // What a file itself needs is seen where it is listed.
    feeding_in_part().needs_every_sync_but(&["partials/*", "blobs/sha256/*"]).await;
}

#[tokio::test]
async fn bundles_need_every_sync() {
    // What is listed is found again without its record, of a remote that came in a bundle only its name matters, and its documents
    // are made again of the bundle. What came in part is seen to by itself.
    let harmless = [
        "documents/lab",
        "documents/lab/.new",
        "documents/lab/.new/documents",
        "documents/lab/.new/documents/streams",
        "documents/lab/.new/documents/streams/v1",
        "documents/lab/.new/documents/streams/v1/images.json",
        "documents/lab/.new/documents/streams/v1/index.json",
        "documents/lab/.new/snapshot.json",
        "documents/lab/validators.json.new",
        "records",
        "records/*.new",
        "state/bundles/begun",
        "state/bundles/begun/*.new",
        "state/bundles/remotes/lab.new",
    ];
    feeding().needs_every_sync_but(&harmless).await;
}
