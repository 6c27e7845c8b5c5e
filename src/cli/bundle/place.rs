//! Files below a folder that others may have had in hand: no link leads out of it.

use std::io;
use std::path::Path;

use crate::disk::{Disk as _, OsDisk, is_link};

/// An error if a folder on the way from `top` to a file below it is a link.
pub fn check(top: &Path, file: &str) -> io::Result<()> {
    let way: Vec<&Path> = Path::new(file).ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).collect();
    let links = way.into_iter().rev().map(|above| top.join(above));
    for folder in links {
        if is_link(&folder)? {
            return Err(io::Error::other(format!("{} is a link, which may lead elsewhere; remove it", folder.display())));
        }
    }
    Ok(())
}

/// Removes a plain file that no link leads to; whatever else has its name is not ours.
pub fn remove_file(top: &Path, file: &str) -> io::Result<()> {
    let path = top.join(file);
    if check(top, file).is_err() || OsDisk.open_own(&path)?.is_none() {
        return Ok(());
    }
    OsDisk.remove(&path)
}

/// Removes what is no plain file. A link that somebody prepared leads elsewhere.
pub fn remove_link(path: &Path) -> io::Result<()> {
    if OsDisk.open_own(path)?.is_none() { OsDisk.remove(path) } else { Ok(()) }
}
