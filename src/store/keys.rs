//! The key that bundles are signed with. It is made when it is first wanted.

use std::io;

use crate::disk::{self, Disk};
use crate::seal::SigningKey;
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

#[cfg(test)]
mod tests {
    use crate::disk::{Disk as _, OsDisk};
    use crate::seal::SigningKey;
    use crate::store::keys::{keep, own};
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
}
