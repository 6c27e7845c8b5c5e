//! A sample image server and a mirror of it, on loopback, with nothing to configure.

pub mod image;
pub mod origin;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::app::outside::Outside;
use crate::config::Config;
use crate::demo::image::Sample;
use crate::demo::origin::Origin;
use crate::tls::authority::Authority;

/// Where the mirror listens if nobody says where, and if nobody else does already.
const DEFAULT_LISTEN: &str = "127.0.0.1:9443";

/// Runs the demonstration until Ctrl-C; with `once`, fetches an image cold and warm instead.
pub async fn run(outside: Outside, listen: Option<SocketAddr>, once: bool) -> anyhow::Result<()> {
    let folder = Folder::make(outside.clone())?;
    let sample = Sample::make(outside.clock.now()).context("cannot make the sample image")?;
    let origin = Origin::start(sample.documents_and_files()).await.context("cannot start the sample image server")?;
    let listen = choose(listen, once).await;
    let config = configuration(&folder.path, listen, &origin);
    let app = App::start(config, outside.clone()).await?;
    let mirror = app.addresses().first().copied().context("the mirror does not listen")?;
    let ca = Authority::new(&*outside.disk, &folder.path.join("tls")).ca(outside.clock.now())?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(app.run(mpsc::channel(1).1, stop.clone()));
    let shown = if once {
        fetch_twice(mirror, &ca, &sample, &origin).await
    } else {
        let ca_file = folder.path.join("ca.pem");
        crate::disk::replace(&*outside.disk, &ca_file, ca.as_bytes())?;
        println!("{}", instructions(mirror, &ca_file, &folder.path, &origin));
        tokio::signal::ctrl_c().await.map_err(Into::into)
    };
    stop.cancel();
    running.await??;
    shown
}

/// A folder that goes when the demonstration is over.
struct Folder {
    path: PathBuf,
    outside: Outside,
}

impl Folder {
    fn make(outside: Outside) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("cistern-demo-{}", std::process::id()));
        outside.disk.create_directory(&path).with_context(|| format!("cannot make {}", path.display()))?;
        outside.disk.restrict(&path, 0o700)?;
        Ok(Self { path, outside })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = self.outside.disk.remove(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The address that was asked for; else the usual one if it is free, else any.
async fn choose(listen: Option<SocketAddr>, once: bool) -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let usual = DEFAULT_LISTEN.parse().unwrap_or(any);
    match listen {
        Some(address) => address,
        None if once || tokio::net::TcpListener::bind(usual).await.is_err() => any,
        None => usual,
    }
}

fn configuration(folder: &Path, listen: SocketAddr, origin: &Origin) -> Config {
    let (path, url) = (folder.display(), origin.url());
    let text = format!(
        "server = {{ listen = [\"{listen}\"], metrics = \"127.0.0.1:0\", admin_socket = \"{path}/admin.sock\", drain = \"1s\" }}\n\
         storage = {{ path = \"{path}\", min_free = \"0%\" }}\n\
         remotes.sample.url = [\"{url}\"]\n"
    );
    Config::parse(&text, "the demonstration", []).expect("the demonstration's configuration is a good one")
}

fn instructions(mirror: SocketAddr, ca: &Path, folder: &Path, origin: &Origin) -> String {
    let (ca, socket, url) = (ca.display(), folder.join("admin.sock"), origin.url());
    let socket = socket.display();
    format!(
        "A sample image server runs at {url}, and a mirror of it at https://{mirror}.\n\
         \n\
         Look at it:\n  \
           curl --cacert {ca} https://{mirror}/streams/v1/index.json\n  \
           cistern remote list --socket {socket}\n\
         \n\
         Use it from LXD (in another terminal; pins the demonstration's CA for one remote of lxc):\n  \
           lxc remote add demo https://{mirror} --protocol=simplestreams\n  \
           mkdir -p ~/.config/lxc/servercerts && cp {ca} ~/.config/lxc/servercerts/demo.crt   # snap: ~/snap/lxd/common/config/servercerts\n  \
           lxc image list demo:\n  \
           lxc launch demo:sample c1\n\
         \n\
         Or without a daemon and without touching your configuration:\n  \
           export SSL_CERT_FILE={ca} LXD_CONF=$(mktemp -d)\n  \
           lxc remote add demo https://{mirror} --protocol=simplestreams\n  \
           lxc image list demo:\n\
         \n\
         Ctrl-C ends both, and nothing is left behind."
    )
}

/// Fetches the sample's root cold and then warm, as a host would, and prints both.
async fn fetch_twice(mirror: SocketAddr, ca: &str, sample: &Sample, origin: &Origin) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().tls_certs_only(reqwest::Certificate::from_pem_bundle(ca.as_bytes())?).no_proxy().build()?;
    wait_for_documents(&client, mirror).await?;
    let url = format!("http://{mirror}/sample/{}", sample.root_path());
    for state in ["cold", "warm"] {
        if state == "warm" {
            wait_until_held(&client, &url).await?;
        }
        let started = Instant::now();
        let mut response = client.get(&url).send().await?.error_for_status()?;
        let first = started.elapsed();
        let status = response.headers().get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        let whole = started.elapsed();
        ensure!(bytes == sample.root(), "the mirror sent other bytes than the image server has");
        println!("{state}: {} bytes in {whole:.1?}, the first after {first:.1?}; {status}", bytes.len());
    }
    println!("The image server was asked for it {} time(s); both times the bytes were right.", origin.requests_for(&sample.root_path()));
    Ok(())
}

/// A file is whole for its readers before it is safely on the disk, and a hit only then.
async fn wait_until_held(client: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    for _ in 0..100 {
        let head = client.head(url).send().await?;
        if head.headers().get("cache-status").is_some_and(|status| status == "cistern; hit") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the file is not held after five seconds")
}

async fn wait_for_documents(client: &reqwest::Client, mirror: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..100 {
        let index = client.get(format!("https://{mirror}/sample/streams/v1/index.json")).send().await?;
        if index.status().is_success() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the mirror has no documents after five seconds")
}
