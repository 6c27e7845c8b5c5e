//! Lists and shows images.

use crate::api::Image;
use crate::cli::admin::Target;
use crate::cli::exit::Failure;
use crate::cli::plain::plain;
use crate::cli::table::{Format, print, size};

/// So many digits of a fingerprint tell images apart for people.
const SHOWN_DIGITS: usize = 12;

/// What lists the images of a remote that pass filters. `lxc` takes a remote before the first filter, and so do we.
pub fn target(filters: &[String], held: bool) -> Result<String, Failure> {
    let mut target = Target::new(&["1.0", "images"])?;
    let mut filters = filters.iter().map(String::as_str);
    if let Some(first) = filters.next() {
        match first.split_once(':').filter(|(remote, _)| !remote.contains('=')) {
            Some((remote, rest)) => {
                target = target.with("remote", Some(remote)).with("filter", Some(rest).filter(|rest| !rest.is_empty()));
            }
            None => target = target.with("filter", Some(first)),
        }
    }
    let target = filters.fold(target, |target, filter| target.with("filter", Some(filter)));
    Ok(target.with("held", held.then_some("true")).to_string())
}

/// Prints images.
pub fn list(images: &[Image], format: Format) -> Result<(), Failure> {
    let headers = ["REMOTE", "ALIAS", "FINGERPRINT", "HELD", "DESCRIPTION", "ARCHITECTURE", "TYPE", "SIZE", "UPLOAD DATE"];
    let rows: Vec<Vec<String>> = images.iter().map(row).collect();
    print(format, &headers, &rows, &images)
}

fn row(image: &Image) -> Vec<String> {
    let alias = match image.aliases.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, more @ ..] => format!("{first} ({} more)", more.len()),
    };
    vec![
        image.remote.clone(),
        alias,
        image.fingerprint.chars().take(SHOWN_DIGITS).collect(),
        yes_or_no(image.held).to_owned(),
        image.properties.get("description").cloned().unwrap_or_default(),
        image.architecture.clone(),
        image.image_type.to_uppercase(),
        size(image.size),
        day(&image.created_at).to_owned(),
    ]
}

/// Prints an image.
pub fn info(image: &Image, format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return print(format, &[], &[], image);
    }
    let Image { fingerprint, remote, product, version, architecture, image_type, held, public, cached, auto_update, .. } = image;
    println!("Fingerprint: {fingerprint}\nRemote: {remote}\nProduct: {}\nVersion: {}", plain(product), plain(version));
    println!("Size: {}\nArchitecture: {architecture}\nType: {image_type}", size(image.size));
    println!("Public: {}\nHeld: {}", yes_or_no(*public), yes_or_no(*held));
    println!("Cached: {}\nAuto update: {}", yes_or_no(*cached), if *auto_update { "enabled" } else { "disabled" });
    image.leaving.iter().for_each(|reason| println!("Leaving: {reason}"));
    println!("Timestamps:\n    Created: {}\n    Expires: {}", day(&image.created_at), image.expires_at.as_deref().map_or("never", day));
    println!("    Cached: {}", image.cached_at.as_deref().unwrap_or("never"));
    println!("    Last used: {}", image.last_used_at.as_deref().unwrap_or("never"));
    println!("Properties:");
    image.properties.iter().for_each(|(name, value)| println!("    {}: {}", plain(name), plain(value)));
    println!("Aliases:");
    image.aliases.iter().for_each(|alias| println!("    - {}", plain(alias)));
    Ok(())
}

fn yes_or_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use crate::cli::image::listing::target;

    fn list(filters: &[&str], held: bool) -> String {
        target(&filters.iter().map(ToString::to_string).collect::<Vec<_>>(), held).unwrap()
    }

    #[test]
    fn a_remote_may_stand_before_the_first_filter() {
        assert_eq!(list(&[], false), "/1.0/images");
        assert_eq!(list(&["ubuntu:"], true), "/1.0/images?remote=ubuntu&held=true");
        assert_eq!(list(&["ubuntu:24.04", "type=container"], false), "/1.0/images?remote=ubuntu&filter=24.04&filter=type%3Dcontainer");
        assert_eq!(list(&["description=a:b&c"], false), "/1.0/images?filter=description%3Da%3Ab%26c");
    }
}
