//! The key that bundles are signed with, which is made when it is first wanted, and those whose bundles are taken.

use std::io;

use crate::disk::{self, Disk};
use crate::seal::{PublicKey, SigningKey};
use crate::store::layout::Layout;

const MAX_KEY_BYTES: u64 = 64 << 10;

/// Our own key. One that cannot be read is an error and not made anew: whoever trusts it would trust us no more.
pub fn own(disk: &dyn Disk, layout: &Layout) -> io::Result<SigningKey> {
    let path = layout.bundle_key();
    // It may be a link to where an operator keeps keys.
    let bytes = match disk.open(&path).and_then(|file| file.read_all(MAX_KEY_BYTES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(disk, layout),
        read => read?,
    };
    let key = SigningKey::from_pem(&String::from_utf8_lossy(&bytes));
    key.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

fn make(disk: &dyn Disk, layout: &Layout) -> io::Result<SigningKey> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| io::Error::other("the system has no random numbers"))?;
    let key = SigningKey::from_seed(&seed).map_err(io::Error::other)?;
    keep(disk, layout, &key).map(|()| key)
}

/// Takes a key for ours from now on.
pub fn keep(disk: &dyn Disk, layout: &Layout, key: &SigningKey) -> io::Result<()> {
    disk::replace(disk, &layout.bundle_key(), key.to_pem().as_bytes())
}

/// The keys whose bundles are taken, by what they are called.
pub fn trusted(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    for name in disk.names(&layout.trusted_keys())?.into_iter().filter(|name| !name.contains('.')) {
        let path = layout.trusted_keys().join(name);
        let text = disk.open(&path).and_then(|file| file.read_all(MAX_KEY_BYTES))?;
        let key = PublicKey::from_pem(&String::from_utf8_lossy(&text));
        keys.push(key.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))?);
    }
    keys.sort_by_key(ToString::to_string);
    Ok(keys)
}

/// Takes the bundles of a key from now on.
pub fn trust(disk: &dyn Disk, layout: &Layout, key: &PublicKey) -> io::Result<()> {
    disk::replace(disk, &layout.trusted_keys().join(key.to_string()), key.to_pem().as_bytes())
}

/// Takes the bundles of the key no more that is called `name`; whether it was taken before.
pub fn distrust(disk: &dyn Disk, layout: &Layout, name: &str) -> io::Result<bool> {
    let Some(key) = trusted(disk, layout)?.into_iter().find(|key| key.to_string() == name) else { return Ok(false) };
    disk.remove(&layout.trusted_keys().join(key.to_string()))?;
    disk.sync_directory(&layout.trusted_keys()).map(|()| true)
}

#[cfg(test)]
mod tests {
    use crate::disk::{Disk as _, OsDisk};
    use crate::seal::SigningKey;
    use crate::store::keys::{distrust, keep, own, trust, trusted};
    use crate::store::layout::Layout;

    #[test]
    fn the_key_is_made_once_and_stays_until_another_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create(&OsDisk).unwrap();
        let made = own(&OsDisk, &layout).unwrap().public();
        assert_eq!(own(&OsDisk, &layout).unwrap().public(), made);
        let other = SigningKey::from_seed(&[3; 32]).unwrap();
        keep(&OsDisk, &layout, &other).unwrap();
        assert_eq!(own(&OsDisk, &layout).unwrap().public(), other.public());
        let file = OsDisk.create(&layout.bundle_key()).unwrap();
        OsDisk.truncate(&file, 10).unwrap();
        assert!(own(&OsDisk, &layout).unwrap_err().to_string().contains("key.pem"), "it is not made anew");
    }

    #[test]
    fn a_key_is_trusted_until_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        layout.create(&OsDisk).unwrap();
        let keys = [1, 2].map(|seed| SigningKey::from_seed(&[seed; 32]).unwrap().public());
        assert!(trusted(&OsDisk, &layout).unwrap().is_empty());
        keys.iter().chain(&keys).for_each(|key| trust(&OsDisk, &layout, key).unwrap());
        assert_eq!(trusted(&OsDisk, &layout).unwrap().len(), 2);
        assert!(distrust(&OsDisk, &layout, &keys[0].to_string()).unwrap());
        assert!(!distrust(&OsDisk, &layout, &keys[0].to_string()).unwrap() && !distrust(&OsDisk, &layout, "../key.pem").unwrap());
        assert_eq!(trusted(&OsDisk, &layout).unwrap(), [keys[1]]);
    }
}
