//! Writes the files of an image to a folder.

use std::path::Path;

use http_body_util::BodyExt as _;
use hyper::Method;

use crate::api::ImageFile;
use crate::cli::admin::{ask, request};
use crate::cli::exit::{FAILED, Failure};
use crate::cli::image::{Named, target};
use crate::disk::{Disk as _, OsDisk};

/// Writes them, each under its own name, and says where they are. A file that is there already is not touched.
pub async fn run(socket: &Path, Named { image, machine }: &Named, folder: &Path) -> Result<(), Failure> {
    let files: Vec<ImageFile> = ask(socket, Method::GET, &target(image, machine, &["files"])?, Vec::new()).await?;
    OsDisk.create_directory(folder).map_err(|error| failed(folder, &error))?;
    for (number, file) in files.iter().enumerate() {
        let path = folder.join(&file.name);
        if OsDisk.open(&path).is_ok() {
            return Err(Failure::new(FAILED, format!("{} is there already; remove it, or name another folder", path.display())));
        }
        let reply = request(socket, Method::GET, &target(image, machine, &["files", &number.to_string()])?, Vec::new()).await?;
        if let Err(error) = write(reply, file, &path).await {
            // Half a file is worse than none.
            drop(OsDisk.remove(&path));
            return Err(error);
        }
        println!("{}", path.display());
    }
    Ok(())
}

async fn write(reply: hyper::Response<hyper::body::Incoming>, file: &ImageFile, path: &Path) -> Result<(), Failure> {
    let target = OsDisk.create(path).map_err(|error| failed(path, &error))?;
    let (mut body, mut written) = (reply.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::new(FAILED, format!("the server broke off: {error}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        OsDisk.write_at(&target, &bytes, written).map_err(|error| failed(path, &error))?;
        written += bytes.len() as u64;
    }
    match file.size {
        Some(size) if size != written => Err(Failure::new(FAILED, format!("{} ended after {written} of {size} bytes", path.display()))),
        _ => Ok(()),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FAILED, format!("cannot write {}: {error}", path.display()))
}
