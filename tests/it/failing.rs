//! Single calls of the disk fail while the program goes on: nothing wrong is served, nothing is counted twice or not at all,
//! and what was said to be done is done.

use std::collections::BTreeMap;

use crate::deeds::{
    Deed, Stage, Verdict, comes_to_hold, commit, decision, eviction, held, import, is_sound, keeping, pull, refresh, root, stage,
    withdrawal,
};
use crate::managing::done;
use crate::support::faulty::{Call, Fault};
use crate::support::mirror::{Mirror, wait_for};

impl<P, S: AsyncFn() -> Stage, A: AsyncFn(&Stage) -> P, C: AsyncFn(&Mirror, &P) -> Verdict> Deed<S, A, C> {
    /// Lets each call of the disk fail, one after the other, in each way that such a call can fail.
    async fn endures(&self) {
        for (call, count) in self.calls().await {
            for number in 0..count {
                for fault in faults(call) {
                    let verdict = self.verdict(call, number, *fault).await;
                    assert_eq!(verdict, Ok(()), "{call:?} {number} of {count} was {fault:?}");
                }
            }
        }
    }

    /// How many calls there are of each kind when all is well.
    async fn calls(&self) -> BTreeMap<Call, usize> {
        let stage = (self.stage)().await;
        stage.faults.heal();
        (self.act)(&stage).await;
        let counts = stage.faults.counts();
        stage.mirror.stop().await;
        counts
    }

    async fn verdict(&self, call: Call, number: usize, fault: Fault) -> Verdict {
        let mut stage = (self.stage)().await;
        stage.faults.fail(call, number, fault);
        let promise = (self.act)(&stage).await;
        stage.faults.heal();
        self.look(&stage.mirror, &promise).await?;
        // Once more, now that the disk works.
        let promise = (self.act)(&stage).await;
        self.look(&stage.mirror, &promise).await?;
        stage.origin.stop().await;
        let mirror = stage.mirror.restart().await;
        self.look(&mirror, &promise).await?;
        mirror.stop().await;
        Ok(())
    }

    async fn look(&self, mirror: &Mirror, promise: &P) -> Verdict {
        if !comes_to_hold(async || is_sound(mirror).await.is_ok()).await {
            is_sound(mirror).await?;
        }
        (self.check)(mirror, promise).await
    }
}

/// The ways in which a call can fail.
fn faults(call: Call) -> &'static [Fault] {
    match call {
        Call::Write => &[Fault::Broken, Fault::Short],
        Call::Create | Call::Reserve => &[Fault::Broken, Fault::Full],
        _ => &[Fault::Broken],
    }
}

#[tokio::test]
async fn a_commit_endures_every_failure() {
    commit().endures().await;
}

#[tokio::test]
async fn keeping_what_upstream_dropped_endures_every_failure() {
    keeping().endures().await;
}

#[tokio::test]
async fn a_refresh_endures_every_failure() {
    refresh().endures().await;
}

#[tokio::test]
async fn an_eviction_endures_every_failure() {
    eviction().endures().await;
}

#[tokio::test]
async fn decisions_endure_every_failure() {
    decision().endures().await;
    withdrawal().endures().await;
}

#[tokio::test]
async fn an_import_endures_every_failure() {
    import().endures().await;
}

/// A disk that fails once, while the program goes on: nothing wrong is served, and nothing is counted twice or not at all.
#[tokio::test]
async fn one_failure_of_the_disk_leaves_the_store_sound() {
    for kind in ["partials/*", "blobs/sha256/*", "records/*.new", "records"] {
        let Stage { origin: _origin, mirror, disk, .. } = stage().await;
        disk.arm(&mirror.store(), usize::MAX);
        disk.fail_one_sync_of(kind);
        for _ in 0..2 {
            pull(&mirror, "a").await;
        }
        // An image is recorded after its last file has arrived.
        assert!(comes_to_hold(async || disk.has_failed()).await, "{kind} was synced");
        assert!(comes_to_hold(async || is_sound(&mirror).await == Ok(())).await, "{kind}: {:?}", is_sound(&mirror).await);
        assert_eq!(mirror.body("lab/a/squashfs").await, root("a"), "{kind}");
        // A person who wants it has it tried again.
        done(&mirror, &["image", "copy", "lab:busy"]).await;
        assert!(comes_to_hold(async || held(&mirror).await.len() == 1).await, "{kind}");
        assert_eq!(is_sound(&mirror).await, Ok(()), "{kind}");
    }
}

/// T19: what the disk does not say is not known, and that is never taken for absent: nothing leaves, nothing is fetched again.
#[tokio::test]
async fn a_disk_that_does_not_answer_is_no_disk_without_files() {
    let Stage { origin, mirror, faults, .. } = stage().await;
    assert!(pull(&mirror, "a").await);
    wait_for(async || held(&mirror).await.len() == 1).await;
    let (asked, mut mirror) = (|| origin.requests("a/squashfs").len(), mirror);
    for call in [Call::Open, Call::Read] {
        // What was read before is open still.
        mirror = mirror.restart().await;
        faults.fail_all(call, Fault::Broken);
        let url = format!("http://{}/lab/a/squashfs", mirror.address());
        for _ in 0..20 {
            match reqwest::Client::builder().no_proxy().build().unwrap().get(&url).send().await {
                Ok(answer) if call == Call::Open => assert_eq!(answer.status(), 503),
                answer => assert!(answer.is_err() || answer.unwrap().bytes().await.is_err(), "what cannot be read is cut off"),
            }
        }
        assert_eq!(held(&mirror).await.len(), 1, "the image is held all the while");
        faults.heal();
        assert_eq!(mirror.body("lab/a/squashfs").await, root("a"));
        assert_eq!(asked(), 1, "and nobody was asked for it again");
    }
}

/// The system says once that bytes were lost, and then shows what it has in memory: a file whose sync failed is never gone on
/// with.
#[tokio::test]
async fn a_file_whose_sync_failed_is_fetched_again_from_its_beginning() {
    let Stage { origin, mirror, faults, .. } = stage().await;
    faults.fail_all(Call::Sync, Fault::Broken);
    assert!(pull(&mirror, "a").await, "hosts get it all the same");
    wait_for(async || mirror.files("partials").is_empty()).await;
    assert!(mirror.files("blobs").is_empty());
    faults.heal();
    assert!(pull(&mirror, "a").await);
    wait_for(async || held(&mirror).await.len() == 1).await;
    assert!(origin.requests("a/squashfs").iter().all(|seen| !seen.head.to_lowercase().contains("range:")));
}
