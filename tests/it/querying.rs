//! How an image is found by its names and properties, over documents as remotes render them.

use std::sync::Arc;

use jiff::Timestamp;

use cistern::catalog::query::{Filter, NoImage, find, images};
use cistern::catalog::{Catalog, Remote};
use cistern::http::path::StreamPath;
use cistern::image::architecture::Architecture;
use cistern::render::policy::Policy;
use cistern::render::remote::render;
use cistern::simplestreams::snapshot::{Role, Snapshot, Source};

fn hash(digit: char, last: char) -> String {
    format!("{}{last}", digit.to_string().repeat(63))
}

fn version(digit: char) -> String {
    let metadata = format!(
        r#"{{"ftype":"lxd.tar.xz","path":"m{digit}","sha256":"{0}","size":10,"combined_squashfs_sha256":"{1}","combined_disk-kvm-img_sha256":"{2}"}}"#,
        hash(digit, '0'),
        hash(digit, '1'),
        hash(digit, '2'),
    );
    let root = |name: &str, last| format!(r#"{{"ftype":"{name}","path":"{name}{digit}","sha256":"{}","size":100}}"#, hash(digit, last));
    format!(r#"{{"label":"release","items":{{"m":{metadata},"s":{},"d":{}}}}}"#, root("squashfs", '3'), root("disk-kvm.img", '4'))
}

fn remote(arch: &str, digits: [char; 2]) -> Arc<Remote> {
    let [old, new] = digits.map(version);
    let text = format!(
        r#"{{"products":{{"p:{arch}":{{"aliases":"24.04,noble","arch":"{arch}","os":"Ubuntu","requirements":{{"secureboot":"false"}},"support_eol":"2029-05-31","versions":{{"20260101":{old},"20260102":{new}}}}}}}}}"#
    );
    let documents = vec![Source::new(StreamPath::from_document("streams/v1/x.json").unwrap(), Role::Images, text.into())];
    let snapshot = Snapshot { url: String::new(), accepted_at: Timestamp::UNIX_EPOCH, documents };
    let listing = Arc::new(render("x", &snapshot, &Policy::default()).listing);
    Arc::new(Remote { listing, ..Remote::default() })
}

fn catalog() -> Catalog {
    let remotes = [("one", remote("amd64", ['a', 'b'])), ("two", remote("arm64", ['a', 'c']))];
    let remotes: Vec<(Arc<str>, _)> = remotes.into_iter().map(|(name, remote)| (name.into(), remote)).collect();
    Catalog {
        order: remotes.iter().map(|(name, _)| Arc::clone(name)).collect(),
        remotes: remotes.into_iter().collect(),
        ..Catalog::default()
    }
}

fn found(name: &str, virtual_machine: bool) -> Result<(String, String), NoImage> {
    let catalog = catalog();
    let found = find(&catalog, name, virtual_machine, Architecture::parse("amd64"))?;
    Ok((found.remote.to_string(), found.image.fingerprint.to_string()))
}

#[test]
fn an_alias_means_the_newest_image_of_this_architecture_and_a_container_first() {
    let one = |last| Ok(("one".to_owned(), hash('b', last)));
    let two = |last| Ok(("two".to_owned(), hash('c', last)));
    assert_eq!(found("24.04", false), one('1'));
    assert_eq!(found("noble", true), one('2'));
    assert_eq!(found("one:noble/amd64", false), one('1'));
    assert_eq!(found("noble/arm64", false), two('1'));
    assert_eq!(found("two:noble/aarch64", true), two('2'));
    let elsewhere = NoImage::Architecture { name: "noble".to_owned(), there: "aarch64".to_owned(), here: "x86_64".to_owned() };
    assert_eq!(found("two:noble", false), Err(elsewhere));
    assert_eq!(found("one:noble/arm64", false), Err(NoImage::Name("noble/arm64".to_owned())));
    assert_eq!(found("three:noble", false), Err(NoImage::Remote("three".to_owned())));
}

#[test]
fn a_fingerprint_means_one_image_of_whichever_version() {
    assert_eq!(found(&hash('a', '1'), false), Ok(("one".to_owned(), hash('a', '1'))), "two remotes with one image are no conflict");
    assert_eq!(found(&format!("two:{}", hash('a', '2').to_uppercase()), false), Ok(("two".to_owned(), hash('a', '2'))));
    assert_eq!(found(&"a".repeat(12), false), Err(NoImage::Ambiguous { prefix: "a".repeat(12), count: 2 }));
    assert_eq!(found(&"a".repeat(11), false), Err(NoImage::Name("a".repeat(11))), "too short");
}

#[test]
fn filters_look_at_aliases_fingerprints_properties_and_fields() {
    let catalog = catalog();
    let count = |remote, filters: &[&str]| {
        let filters: Vec<Filter> = filters.iter().map(|filter| Filter::from(*filter)).collect();
        images(&catalog, remote).unwrap().iter().filter(|found| found.passes(&filters)).count()
    };
    assert_eq!((count(None, &[]), count(Some("one"), &[])), (8, 4));
    assert_eq!(count(Some("one"), &["nob"]), 2, "only the newest have aliases");
    assert_eq!(count(None, &["bbbb"]), 2);
    assert_eq!(count(None, &["type=container", "architecture=x86_64"]), 2);
    assert_eq!(count(None, &["serial=.*01", "os=Ubuntu", "requirements.secureboot=false"]), 4);
    assert_eq!((count(None, &["os=Ubu"]), count(None, &["os=^Ubu"]), count(None, &["os=("])), (0, 8, 0));
    assert_eq!(count(None, &["none=x"]), 0);
    let properties = images(&catalog, Some("one")).unwrap()[0].image.properties();
    assert_eq!(properties["description"], "Ubuntu amd64 (release) (20260102)");
}
