//! The program itself: what it prints, and its exit codes.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::server::Server;

const CISTERN: &str = env!("CARGO_BIN_EXE_cistern");

fn cistern(arguments: &[&str]) -> Output {
    Command::new(CISTERN).args(arguments).env_remove("RUST_LOG").output().unwrap()
}

/// The exit code, and the one line on standard error.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = cistern(arguments);
    let line = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    (output.status.code().unwrap(), line)
}

fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("cistern.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_wrong_configuration_is_named_by_file_line_key_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    for (text, line, said) in [
        ("[server]\nlisten = [\"nonsense\"]", 2, "server.listen"),
        ("[server]\nlisten = []", 2, "server.listen: there must be at least one address"),
        ("\n[sever]\n", 2, "sever: there is no such key; the nearest is server"),
        ("[storage]\n\ncapacty = \"1GiB\"", 3, "storage.capacty: there is no such key; the nearest is storage.capacity"),
        ("[storage]\ncapacity = \"lots\"", 2, "storage.capacity: 'lots' is no size"),
        ("[storage]\ncapacity = 7", 2, "storage.capacity: this is no size"),
        ("[limits]\nring_size = \"5%\"", 2, "limits.ring_size: '5%' is no size"),
        ("[limits]\nconnections = 9223372036854775807", 2, "limits.connections: this is more than"),
        ("[limits]\nretry_gone = \"800000d\"", 2, "limits.retry_gone: this is more than a year"),
        ("[limits]\nfetches = 0", 2, "limits.fetches: zero would let nothing through"),
        ("[limits]\nheader_timeout = \"0s\"", 2, "limits.header_timeout: zero"),
        ("[images]\ngrace = \"soon\"", 2, "images.grace: 'soon' is no time"),
        ("[images]\nremote_cache_expiry = \"never\"", 2, "images.remote_cache_expiry: 'never' is no time"),
        ("[server]\nroot = [\"nobody\"]", 2, "server.root: there is no remote 'nobody'"),
        ("[server]\nplain_http = \"maybe\"", 2, "server.plain_http"),
        ("[remotes.lab]\nurl = []", 2, "remotes.lab.url: there must be at least one URL"),
        ("[remotes.lab]\nurl = [\"ftp://x\"]", 2, "remotes.lab.url: 'ftp' is neither http nor https"),
        ("[remotes.lab]\nurl = [\"https://x\"]\nselect = [\"arch\"]", 3, "remotes.lab.select: 'arch' is no filter"),
        ("[remotes.lab]\nurl = [\"https://x\"]\nmode = \"lazy\"", 3, "remotes.lab.mode: unknown variant"),
        ("[remotes.lab]\nurl = [\"https://x\"]\nsignature = \"off\"", 3, "remotes.lab.signature: not built yet"),
        ("[remotes.lab]\nurl = [\"https://x\"]\nmax_gone = \"half\"", 3, "remotes.lab.max_gone: 'half' is no share"),
        ("[remotes.local]\nurl = [\"https://x\"]", 1, "remotes.local: this name is taken"),
        ("[remotes.\"a.b\"]\nurl = [\"https://x\"]", 1, "remotes.a.b: a remote's name has"),
        ("[remotes.lab]\nurl = [\"https://x\"]\nca = \"/dev/null\"", 3, "remotes.lab.ca: there is no certificate in /dev/null"),
        ("[remotes.lab]\nurl = [\"https://x\"]\nheaders = {Range = \"bytes=0-1\"}", 3, "remotes.lab.headers.Range: this header is ours"),
        ("[tls]\nnames = [\"good.example\", \"no name\"]", 2, "tls.names: 'no name' is neither a DNS name nor an address"),
        ("[tls]\ncertificate = \"/dev/null\"\nkey = \"/dev/null\"", 2, "tls.certificate: there is no certificate in it"),
        ("[tls]\ncertificate = \"/x\"", 2, "tls.certificate: there is no tls.key"),
        ("listen = [", 1, ""),
    ] {
        let path = file(folder.path(), text);
        let (code, line_said) = failure(&["config", "check", &path]);
        assert_eq!(code, 78, "{text}: {line_said}");
        assert!(line_said.starts_with(&format!("cistern: {path}:{line}: {said}")), "{text}: {line_said}");
        assert_eq!(line_said.lines().count(), 1, "{line_said}");
        assert_eq!(failure(&["serve", "--config", &path]).0, 78);
    }
    assert_eq!(failure(&["config", "check", "/nowhere/cistern.toml"]).0, 78);
}

#[test]
fn the_environment_goes_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "[server]\nlisten = [\"127.0.0.1:1\"]\n[storage]\ncapacity = \"1GiB\"");
    let show = |variables: &[(&str, &str)]| {
        Command::new(CISTERN).args(["config", "show", &path]).envs(variables.iter().copied()).output().unwrap()
    };
    let output = show(&[
        ("CISTERN_SERVER_LISTEN", "127.0.0.1:2, [::1]:3"),
        ("CISTERN_STORAGE_CAPACITY", "2GiB"),
        ("CISTERN_IMAGES_AUTO_UPDATE_INTERVAL", "12"),
        ("CISTERN_SERVICE_HOST", "10.0.0.1"),
    ]);
    let shown = String::from_utf8(output.stdout).unwrap();
    for line in ["\"127.0.0.1:2\",", "\"[::1]:3\",", "capacity = \"2GiB\"", "auto_update_interval = \"12h\""] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let output = show(&[("CISTERN_STORAGE_CAPACITY", "lots")]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("environment variable CISTERN_STORAGE_CAPACITY: storage.capacity: 'lots' is no size")
    );
}

#[test]
fn secrets_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        folder.path(),
        "[remotes.lab]\nurl = [\"https://me:geheim@x.example/y\"]\nproxy = \"http://me:geheim@proxy.example\"\nheaders = { Authorization = \"geheim\" }",
    );
    let shown = String::from_utf8(cistern(&["config", "show", &path]).stdout).unwrap();
    assert!(shown.contains("https://hidden@x.example/y") && shown.contains("Authorization = \"(hidden)\""), "{shown}");
    assert!(!shown.contains("geheim"), "{shown}");
}

#[test]
fn every_key_is_explained_in_the_sample_and_has_its_default_there() {
    let sample = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/cistern.toml")).unwrap();
    // The example of a remote stands there without effect: a hash, and no space.
    let sample: String = sample
        .lines()
        .map(|line| if line.starts_with("# ") { line } else { line.trim_start_matches('#') })
        .flat_map(|line| [line, "\n"])
        .collect();
    let table: toml::Table = sample.parse().unwrap();
    for key in cistern::config::keys::known() {
        let parts: Vec<&str> = key.split('.').map(|part| if part == "*" { "ubuntu" } else { part }).collect();
        let found = parts.iter().try_fold(toml::Value::Table(table.clone()), |value, part| value.get(part).cloned());
        assert!(found.is_some(), "{key} is not in config/cistern.toml");
    }
    let defaults = cistern::config::Config::parse("", "defaults", []).unwrap().show();
    let sample = cistern::config::Config::parse(&sample, "sample", []).unwrap().show();
    let without_remotes = |shown: &str| shown.split("[remotes").next().unwrap().to_owned();
    assert_eq!(without_remotes(&sample), without_remotes(&defaults));
}

#[test]
fn without_a_configuration_the_public_servers_are_mirrored() {
    let config = cistern::config::Config::parse("", "defaults", []).unwrap();
    let names: Vec<&str> = config.remotes.iter().map(|remote| &**remote.name()).collect();
    assert_eq!(names, ["ubuntu", "ubuntu-daily", "ubuntu-minimal", "ubuntu-minimal-daily", "lxd-images", "incus-images"]);
    let twins: Vec<bool> = config.remotes.iter().map(|remote| remote.settings.twins).collect();
    assert_eq!(twins, [true, true, true, true, true, false]);
}

#[test]
fn wrong_usage_and_a_server_that_does_not_run_have_codes_of_their_own() {
    assert_eq!(cistern(&["nonsense"]).status.code(), Some(2));
    assert_eq!(cistern(&["--version"]).status.code(), Some(0));
    assert_eq!(cistern(&["completions", "bash"]).status.code(), Some(0));
    let (code, line) = failure(&["remote", "list", "--socket", "/nowhere/admin.sock"]);
    assert_eq!(code, 69);
    assert!(line.contains("start it with 'cistern serve'"), "{line}");
}

#[test]
fn the_demonstration_shows_a_miss_and_a_hit() {
    let output = cistern(&["demo", "--once"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("cold:") && printed.contains("fwd=uri-miss; stored"), "{printed}");
    assert!(printed.contains("warm:") && printed.contains("cistern; hit"), "{printed}");
    assert!(printed.contains("asked for it 1 time(s)"), "{printed}");
}

const SERVER: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{folder}/admin.sock\"\n\
                      [remotes.lab]\nurl = [\"http://127.0.0.1:9\"]\n";

#[test]
fn a_running_server_answers_commands_and_signals() {
    let mut server = Server::start(SERVER, &[]);
    let socket = server.folder().join("admin.sock").display().to_string();
    let list = || {
        let output = cistern(&["remote", "list", "--format", "json", "--socket", &socket]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert_eq!((list()[0]["name"].as_str(), list()[0]["mode"].as_str()), (Some("lab"), Some("proxy")));
    let (code, line) = failure(&["remote", "refresh", "--socket", &socket]);
    assert_eq!((code, line.as_str()), (1, "cistern: 1 of 1 remotes could not be refreshed"));
    let (code, line) = failure(&["remote", "refresh", "nobody", "--socket", &socket]);
    assert_eq!(code, 1);
    assert!(line.contains("there is no remote 'nobody'"), "{line}");
    let yaml = String::from_utf8(cistern(&["remote", "list", "--format", "yaml", "--socket", &socket]).stdout).unwrap();
    assert!(yaml.contains("name: lab"), "{yaml}");

    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    let key = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(server.folder().join("store/tls/ca.key")).unwrap().permissions());
    assert_eq!(key & 0o777, 0o600);
    for side in ["", "-wal", "-shm"] {
        let rows = std::fs::metadata(server.folder().join(format!("store/ledger.sqlite{side}"))).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&rows.permissions()) & 0o777, 0o600, "{side}");
    }

    // Another one over the same store, with sockets of its own.
    let other = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(server.folder().join("cistern.toml")).unwrap();
    let (code, line) = failure(&["serve", "--config", &file(other.path(), &text.replace("/admin.sock", "/other.sock"))]);
    assert!(code == 1 && line.starts_with("cistern: another cistern uses ") && line.lines().count() == 1, "{line}");
    assert_eq!(list()[0]["name"], "lab", "the first one goes on");

    std::fs::write(server.folder().join("cistern.toml"), "nonsense").unwrap();
    server.signal(rustix::process::Signal::HUP);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(list()[0]["name"], "lab", "a wrong configuration is refused and the old one stays");
    server.configure(&format!("{SERVER}[remotes.more]\nurl = [\"http://127.0.0.1:9\"]"));
    server.signal(rustix::process::Signal::HUP);
    let started = Instant::now();
    while list().as_array().unwrap().len() != 2 {
        assert!(started.elapsed() < Duration::from_secs(10), "the new configuration is not taken");
        std::thread::sleep(Duration::from_millis(50));
    }

    let config = server.folder().join("cistern.toml").display().to_string();
    let other = failure(&["serve", "--config", &config]);
    assert_eq!(other.0, 1);
    assert!(other.1.contains("another cistern uses"), "{}", other.1);

    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.ended(), Some(0), "SIGTERM drains and ends well");
}

#[test]
fn what_keeps_it_from_starting_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let start = |server: &str, rest: &str| {
        let config =
            file(folder.path(), &format!("[server]\nmetrics = \"127.0.0.1:0\"\nadmin_socket = \"{path}/admin.sock\"\n{server}\n{rest}"));
        let (code, said) = failure(&["serve", "--config", &config]);
        (code, said.lines().last().unwrap_or_default().to_owned())
    };
    let free = "listen = [\"127.0.0.1:0\"]";
    let store = format!("[storage]\npath = \"{path}/store\"");
    std::fs::write(folder.path().join("bad.pem"), "nonsense").unwrap();
    let precious = folder.path().join("precious");
    std::fs::create_dir_all(precious.join("data")).unwrap();
    let mistyped =
        file(folder.path(), &format!("[server]\nmetrics = \"127.0.0.1:0\"\n{free}\nadmin_socket = \"{}\"\n{store}", precious.display()));
    let (code, said) = failure(&["serve", "--config", &mistyped]);
    assert!(code == 1 && said.contains("something else of that name"), "{said}");
    assert!(precious.join("data").is_dir(), "what is no socket is never removed");
    for store in ["newer", "garbled/state/published"] {
        std::fs::create_dir_all(folder.path().join(store)).unwrap();
    }
    rusqlite::Connection::open(folder.path().join("newer/ledger.sqlite")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let newer = || std::fs::read(folder.path().join("newer/ledger.sqlite")).unwrap();
    let before = newer();
    std::fs::write(folder.path().join("garbled/state/published/x"), "nonsense").unwrap();
    for ((code, said), expected_code, expected) in [
        (start(free, &format!("[storage]\npath = \"{path}/newer\"")), 1, "was written by a newer cistern (its version is 99"),
        (start(free, &format!("[storage]\npath = \"{path}/garbled\"")), 1, "what people decided cannot be read"),
        (start(&format!("listen = [\"{}\"]", taken.local_addr().unwrap()), &store), 1, "another program has that port"),
        (start(free, "[storage]\npath = \"/dev/null/store\""), 1, "storage.path must be a folder that this user may write to"),
        (
            start(free, &format!("{store}\n[tls]\ncertificate = \"{path}/none.pem\"\nkey = \"{path}/none.pem\"")),
            78,
            "cistern.toml:8: tls.certificate: cannot read",
        ),
        (
            start(free, &format!("{store}\n[tls]\ncertificate = \"{path}/bad.pem\"\nkey = \"{path}/bad.pem\"")),
            78,
            "cistern.toml:8: tls.certificate: there is no certificate in it",
        ),
        (
            start(free, &format!("{store}\n[remotes.lab]\nurl = [\"https://x\"]\nca = \"{path}/none.pem\"")),
            78,
            "cistern.toml:9: remotes.lab.ca: cannot read",
        ),
    ] {
        assert_eq!(code, expected_code, "{said}");
        assert!(said.starts_with("cistern: ") && said.contains(expected), "{expected}: {said}");
    }
    assert!(newer() == before, "nothing is changed of what a newer program wrote");
}

#[test]
fn the_certificate_is_shown_and_renewed_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(folder.path(), &format!("[storage]\npath = \"{}/store\"", folder.path().display()));
    let certificate = |verb: &str| String::from_utf8(cistern(&["certificate", verb, "--config", &config]).stdout).unwrap();
    let ca = certificate("show");
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"), "{ca}");
    let trust = certificate("trust");
    for part in ["update-ca-certificates", "servercerts", "#cloud-config", &ca] {
        assert!(trust.contains(part), "{part}: {trust}");
    }
    let server = || std::fs::read(folder.path().join("store/tls/server.crt")).unwrap();
    certificate("renew");
    let first = server();
    certificate("renew");
    assert_ne!(server(), first);
    assert_eq!(certificate("show"), ca, "the CA survives renewals");
}
