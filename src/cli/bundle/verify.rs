//! Reads a bundle, and names what is missing, broken or too much. Needs no server.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::inspection::{Finding, Inspection, State, Told};
use crate::bundle::volume::BadBundle;
use crate::cli::admin::bar;
use crate::cli::bundle::key::read_public_key;
use crate::cli::exit::{FAILED, Failure};
use crate::cli::table::{Format, print, size};
use crate::disk::OsDisk;
use crate::manifest::Manifest;
use crate::seal::PublicKey;

/// What came of a verification.
#[derive(Debug, Serialize)]
struct Verified {
    generation: u64,
    created_at: String,
    /// The key whose owner signed it, if one was given.
    signed_by: Option<String>,
    volumes: Vec<Volume>,
    faults: Vec<Faulty>,
}

#[derive(Debug, Serialize)]
struct Volume {
    number: usize,
    state: &'static str,
    blobs: usize,
    size: u64,
}

#[derive(Debug, Serialize)]
struct Faulty {
    path: String,
    fault: String,
}

/// Reads everything, and says what it found.
pub fn run(format: Format, folders: &[PathBuf], key: Option<&Path>) -> Result<(), Failure> {
    let key = key.map(read_public_key).transpose()?;
    let inspection = Inspection::open(&OsDisk, folders, key.as_ref())?;
    let bar = bar("verifying");
    bar.set_length(inspection.manifest().size());
    let (mut faults, is_table) = (Vec::new(), format == Format::Table);
    let states = inspection.run(&mut |told| match told {
        Told::Read(count) => bar.inc(count),
        Told::Wrong(finding) if is_table => {
            bar.suspend(|| println!("{finding}"));
            faults.push(finding);
        }
        Told::Wrong(finding) => faults.push(finding),
    });
    bar.finish_and_clear();
    let verified = Verified::new(inspection.manifest(), key.as_ref(), &states, &faults);
    if is_table {
        verified.show();
    } else {
        print(format, &[], &[], &verified)?;
    }
    verdict(faults.len())
}

/// Whatever is wrong is a failure; a volume that is on another disk is none.
fn verdict(faults: usize) -> Result<(), Failure> {
    match faults {
        0 => Ok(()),
        _ => Err(Failure::new(FAILED, format!("the bundle has {faults} faults; remove what is named, and copy or export it again"))),
    }
}

impl Verified {
    fn new(manifest: &Manifest, key: Option<&PublicKey>, states: &[State], faults: &[Finding]) -> Self {
        let volume = |(number, (volume, state)): (usize, (&crate::manifest::Volume, &State))| Volume {
            number: number + 1,
            state: state.label(),
            blobs: volume.blobs.len(),
            size: volume.blobs.iter().map(|blob| blob.size).sum(),
        };
        let faulty = |finding: &Finding| Faulty { path: finding.path.display().to_string(), fault: finding.fault.to_string() };
        Self {
            generation: manifest.generation,
            created_at: manifest.created_at.clone(),
            signed_by: key.map(ToString::to_string),
            volumes: manifest.volumes.iter().zip(states).enumerate().map(volume).collect(),
            faults: faults.iter().map(faulty).collect(),
        }
    }

    fn show(&self) {
        let Self { generation, created_at, signed_by, volumes, .. } = self;
        match signed_by {
            Some(key) => println!("Bundle {generation} of {created_at}, signed by key {key}"),
            None => println!("Bundle {generation} of {created_at}; its signature was not checked, for no --key was given"),
        }
        for Volume { number, state, blobs, size: bytes } in volumes {
            println!("Volume {number} of {}: {state}; {blobs} blobs, {}", volumes.len(), size(*bytes));
        }
    }
}

impl From<BadBundle> for Failure {
    fn from(error: BadBundle) -> Self {
        Self::new(FAILED, error)
    }
}
