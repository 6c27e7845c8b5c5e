//! The decisions about what is held, by tables and by properties: nothing here touches a disk or a clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cistern::catalog::files::File;
use cistern::catalog::listing::Listing;
use cistern::catalog::mode::Mode;
use cistern::catalog::{Catalog, Remote};
use cistern::digest::{Claim, Digest, Expected, Fingerprint};
use cistern::http::path::StreamPath;
use cistern::image::architecture::Architecture;
use cistern::image::ftype::{ImageType, Root};
use cistern::image::version::{Product, Version};
use cistern::ledger::change::Change;
use cistern::ledger::loading::Loading;
use cistern::ledger::record::{Fate, Owner, Piece, Reason, Record};
use cistern::ledger::{Ledger, Unit};
use cistern::retention::{Deed, Need, Rules, Scene, Sentence, deletion, due, victims};
use jiff::Timestamp;
use proptest::prelude::{Strategy, any, proptest};

const RULES: Rules = Rules {
    auto_update: true,
    auto_update_cached: true,
    hold_back_max: Duration::from_secs(100),
    idle: Some(Duration::from_secs(1000)),
    grace: Duration::from_secs(100),
};
const SIZE: u64 = 10;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn print(name: &str) -> Fingerprint {
    Fingerprint::of_unified(digest(name))
}

/// An image with a root of its own and metadata that may be shared.
fn record(name: &str, metadata: &str) -> Record {
    let product = Product {
        name: "p".to_owned(),
        architecture: Architecture::parse("amd64").unwrap(),
        aliases: Vec::new(),
        properties: std::collections::BTreeMap::new(),
        title: String::new(),
        expires: None,
    };
    let version = Version { product: Arc::new(product), serial: name.into(), date: "2026-01-01".parse().unwrap(), label: "".into() };
    let piece = |name: &str| {
        let expected = Expected { claim: Claim::Sha256(digest(name)), size: Some(SIZE) };
        Piece::new(StreamPath::from_document(name).unwrap(), expected, digest(name), SIZE)
    };
    Record {
        fingerprint: print(name),
        remote: "r".into(),
        image_type: ImageType::Container,
        root: Some(Root::Squashfs),
        version: Arc::new(version),
        pieces: vec![piece(metadata), piece(name)],
        owner: Owner::Hosts,
        auto_update: true,
        public: true,
        cached_at: at(0),
        last_used_at: at(0),
        use_count: 1,
        expires_at: None,
        fate: Fate::Stays,
    }
}

fn ledger(records: &[Record]) -> Ledger {
    let mut ledger = Ledger::default();
    for record in records {
        for piece in &record.pieces {
            if ledger.admit(piece.digest, piece.size, record.last_used_at).is_none() {
                ledger.account.settle(0, 0, piece.size);
            }
        }
        assert!(ledger.record(record.clone()));
    }
    ledger
}

/// A catalog in which a remote of this mode lists these files.
fn catalog(mode: Mode, files: &[&str]) -> Catalog {
    let mut listing = Listing::default();
    for file in files {
        let expected = Expected { claim: Claim::Sha256(digest(file)), size: Some(SIZE) };
        listing.add_file(File { path: StreamPath::from_document(file).unwrap(), expected, modified: None });
    }
    let remote = Remote { listing: Arc::new(listing), ..Remote::default() };
    Catalog { modes: HashMap::from([("r".into(), mode)]), remotes: HashMap::from([("r".into(), Arc::new(remote))]), ..Catalog::default() }
}

struct Setting {
    ledger: Ledger,
    catalog: Catalog,
    leased: Vec<Digest>,
}

impl Setting {
    fn of(records: &[Record], mode: Mode, listed: &[&str]) -> Self {
        Self { ledger: ledger(records), catalog: catalog(mode, listed), leased: Vec::new() }
    }

    fn with<T>(&self, second: i64, decide: impl FnOnce(&Scene<'_>) -> T) -> T {
        let is_leased = |digest| self.leased.contains(&digest);
        decide(&Scene { ledger: &self.ledger, catalog: &self.catalog, is_leased: &is_leased, rules: RULES, now: at(second) })
    }

    fn due(&self, second: i64) -> Vec<(Unit, Reason, Deed)> {
        let mut due: Vec<_> = self.with(second, due).iter().map(|sentence| (sentence.unit, sentence.reason, sentence.deed)).collect();
        due.sort_unstable_by_key(|(unit, ..)| *unit);
        due
    }
}

fn image(name: &str, reason: Reason, deed: Deed) -> (Unit, Reason, Deed) {
    (Unit::Image(print(name)), reason, deed)
}

#[test]
fn a_cached_image_goes_when_it_was_not_used_for_the_expiry_and_only_then() {
    let setting = Setting::of(&[record("a", "m")], Mode::Proxy, &["a", "m"]);
    assert_eq!(setting.due(999), []);
    assert_eq!(setting.due(1000), [image("a", Reason::Idle, Deed::Remove)]);
    let never = Rules { idle: None, ..RULES };
    let is_leased = |_| false;
    let scene = Scene { ledger: &setting.ledger, catalog: &setting.catalog, is_leased: &is_leased, rules: never, now: at(1_000_000) };
    assert_eq!(due(&scene), [], "0 means never");
}

#[test]
fn a_ledger_that_is_read_is_the_one_that_was_written() {
    let records = [record("a", "m"), Record { last_used_at: at(3), ..record("b", "m") }];
    let mut grown = ledger(&records);
    grown.admit(digest("loose"), 3, at(5));
    let blobs: Vec<_> = grown.blobs().map(|(digest, held)| (digest, held.size, held.last_used_at)).collect();
    let lost = Record { ..record("lost", "nowhere") };
    let mut loading = Loading::default();
    blobs.into_iter().for_each(|(digest, size, at)| loading.blob(digest, size, at));
    records.iter().cloned().chain([lost]).for_each(|record| loading.image(record));
    let read = loading.finish();
    assert_eq!(read.by_last_use().collect::<Vec<_>>(), grown.by_last_use().collect::<Vec<_>>());
    for (digest, held) in grown.blobs() {
        let mut there = read.blob(digest).unwrap().clone();
        there.images.sort();
        assert_eq!((there.size, there.last_used_at, there.images.len()), (held.size, held.last_used_at, held.images.len()));
    }
    assert_eq!(read.images().len(), 2, "half an image is none");
}

#[test]
fn what_only_we_hold_is_unlisted_first_and_goes_after_grace() {
    let mut setting = Setting::of(&[record("a", "m")], Mode::Proxy, &["m"]);
    assert_eq!(setting.due(1000), [image("a", Reason::Idle, Deed::Unlist)]);
    setting.ledger.set_fate(print("a"), Fate::Leaves(at(1000), Reason::Idle));
    assert_eq!(setting.due(1099), []);
    assert_eq!(setting.due(1100), [image("a", Reason::Idle, Deed::Remove)]);
}

/// design.md §3: "An image past its `expires_at` goes as soon as it has not been used for `images.grace`, so that an image in use is not fetched
/// over and over."
#[test]
fn an_image_past_its_end_goes_when_it_was_not_used_for_grace() {
    let ends = Record { expires_at: Some(at(50)), last_used_at: at(20), ..record("a", "m") };
    let setting = Setting::of(std::slice::from_ref(&ends), Mode::Proxy, &["a", "m"]);
    assert_eq!(setting.due(60), [], "it is in use");
    assert_eq!(setting.due(120), [image("a", Reason::Expired, Deed::Remove)]);
    let by_a_person = Record { owner: Owner::Operator, ..ends };
    assert_eq!(Setting::of(&[by_a_person], Mode::Proxy, &["a", "m"]).due(120), [image("a", Reason::Expired, Deed::Remove)]);
}

/// design.md §3: "What is not `cached` goes only when its owner (selection, bundle, operator) lets it go."
#[test]
fn an_image_ends_after_its_last_moment_and_not_in_it() {
    let ends = Record { expires_at: Some(at(500)), ..record("a", "m") };
    let setting = Setting::of(&[ends], Mode::Proxy, &["a", "m"]);
    assert_eq!(setting.due(500), []);
    assert_eq!(setting.due(501), [image("a", Reason::Expired, Deed::Remove)]);
}

#[test]
fn what_a_person_deletes_goes_at_once_where_upstream_has_it_and_after_grace_where_only_we_do() {
    for (mode, listed, deed) in [
        (Mode::Proxy, &["a", "m"][..], Deed::Remove),
        (Mode::Proxy, &["m"], Deed::Unlist),
        (Mode::Mirror, &["a", "m"], Deed::Unlist),
        (Mode::Offline, &["a", "m"], Deed::Unlist),
    ] {
        let mut setting = Setting::of(&[record("a", "m")], mode, listed);
        let deletion = |setting: &Setting| setting.with(0, |scene| deletion(scene, setting.ledger.image(print("a")).unwrap()));
        let sentence = deletion(&setting).unwrap();
        assert_eq!((sentence.unit, sentence.reason, sentence.deed), image("a", Reason::Deleted, deed), "{mode:?} {listed:?}");
        assert_eq!(sentence.bytes, 2 * SIZE);
        setting.leased.push(digest("a"));
        assert_eq!(deletion(&setting).is_some(), deed == Deed::Unlist, "nobody loses what is being read: {mode:?} {listed:?}");
    }
}

#[test]
fn what_leaves_an_offline_remote_stays_unless_a_person_said_so() {
    for (mode, reason, goes) in [
        (Mode::Proxy, Reason::Superseded, true),
        (Mode::Offline, Reason::Superseded, false),
        (Mode::Offline, Reason::Deleted, true),
        (Mode::Mirror, Reason::Idle, false),
        (Mode::Mirror, Reason::Deleted, true),
    ] {
        let leaves = Record { fate: Fate::Leaves(at(0), reason), ..record("a", "m") };
        let setting = Setting::of(&[leaves], mode, &["a", "m"]);
        assert_eq!(setting.due(100).len(), usize::from(goes), "{mode:?} {reason:?}");
    }
}

/// What bundles brought and list no more goes after grace; of an offline remote that nothing feeds nothing does, and of one that is fed
/// not what hosts or people brought, either.
#[test]
fn of_an_offline_remote_only_what_bundles_brought_goes_when_they_list_it_no_more() {
    for (is_fed, owner, goes) in [
        (true, Owner::Selection, true),
        (true, Owner::Hosts, false),
        (true, Owner::Operator, false),
        (false, Owner::Selection, false),
        (false, Owner::Hosts, false),
    ] {
        let mut setting = Setting::of(&[Record { owner, ..record("a", "m") }], Mode::Offline, &["b"]);
        let remote = Remote { fed: is_fed, ..Remote::clone(&setting.catalog.remotes["r"]) };
        setting.catalog.remotes.insert("r".into(), Arc::new(remote));
        let withdrawn = if goes { vec![image("a", Reason::Withdrawn, Deed::Unlist)] } else { Vec::new() };
        assert_eq!(setting.due(5000), withdrawn, "{is_fed} {owner:?}");
        setting.ledger.set_fate(print("a"), Fate::Leaves(at(5000), Reason::Withdrawn));
        assert_eq!(setting.due(5050), [], "{is_fed} {owner:?}: not before grace is over");
        let removed = if goes { vec![image("a", Reason::Withdrawn, Deed::Remove)] } else { Vec::new() };
        assert_eq!(setting.due(5101), removed, "{is_fed} {owner:?}");
    }
}

/// Another remote that has let go of an image later than this one: hosts may still have its documents.
#[test]
fn what_bundles_list_no_more_stays_while_documents_of_before_list_it_in_any_remote() {
    let mut setting = Setting::of(&[Record { owner: Owner::Selection, ..record("a", "m") }], Mode::Offline, &["b"]);
    let fed = Remote { fed: true, ..Remote::clone(&setting.catalog.remotes["r"]) };
    setting.catalog.remotes.insert("r".into(), Arc::new(fed.clone()));
    let before = catalog(Mode::Offline, &["m", "a"]).remotes["r"].listing.clone();
    setting.catalog.modes.insert("s".into(), Mode::Offline);
    setting.catalog.remotes.insert("s".into(), Arc::new(Remote { retired: vec![before], ..fed.clone() }));
    setting.ledger.set_fate(print("a"), Fate::Leaves(at(0), Reason::Withdrawn));
    assert_eq!(setting.due(500), []);
    setting.catalog.remotes.insert("s".into(), Arc::new(fed));
    assert_eq!(setting.due(500), [image("a", Reason::Withdrawn, Deed::Remove)]);
}

#[test]
fn a_file_is_held_by_its_digest_or_by_what_was_learnt_of_it_and_in_its_size() {
    let mut ledger = ledger(&[record("a", "m")]);
    let (sha256, md5) = (Claim::Sha256(digest("a")), Claim::Md5([7; 16]));
    assert!(!ledger.has(Expected { claim: md5, size: None }), "nobody knows what it is");
    ledger.learn(md5, digest("a"));
    for (claim, size, expected) in [
        (sha256, Some(SIZE), true),
        (sha256, None, true),
        (sha256, Some(SIZE + 1), false),
        (md5, Some(SIZE), true),
        (md5, Some(SIZE + 1), false),
        (Claim::Md5([8; 16]), None, false),
        (Claim::Sha256(digest("b")), None, false),
    ] {
        assert_eq!(ledger.has(Expected { claim, size }), expected, "{claim} {size:?}");
    }
    assert_eq!(ledger.learnt().collect::<Vec<_>>(), [(md5, digest("a"))]);
    assert_eq!(ledger.claims(digest("a")).collect::<Vec<_>>(), [sha256, md5]);
}

#[test]
fn a_lost_blob_takes_its_images_with_it_and_nothing_else() {
    let mut ledger = ledger(&[record("a", "m"), record("b", "m"), record("c", "other")]);
    ledger.learn(Claim::Md5([7; 16]), digest("m"));
    let mut lost: Vec<_> = ledger.strike_lost(digest("m")).into_iter().map(|record| record.fingerprint).collect();
    lost.sort();
    let mut expected = [print("a"), print("b")];
    expected.sort();
    assert_eq!(lost, expected);
    assert!(ledger.blob(digest("m")).is_none() && !ledger.has(Expected { claim: Claim::Md5([7; 16]), size: None }));
    ledger.admit(digest("m"), SIZE, at(0));
    assert!(ledger.has(Expected { claim: Claim::Md5([7; 16]), size: None }), "what it is called is known when it comes back");
    assert!(ledger.blob(digest("a")).is_some_and(|held| held.images.is_empty()), "its root is there, and belongs to no image");
    assert!(ledger.image(print("c")).is_some());
}

#[test]
fn changes_that_could_not_be_written_are_there_to_be_written_again() {
    let mut ledger = ledger(&[record("a", "m")]);
    ledger.strike_lost(digest("gone"));
    let order = |mut changes: Vec<Change>| {
        changes.sort_by_key(|change| format!("{change:?}"));
        changes
    };
    let changes = order(ledger.take_changes());
    assert_eq!(changes.len(), 3);
    assert!(ledger.take_changes().is_empty());
    ledger.give_back(&changes);
    assert_eq!(order(ledger.take_changes()), changes);
}

#[test]
fn what_is_not_cached_goes_only_when_its_owner_lets_it_go() {
    for (owner, mode) in
        [(Owner::Operator, Mode::Proxy), (Owner::Selection, Mode::Mirror), (Owner::Hosts, Mode::Offline), (Owner::Hosts, Mode::Mirror)]
    {
        let setting = Setting::of(&[Record { owner, ..record("a", "m") }], mode, &["a", "m"]);
        assert_eq!(setting.due(1_000_000), [], "{owner:?} {mode:?}");
        assert_eq!(setting.with(10, |scene| victims(scene, Need { least: 1, enough: 1 })), None, "{owner:?} {mode:?}");
    }
    let dropped = Setting::of(&[Record { owner: Owner::Selection, ..record("a", "m") }], Mode::Mirror, &[]);
    assert_eq!(dropped.due(1), [image("a", Reason::Withdrawn, Deed::Unlist)], "its selection lists it no more");
    let switched = Setting::of(&[Record { owner: Owner::Selection, ..record("a", "m") }], Mode::Proxy, &["a", "m"]);
    assert_eq!(switched.due(1000), [image("a", Reason::Idle, Deed::Remove)], "there is no selection any more that holds it");
}

#[test]
fn of_a_remote_that_has_no_documents_yet_nothing_is_known_and_nothing_goes() {
    for owner in [Owner::Hosts, Owner::Selection] {
        let mut setting = Setting::of(&[Record { owner, ..record("a", "m") }], Mode::Mirror, &[]);
        setting.catalog.remotes.clear();
        assert_eq!(setting.due(1_000_000), [], "{owner:?}");
    }
}

#[test]
fn what_is_read_stays_and_what_is_shared_stays_until_the_last_goes() {
    let mut setting = Setting::of(&[record("a", "m"), Record { last_used_at: at(900), ..record("b", "m") }], Mode::Proxy, &["a", "b", "m"]);
    setting.leased = vec![digest("a")];
    assert_eq!(setting.due(1000), []);
    setting.leased.clear();
    assert_eq!(setting.due(1000), [image("a", Reason::Idle, Deed::Remove)]);
    assert_eq!(setting.ledger.strike(Unit::Image(print("a"))), [(digest("a"), SIZE)], "the metadata is the other one's too");
    let mut gone = setting.ledger.strike(Unit::Image(print("b")));
    gone.sort_unstable();
    let mut expected = [(digest("b"), SIZE), (digest("m"), SIZE)];
    expected.sort_unstable();
    assert_eq!(gone, expected);
}

#[test]
fn room_is_made_of_the_least_recently_used_or_not_at_all() {
    let used = |name: &str, second| Record { last_used_at: at(second), ..record(name, &format!("m{name}")) };
    let setting = Setting::of(&[used("a", 3), used("b", 1), used("c", 2)], Mode::Proxy, &["a", "ma", "b", "mb", "c", "mc"]);
    let names = |least, enough| {
        let victims = setting.with(10, |scene| victims(scene, Need { least, enough }));
        victims.map(|victims| victims.iter().map(|sentence| sentence.unit).collect::<Vec<_>>())
    };
    let [a, b, c] = ["a", "b", "c"].map(|name| Unit::Image(print(name)));
    assert_eq!(names(1, 1), Some(vec![b]));
    assert_eq!(names(1, 30), Some(vec![b, c]), "what goes makes room for the next ones too");
    assert_eq!(names(60, 100), Some(vec![b, c, a]));
    assert_eq!(names(61, 100), None, "there is not that much, and so nothing goes");
}

#[test]
fn where_only_we_hold_everything_it_is_unlisted_to_make_room() {
    let setting = Setting::of(&[record("a", "m")], Mode::Proxy, &[]);
    let victims = setting.with(10, |scene| victims(scene, Need { least: 5, enough: 5 })).unwrap();
    assert_eq!(victims.iter().map(|sentence| (sentence.deed, sentence.reason)).collect::<Vec<_>>(), [(Deed::Unlist, Reason::Size)]);
}

#[test]
fn a_loose_blob_goes_by_the_same_rules_but_not_while_older_documents_name_it() {
    let mut setting = Setting::of(&[], Mode::Proxy, &["x"]);
    for name in ["x", "retired", "unknown"] {
        setting.ledger.admit(digest(name), SIZE, at(0));
    }
    let retired = catalog(Mode::Proxy, &["retired"]).remotes["r"].listing.clone();
    let remote = Remote { retired: vec![retired], ..Remote::clone(&setting.catalog.remotes["r"]) };
    setting.catalog.remotes.insert("r".into(), Arc::new(remote));
    let mut expected = ["x", "unknown"].map(|name| (Unit::Blob(digest(name)), Reason::Idle, Deed::Remove)).to_vec();
    expected.sort_unstable_by_key(|(unit, ..)| *unit);
    assert_eq!(setting.due(1000), expected);
}

#[test]
fn a_use_is_one_of_every_image_with_that_root_and_of_no_image_that_shares_metadata() {
    let mut ledger = ledger(&[record("a", "m"), record("b", "m")]);
    ledger.touch(digest("m"), at(5));
    ledger.touch(digest("a"), at(7));
    let used = |name| ledger.image(print(name)).map(|record| (record.last_used_at, record.use_count));
    assert_eq!((used("a"), used("b")), (Some((at(7), 2)), Some((at(0), 1))));
    assert_eq!(ledger.blob(digest("m")).unwrap().last_used_at, at(5));
}

/// What can happen to a ledger.
#[derive(Clone, Debug)]
enum Event {
    Promise(u64),
    Land(u8),
    Record(u8, u8),
    Touch(u8),
    Prune,
}

fn event() -> impl Strategy<Value = Event> {
    (0_u8..5, any::<u8>(), any::<u8>()).prop_map(|(kind, one, two)| match kind {
        0 => Event::Promise(u64::from(one % 40)),
        1 => Event::Land(one % 8),
        2 => Event::Record(one % 8, two % 4),
        3 => Event::Touch(one % 8),
        _ => Event::Prune,
    })
}

/// Some blobs are read, some images are kept, all of them are listed upstream; a history of events over them.
struct History {
    setting: Setting,
    named: Vec<Sentence>,
    clock: i64,
}

const CAPACITY: u64 = 60;

impl History {
    fn run(events: &[Event], leased: u8, kept: u8) -> Self {
        let names: Vec<String> = (0..8).map(|number| number.to_string()).collect();
        let mut setting = Setting::of(&[], Mode::Proxy, &names.iter().map(String::as_str).collect::<Vec<_>>());
        setting.leased = vec![digest(&leased.to_string())];
        let mut history = Self { setting, named: Vec::new(), clock: 0 };
        events.iter().for_each(|event| history.step(event, kept));
        history
    }

    fn step(&mut self, event: &Event, kept: u8) {
        self.clock += 100;
        let now = at(self.clock);
        match event {
            Event::Promise(bytes) => self.make_room(*bytes),
            Event::Land(blob) => {
                let digest = digest(&blob.to_string());
                if self.setting.ledger.blob(digest).is_none() {
                    self.make_room(SIZE);
                    if self.setting.ledger.account.held() + SIZE <= CAPACITY {
                        self.setting.ledger.admit(digest, SIZE, now);
                        self.setting.ledger.account.settle(0, 0, SIZE);
                    }
                }
            }
            Event::Record(root, metadata) => {
                let owner = if *root == kept { Owner::Operator } else { Owner::Hosts };
                let record = Record { owner, last_used_at: now, ..record(&root.to_string(), &metadata.to_string()) };
                self.setting.ledger.record(record);
            }
            Event::Touch(blob) => self.setting.ledger.touch(digest(&blob.to_string()), now),
            Event::Prune => {
                let due = self.setting.with(self.clock, due);
                self.carry_out(due);
            }
        }
    }

    fn make_room(&mut self, bytes: u64) {
        let least = (self.setting.ledger.account.held() + bytes).saturating_sub(CAPACITY);
        if least > 0 {
            let victims = self.setting.with(self.clock, |scene| victims(scene, Need { least, enough: least }));
            self.carry_out(victims.unwrap_or_default());
        }
    }

    fn carry_out(&mut self, sentences: Vec<Sentence>) {
        for sentence in sentences {
            let went: u64 = self.setting.ledger.strike(sentence.unit).iter().map(|(_, size)| size).sum();
            self.setting.ledger.account.release(went);
            self.named.push(sentence);
        }
    }
}

proptest! {
    #[test]
    fn what_is_admitted_never_exceeds_the_capacity_and_the_books_agree(events in proptest::collection::vec(event(), 0..60), leased in 0_u8..8, kept in 0_u8..8) {
        let History { setting, .. } = History::run(&events, leased, kept);
        let ledger = &setting.ledger;
        let held: u64 = ledger.blobs().map(|(_, held)| held.size).sum();
        assert_eq!(held, ledger.account.held());
        assert!(held <= CAPACITY);
        let loose = ledger.blobs().filter(|(_, held)| held.images.is_empty()).count();
        assert_eq!(ledger.by_last_use().count(), loose + ledger.images().len(), "every unit is in the order of use, once");
        for record in ledger.images() {
            assert!(record.pieces.iter().all(|piece| ledger.blob(piece.digest).is_some_and(|held| held.images.contains(&record.fingerprint))), "no half image");
        }
    }

    #[test]
    fn nothing_that_is_kept_or_read_is_ever_named(events in proptest::collection::vec(event(), 0..60), leased in 0_u8..8, kept in 0_u8..8) {
        let History { named, setting, .. } = History::run(&events, leased, kept);
        let kept = Unit::Image(print(&kept.to_string()));
        let read = digest(&leased.to_string());
        for sentence in named {
            assert!(sentence.unit != kept && sentence.unit != Unit::Blob(read) && sentence.unit != Unit::Image(print(&leased.to_string())));
        }
        drop(setting);
    }

    #[test]
    fn the_same_history_gives_the_same_decisions(events in proptest::collection::vec(event(), 0..60), leased in 0_u8..8, kept in 0_u8..8) {
        assert_eq!(History::run(&events, leased, kept).named, History::run(&events, leased, kept).named);
    }

    #[test]
    fn uses_in_any_order_leave_the_same_books(uses in proptest::collection::vec((0_u8..4, 0_i64..50), 0..20), seed in any::<u64>()) {
        let records = ["0", "1", "2"].map(|name| record(name, "m"));
        let apply = |uses: &[(u8, i64)]| {
            let mut ledger = ledger(&records);
            uses.iter().for_each(|(blob, second)| ledger.touch(digest(&blob.to_string()), at(*second)));
            let order: Vec<_> = ledger.by_last_use().collect();
            (order, ["0", "1", "2"].map(|name| ledger.image(print(name)).cloned()))
        };
        let mut shuffled = uses.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        assert_eq!(apply(&uses), apply(&shuffled));
    }
}
