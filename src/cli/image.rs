//! `cistern image`

use std::path::Path;

use clap::Subcommand;
use hyper::Method;
use reqwest::Url;

use crate::api::Image;
use crate::cli::admin::ask;
use crate::cli::exit::{FAILED, Failure};
use crate::cli::serve::runtime;
use crate::cli::table::{Format, print, size};

/// So many digits of a fingerprint tell images apart for people.
const SHOWN_DIGITS: usize = 12;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List images
    #[command(visible_alias = "ls")]
    List {
        /// A remote, as NAME:, and filters: KEY=VALUE, or a part of an alias or fingerprint
        #[arg(value_name = "[REMOTE:][FILTER]")]
        filters: Vec<String>,
        /// Only those of which every file is held
        #[arg(long)]
        held: bool,
    },
    /// Show what is known of an image
    #[command(visible_alias = "show")]
    Info {
        /// An alias, or 12 or more digits of a fingerprint
        #[arg(value_name = "[REMOTE:]IMAGE")]
        image: String,
        /// A virtual machine, where there is a container of that name too
        #[arg(long)]
        vm: bool,
    },
}

/// Lists or shows images.
pub fn run(socket: &Path, format: Format, command: &Command) -> Result<(), Failure> {
    let runtime = runtime(0)?;
    match command {
        Command::List { filters, held } => {
            let path = list_path(filters, *held)?;
            list(&runtime.block_on(ask::<Vec<Image>>(socket, Method::GET, &path, Vec::new()))?, format)
        }
        Command::Info { image, vm } => {
            let path = info_path(image, *vm)?;
            info(&runtime.block_on(ask::<Image>(socket, Method::GET, &path, Vec::new()))?, format)
        }
    }
}

/// `lxc` takes a remote before the first filter, and so do we.
fn list_path(filters: &[String], held: bool) -> Result<String, Failure> {
    let mut url = base("/1.0/images")?;
    let mut filters = filters.iter().map(String::as_str);
    let mut query = url.query_pairs_mut();
    if let Some(first) = filters.next() {
        match first.split_once(':').filter(|(remote, _)| !remote.contains('=')) {
            Some((remote, rest)) => {
                query.append_pair("remote", remote);
                query.extend_pairs(Some(rest).filter(|rest| !rest.is_empty()).map(|rest| ("filter", rest)));
            }
            None => drop(query.append_pair("filter", first)),
        }
    }
    query.extend_pairs(filters.map(|filter| ("filter", filter)));
    query.extend_pairs(held.then_some(("held", "true")));
    drop(query);
    Ok(target(&url))
}

fn info_path(image: &str, vm: bool) -> Result<String, Failure> {
    let mut url = base("/1.0/images/")?;
    if ["", ".", ".."].contains(&image) {
        return Err(Failure::new(FAILED, format!("no image is called '{image}'; cistern image list shows what there is")));
    }
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push(image);
    }
    url.query_pairs_mut().extend_pairs(vm.then_some(("vm", "true")));
    Ok(target(&url))
}

fn base(path: &str) -> Result<Url, Failure> {
    Url::parse(&format!("http://admin{path}")).map_err(|error| Failure::new(FAILED, error))
}

fn target(url: &Url) -> String {
    let query = url.query().filter(|query| !query.is_empty()).map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", url.path())
}

fn list(images: &[Image], format: Format) -> Result<(), Failure> {
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

fn info(image: &Image, format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        return print(format, &[], &[], image);
    }
    let Image { fingerprint, remote, product, version, architecture, image_type, held, public, cached, auto_update, .. } = image;
    println!("Fingerprint: {fingerprint}\nRemote: {remote}\nProduct: {product}\nVersion: {version}");
    println!("Size: {}\nArchitecture: {architecture}\nType: {image_type}", size(image.size));
    println!("Public: {}\nHeld: {}", yes_or_no(*public), yes_or_no(*held));
    println!("Cached: {}\nAuto update: {}", yes_or_no(*cached), if *auto_update { "enabled" } else { "disabled" });
    image.leaving.iter().for_each(|reason| println!("Leaving: {reason}"));
    println!("Timestamps:\n    Created: {}\n    Expires: {}", day(&image.created_at), image.expires_at.as_deref().map_or("never", day));
    println!("    Cached: {}", image.cached_at.as_deref().unwrap_or("never"));
    println!("    Last used: {}", image.last_used_at.as_deref().unwrap_or("never"));
    println!("Properties:");
    image.properties.iter().for_each(|(name, value)| println!("    {name}: {value}"));
    println!("Aliases:");
    image.aliases.iter().for_each(|alias| println!("    - {alias}"));
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
    use crate::cli::image::{info_path, list_path};

    fn list(filters: &[&str], held: bool) -> String {
        list_path(&filters.iter().map(ToString::to_string).collect::<Vec<_>>(), held).unwrap()
    }

    #[test]
    fn a_remote_may_stand_before_the_first_filter() {
        assert_eq!(list(&[], false), "/1.0/images");
        assert_eq!(list(&["ubuntu:"], true), "/1.0/images?remote=ubuntu&held=true");
        assert_eq!(list(&["ubuntu:24.04", "type=container"], false), "/1.0/images?remote=ubuntu&filter=24.04&filter=type%3Dcontainer");
        assert_eq!(list(&["description=a:b&c"], false), "/1.0/images?filter=description%3Da%3Ab%26c");
        assert_eq!(info_path("ubuntu:noble/amd64", true).unwrap(), "/1.0/images/ubuntu:noble%2Famd64?vm=true");
    }
}
