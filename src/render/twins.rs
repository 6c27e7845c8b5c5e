//! Lists LXD images for Incus too, and the other way round.
//!
//! Both programs take the same bytes with the same fingerprint; they only look for metadata under different `ftype`s,
//! and for requirements under different keys.

use crate::image::ftype::{Client, Ftype};
use crate::simplestreams::images;
use crate::simplestreams::products::{Item, Product, Version};

/// Gives each version that only one program sees a second metadata item for the other; whether any got one.
pub fn add_twins(product: &mut Product<'_>) -> bool {
    product.versions.iter_mut().fold(false, |added, version| {
        let before = version.items.len();
        Client::ALL.into_iter().for_each(|client| add_twins_for(client, version));
        added | (version.items.len() != before)
    })
}

/// Gives a product its requirements under both keys: LXD 5.0 reads only `lxd_requirements`, Incus only `requirements`. Whether it
/// has more then.
pub fn add_requirements(product: &mut Product<'_>) -> bool {
    const KEYS: [&str; 2] = ["requirements", "lxd_requirements"];
    let mut has_more = false;
    for (from, to) in [(KEYS[0], KEYS[1]), (KEYS[1], KEYS[0])] {
        if product.fields.get(to).is_none()
            && let Some(requirements) = product.fields.get(from).map(ToOwned::to_owned)
        {
            product.fields.set(to, &requirements);
            has_more = true;
        }
    }
    has_more
}

fn add_twins_for(client: Client, version: &mut Version<'_>) {
    let missing: Vec<(Item<'_>, &'static str)> = version.items.iter().filter_map(|item| twin_of(item, client, version)).collect();
    for (item, ftype) in missing {
        let mut twin = item;
        twin.name = free_name(version, ftype).into();
        twin.fields.set("ftype", ftype);
        version.items.push(twin);
    }
}

/// The item that `client` could take if it had another `ftype`, unless the version has one of that kind for it.
fn twin_of<'a>(item: &Item<'a>, client: Client, version: &Version<'_>) -> Option<(Item<'a>, &'static str)> {
    let wanted = match images::ftype(&item.fields) {
        Ftype::Metadata(other) if other == client.other() => client.metadata_ftype(),
        // LXD cannot be told that a unified image is a virtual machine, and would run it as a container.
        Ftype::Unified(other) if other == client.other() && item.fields.get("combined_type").is_none() => client.unified_ftype(),
        _ => return None,
    };
    let has_own = version.items.iter().any(|item| item.fields.text_or_none("ftype").is_some_and(|ftype| ftype == wanted));
    (!has_own).then(|| (item.clone(), wanted))
}

fn free_name(version: &Version<'_>, wanted: &str) -> String {
    let is_taken = |name: &str| version.items.iter().any(|item| item.name == name);
    let numbered = (2..).map(|number| format!("{wanted}.{number}"));
    std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !is_taken(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::render::twins::{add_requirements, add_twins};
    use crate::simplestreams::products::Products;

    fn twinned(items: &str) -> (bool, String) {
        let text = format!(r#"{{"products":{{"p":{{"versions":{{"v":{{"items":{{{items}}}}}}}}}}}}}"#);
        let (mut document, _) = Products::parse(&text).unwrap();
        let added = add_twins(&mut document.products[0]);
        let json = String::from_utf8(document.to_json()).unwrap();
        let items = json.trim_start_matches(r#"{"products":{"p":{"versions":{"v":{"items":{"#).trim_end_matches("}}}}}}");
        (added, items.to_owned())
    }

    #[test]
    fn a_version_for_one_program_gets_a_twin_for_the_other() {
        let (added, items) = twinned(r#""lxd.tar.xz":{"ftype":"lxd.tar.xz","path":"m","x":1},"r":{"ftype":"squashfs"}"#);
        assert!(added);
        assert_eq!(
            items + "}",
            r#""lxd.tar.xz":{"ftype":"lxd.tar.xz","path":"m","x":1},"r":{"ftype":"squashfs"},"incus.tar.xz":{"ftype":"incus.tar.xz","path":"m","x":1}}"#
        );
        let (_, items) = twinned(r#""lxd.tar.xz":{"ftype":"incus.tar.xz"}"#);
        assert!(items.contains(r#""lxd.tar.xz.2":{"ftype":"lxd.tar.xz""#), "{items}");
        let (_, items) = twinned(r#""u":{"ftype":"incus_combined.tar.gz"}"#);
        assert!(items.contains(r#""ftype":"lxd_combined.tar.gz""#), "{items}");
    }

    #[test]
    fn a_version_that_both_see_is_left_alone() {
        for items in [
            r#""a":{"ftype":"lxd.tar.xz"},"b":{"ftype":"incus.tar.xz"}"#,
            r#""a":{"ftype":"squashfs"}"#,
            r#""u":{"ftype":"incus_combined.tar.gz","combined_type":"virtual-machine"}"#,
        ] {
            assert!(!twinned(items).0, "{items}");
        }
    }

    #[test]
    fn requirements_are_given_under_both_keys() {
        let text = r#"{"products":{"a":{"requirements":{"secureboot":"false"}},"b":{"lxd_requirements":{"x":"y"}},"c":{"requirements":{},"lxd_requirements":{"x":"y"}}}}"#;
        let (mut document, _) = Products::parse(text).unwrap();
        assert!(document.products.iter_mut().filter(|product| product.name != "c").all(add_requirements));
        assert!(!add_requirements(&mut document.products[2]));
        let (mut null, _) = Products::parse(r#"{"products":{"a":{"requirements":null,"lxd_requirements":{"x":"y"}}}}"#).unwrap();
        assert!(add_requirements(&mut null.products[0]), "null is as good as absent");
        let get = |product: usize, key| document.products[product].fields.get(key).map(|value| value.get().to_owned());
        assert_eq!(get(0, "lxd_requirements").as_deref(), Some(r#"{"secureboot":"false"}"#));
        assert_eq!(get(1, "requirements").as_deref(), Some(r#"{"x":"y"}"#));
        assert_eq!(get(2, "requirements").as_deref(), Some("{}"));
    }
}
