//! Names that people gave, as commands show them.

use crate::api::Alias;
use crate::ledger::publication::OwnAlias;
use crate::library::Library;
use crate::library::shelf::target;

/// All of them.
pub fn list(library: &Library) -> Vec<Alias> {
    library.shelf.aliases().iter().map(|alias| show(library, alias)).collect()
}

fn show(library: &Library, alias: &OwnAlias) -> Alias {
    let record = library.cache.books().read(|ledger| target(alias, ledger).cloned());
    let of = |text: fn(&crate::ledger::record::Record) -> String| record.as_ref().map(text).unwrap_or_default();
    Alias {
        name: alias.name.clone(),
        fingerprint: record.as_ref().map_or_else(|| alias.fingerprint.clone(), |record| record.fingerprint.to_string()),
        remote: of(|record| record.remote.to_string()),
        image_type: of(|record| record.image_type.to_string()),
        architecture: of(|record| record.version.product.architecture.to_string()),
        description: of(|record| {
            let properties = record.version.properties("");
            record.version.product.properties.get("description").or_else(|| properties.get("description")).cloned().unwrap_or_default()
        }),
    }
}
