//! Downloads from the hub, tested with a local server. The real hub is not contacted.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lsregen_weights::hub::{Hub, HubRef, Progress};
use lsregen_weights::{Error, Result};
use server::{Server, etag};
use tempfile::TempDir;

/// A temporary cache, and settings for a server.
struct Client {
    hub: Hub,
    folder: TempDir,
}

impl Client {
    fn of(server: &Server) -> Client {
        Client::with(server, &[])
    }

    /// The client with further environment variables.
    fn with(server: &Server, variables: &[(&str, &str)]) -> Client {
        let folder = tempfile::tempdir().unwrap();
        let base = [("HF_ENDPOINT", server.endpoint.as_str()), ("HF_HOME", folder.path().to_str().unwrap())];
        let find = |name: &str| base.iter().chain(variables).rev().find(|v| v.0 == name).map(|v| v.1.into());
        let mut hub = Hub::from_variables(find).unwrap();
        hub.patience = Duration::from_millis(1);
        Client { hub, folder }
    }

    /// Downloads all files.
    fn fetch(&self, text: &str) -> Result<PathBuf> {
        self.hub.fetch(&reference(text), &|files| files.to_vec(), &mut |_| Ok(()))
    }

    fn cached(&self, text: &str) -> Option<PathBuf> {
        self.hub.cached(&reference(text))
    }

    fn error(&self, text: &str) -> String {
        self.fetch(text).expect_err(text).to_string()
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("hub/models--owner--name")
    }

    /// The names in the folder of contents.
    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.repository().join("blobs")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn reference(text: &str) -> HubRef {
    HubRef::parse(text).unwrap().unwrap()
}

/// Bytes that differ between files and between offsets.
fn bytes(seed: u32, size: usize) -> Vec<u8> {
    (0..size as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

fn model() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("README.md", bytes(1, 500)),
        ("model_index.json", bytes(2, 300)),
        ("unet/config.json", bytes(3, 700)),
        ("unet/model.safetensors", bytes(4, 3_000_000)),
        ("vae/model.fp16.safetensors", bytes(5, 40_000)),
    ]
}

fn content(name: &str) -> Vec<u8> {
    model().into_iter().find(|(path, _)| *path == name).unwrap().1
}

const UNET: &str = "unet/model.safetensors";

#[test]
fn the_chosen_files_of_a_repository_come_once() {
    let server = Server::start(&model());
    let client = Client::of(&server);
    let of = reference("hf:owner/name");
    assert_eq!(client.hub.cached(&of), None);
    let mut seen = Vec::new();
    let wanted = |files: &[String]| -> Vec<String> {
        assert_eq!(files.len(), 5);
        files.iter().filter(|path| !path.contains("README")).cloned().collect()
    };
    let mut last = (0, 0);
    let mut progress = |p: Progress| {
        assert!(p.done <= p.size && p.all_done <= p.all_size && p.done <= p.all_done, "{p:?}");
        if seen.last().is_none_or(|file| file != p.file) {
            seen.push(p.file.to_string());
        }
        last = (p.all_done, p.all_size);
        Ok(())
    };
    let folder = client.hub.fetch(&of, &wanted, &mut progress).unwrap();
    assert_eq!(last, (3_041_000, 3_041_000));
    assert_eq!(seen.len(), 4);
    for (path, bytes) in model() {
        let file = folder.join(path);
        if path == "README.md" {
            assert!(!file.exists());
            continue;
        }
        assert_eq!(fs::read(&file).unwrap(), bytes, "{path}");
        #[cfg(unix)]
        {
            let up = "../".repeat(2 + path.matches('/').count());
            assert_eq!(fs::read_link(&file).unwrap(), Path::new(&format!("{up}blobs/{}", etag(&bytes))));
        }
    }
    let commit = fs::read_to_string(client.repository().join("refs/main")).unwrap();
    assert_eq!(folder, client.repository().join("snapshots").join(commit));
    assert_eq!(client.hub.cached(&of), Some(folder.clone()));
    assert_eq!(client.cached("hf:owner/name:unet/config.json"), Some(folder.join("unet/config.json")));
    assert_eq!(client.cached("hf:owner/name:README.md"), None);

    assert_eq!(server.contents().len(), 6, "four files, of which two are sent to another host");
    assert_eq!(client.hub.fetch(&of, &wanted, &mut |_| Ok(())).unwrap(), folder);
    assert_eq!(server.contents().len(), 0, "all is there");
}

#[test]
fn a_file_a_folder_and_revisions() {
    let server = Server::start(&model());
    let other = "c".repeat(40);
    server.world().branches.insert("refs/pr/1".into(), other.clone());
    let client = Client::of(&server);
    let file = client.fetch("hf:owner/name:unet/model.safetensors").unwrap();
    assert_eq!(fs::read(&file).unwrap(), content(UNET));
    assert_eq!(client.blobs().len(), 1);
    server.contents();

    let asked = |files: &[String]| {
        assert_eq!(files, ["config.json", "model.safetensors"], "names inside the folder");
        files.to_vec()
    };
    let of = reference("hf:owner/name@refs/pr/1:unet");
    assert_eq!(client.hub.cached(&of), None);
    let folder = client.hub.fetch(&of, &asked, &mut |_| Ok(())).unwrap();
    assert_eq!(folder, client.repository().join("snapshots").join(&other).join("unet"));
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), content(UNET));
    assert_eq!(client.hub.cached(&of), Some(folder.clone()));
    assert_eq!(server.contents().len(), 1, "the other commit's file has the same content: it is linked");

    let of = format!("hf:owner/name@{other}:unet");
    assert_eq!(client.cached(&of), Some(folder.clone()));
    assert_eq!(client.fetch(&of).unwrap(), folder);
    assert!(!client.repository().join("refs").join(&other).exists());
}

#[test]
fn an_interrupted_download_resumes() {
    let server = Server::start(&model());
    server.world().cuts = vec![1_000_000, 0, 0, 500_000];
    let client = Client::of(&server);
    let file = client.fetch("hf:owner/name:unet/model.safetensors").unwrap();
    assert_eq!(fs::read(file).unwrap(), content(UNET));
    let ranges: Vec<_> = server.contents().into_iter().filter(|r| r.host.contains("localhost")).collect();
    let ranges: Vec<_> = ranges.iter().map(|r| r.range.as_deref().unwrap_or("whole")).collect();
    assert_eq!(ranges, ["whole", "bytes=1000000-", "bytes=1000000-", "bytes=1000000-", "bytes=1500000-"]);
}

#[test]
fn a_partial_file_is_kept_and_is_not_complete() {
    let server = Server::start(&model());
    server.world().cuts = vec![2_000_000, 0, 0, 0, 0, 0];
    let client = Client::of(&server);
    let error = client.error("hf:owner/name");
    assert!(error.contains(UNET) && error.contains("try again to continue"), "{error}");
    assert_eq!(client.cached("hf:owner/name"), None);
    assert!(!client.repository().join("snapshots").exists());
    let partial = client.repository().join("blobs").join(format!("{}.incomplete", etag(&content(UNET))));
    assert_eq!(fs::metadata(partial).unwrap().len(), 2_000_000);

    server.world().cuts.clear();
    server.contents();
    let folder = client.fetch("hf:owner/name").unwrap();
    assert_eq!(fs::read(folder.join(UNET)).unwrap(), content(UNET));
    assert!(client.blobs().iter().all(|name| !name.contains("incomplete")));
    assert!(server.contents().iter().any(|r| r.range.as_deref() == Some("bytes=2000000-")));
}

#[test]
fn a_silent_server_is_disconnected_and_asked_again() {
    let server = Server::start(&model());
    let mut client = Client::of(&server);
    client.hub.timeout = Duration::from_secs(5);
    server.world().cuts = vec![1_000_000];
    server.world().silence = Duration::from_secs(3600);
    let file = client.fetch("hf:owner/name:unet/model.safetensors").unwrap();
    assert_eq!(fs::read(file).unwrap(), content(UNET));
}

#[test]
fn a_cancelled_download_resumes() {
    let server = Server::start(&model());
    let client = Client::of(&server);
    let of = reference("hf:owner/name:unet/model.safetensors");
    let stop = &mut |p: Progress| if p.done > 1_000_000 { Err(Error::Cancelled) } else { Ok(()) };
    let stopped = client.hub.fetch(&of, &|files| files.to_vec(), stop);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(client.hub.cached(&of), None);
    let mut first = None;
    let mut progress = |p: Progress| {
        first.get_or_insert(p.all_size);
        Ok(())
    };
    let file = client.hub.fetch(&of, &|files| files.to_vec(), &mut progress).unwrap();
    assert_eq!(first, Some(3_000_000));
    assert_eq!(fs::read(file).unwrap(), content(UNET));
    assert!(server.contents().iter().any(|r| r.range.is_some()));
}

#[test]
fn wrong_content_is_deleted() {
    let server = Server::start(&model());
    server.world().corrupt = true;
    let client = Client::of(&server);
    for (file, sum) in [(UNET, "SHA-256"), ("model_index.json", "git object")] {
        let of = format!("hf:owner/name:{file}");
        let error = client.error(&of);
        assert!(error.contains(sum) && error.contains(file) && error.contains("deleted"), "{error}");
        assert_eq!(client.cached(&of), None);
    }
    assert_eq!(client.blobs(), [""; 0]);
    server.world().corrupt = false;
    client.fetch("hf:owner/name").unwrap();
}

#[test]
fn a_wrong_partial_file_and_a_blob_of_another_size_are_replaced() {
    let server = Server::start(&model());
    let client = Client::of(&server);
    let (unet, vae) = (content(UNET), content("vae/model.fp16.safetensors"));
    let blobs = client.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", etag(&unet))), bytes(9, 2_000_000)).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", etag(&vae))), bytes(9, 100_000)).unwrap();
    fs::write(blobs.join(etag(&content("README.md"))), "short").unwrap();
    let folder = client.fetch("hf:owner/name").unwrap();
    for (path, bytes) in model() {
        assert_eq!(fs::read(folder.join(path)).unwrap(), bytes, "{path}");
    }
}

#[test]
fn a_link_to_a_removed_blob_is_no_file() {
    let server = Server::start(&model());
    let client = Client::of(&server);
    let of = "hf:owner/name:model_index.json";
    let file = client.fetch(of).unwrap();
    fs::remove_file(client.repository().join("blobs").join(etag(&content("model_index.json")))).unwrap();
    assert_eq!(client.cached(of), None);
    assert_eq!(client.fetch(of).unwrap(), file);
    assert_eq!(fs::read(file).unwrap(), content("model_index.json"));
}

#[test]
fn mirrors_that_do_less() {
    let server = Server::start(&model());
    server.world().plain_list = true;
    server.world().no_ranges = true;
    server.world().cuts = vec![600_000, 1_000_000];
    let client = Client::of(&server);
    let folder = client.fetch("hf:owner/name").unwrap();
    for (path, bytes) in model() {
        assert_eq!(fs::read(folder.join(path)).unwrap(), bytes, "{path}");
        assert!(client.blobs().contains(&etag(&bytes)), "{path}");
    }
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let server = Server::start(&model());
    server.world().token = Some("secret".into());
    let client = Client::with(&server, &[("HF_TOKEN", "secret")]);
    client.fetch("hf:owner/name:unet/model.safetensors").unwrap();
    let other = server.other_host();
    let log = std::mem::take(&mut server.world().log);
    assert!(log.iter().any(|r| r.host == other) && log.iter().any(|r| r.host != other));
    for request in log {
        assert_eq!(request.token.is_some(), request.host != other, "{request:?}");
    }
}

/// Another port of the same host may be another person's.
#[test]
fn the_token_does_not_go_to_another_port() {
    let (server, other) = (Server::start(&model()), Server::start(&model()));
    server.world().token = Some("secret".into());
    server.world().content_port = Some(other.port);
    let client = Client::with(&server, &[("HF_TOKEN", "secret")]);
    client.fetch("hf:owner/name:unet/model.safetensors").unwrap();
    let log = std::mem::take(&mut other.world().log);
    assert!(!log.is_empty() && log.iter().all(|request| request.token.is_none()), "{log:?}");
}

#[test]
fn a_password_of_the_endpoint_is_never_shown() {
    let server = Server::start(&model());
    let endpoint = server.endpoint.replace("http://", "http://user:pass@word@");
    let of = |variables: &[(&str, &str)]| Client::with(&server, variables).error("hf:owner/nome");
    for error in [of(&[("HF_ENDPOINT", &endpoint)]), of(&[("HF_ENDPOINT", "http://user:pass@word@127.0.0.1:9")])] {
        assert!(!error.contains("pass") && !error.contains("user") && error.contains("***@127.0.0.1"), "{error}");
    }
    let find = |name: &str| (name == "HF_ENDPOINT").then(|| "ftp://user:pass@hub".into());
    let error = Hub::from_variables(find).err().unwrap().to_string();
    assert!(error.contains("***@hub") && !error.contains("pass"), "{error}");
}

/// A byte now and then does not keep a download alive.
#[test]
fn a_server_that_drips_is_disconnected() {
    let server = Server::start(&model());
    server.world().drip = Some(Duration::from_millis(20));
    let mut client = Client::of(&server);
    client.hub.timeout = Duration::from_millis(200);
    let start = std::time::Instant::now();
    let error = client.error("hf:owner/name:unet/model.safetensors");
    assert!(error.contains("fewer than") && start.elapsed() < Duration::from_secs(20), "{error}");
}

/// What cannot be verified is not downloaded.
#[test]
fn contents_without_a_checksum_are_refused() {
    let server = Server::start(&model());
    server.world().plain_list = true;
    server.world().odd_etags = true;
    let client = Client::of(&server);
    let error = client.error("hf:owner/name:model_index.json");
    assert!(error.contains("checksum"), "{error}");
    assert_eq!(client.blobs(), [""; 0]);
}

#[test]
fn refusals_say_what_to_do() {
    let server = Server::start(&model());
    let client = Client::of(&server);
    let page = format!("{}/owner/name", server.endpoint);
    server.world().token = Some("secret".into());
    let error = client.error("hf:owner/name");
    assert!(error.contains("401") && error.contains("HF_TOKEN") && error.contains(&page), "{error}");
    let wrong = Client::with(&server, &[("HF_TOKEN", "wrong")]).error("hf:owner/name");
    assert!(wrong.contains("licence") && !wrong.contains("wrong"), "{wrong}");
    server.world().refuse = Some((403, "GatedRepo"));
    let error = client.error("hf:owner/name");
    assert!(error.contains("403") && error.contains("licence") && error.contains("refused: GatedRepo"), "{error}");
    server.world().refuse = Some((503, ""));
    let error = client.error("hf:owner/name");
    assert!(error.contains("503") && error.contains("try again later"), "{error}");
    assert_eq!(client.blobs().iter().filter(|name| !name.contains("incomplete")).count(), 0);
}

#[test]
fn missing_names_are_reported_with_existing_ones() {
    let server = Server::start(&model());
    server.world().branches.insert("fp16".into(), "d".repeat(40));
    let client = Client::of(&server);
    let error = client.error("hf:owner/nome");
    assert!(error.contains("no such repository") && error.contains("`owner/name`"), "{error}");
    let error = client.error("hf:owner/name@fp61");
    assert!(error.contains("there is `fp16`, `main`"), "{error}");
    let error = client.error("hf:owner/name:unet/modell.safetensors");
    assert!(error.contains("it has `unet/model.safetensors`"), "{error}");
    let unknown = client.hub.fetch(&reference("hf:owner/name"), &|_| vec!["x".into()], &mut |_| Ok(()));
    assert!(unknown.unwrap_err().to_string().contains("has no `x`"));
    let nothing = client.hub.fetch(&reference("hf:owner/name"), &|_| vec![], &mut |_| Ok(()));
    let nothing = nothing.unwrap_err().to_string();
    assert!(nothing.contains("`unet/model.safetensors`, `vae/model.fp16.safetensors`: name one"), "{nothing}");
}

#[test]
fn offline_only_the_cache_answers() {
    let server = Server::start(&model());
    let mut client = Client::of(&server);
    let online = client.fetch("hf:owner/name:unet").unwrap();
    server.world().log.clear();
    client.hub.offline = true;
    assert_eq!(client.fetch("hf:owner/name:unet").unwrap(), online);
    let error = client.error("hf:owner/name@fp16");
    assert!(error.contains("HF_HUB_OFFLINE") && error.contains("does not contain it"), "{error}");
    assert!(server.world().log.is_empty());
}

#[test]
fn no_network_is_said() {
    let server = Server::start(&[]);
    let mut client = Client::of(&server);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    client.hub.endpoint = format!("http://{free}");
    let error = client.error("hf:owner/name");
    assert!(error.contains("connection refused") && error.contains("HF_HUB_OFFLINE=1"), "{error}");
    client.hub.endpoint = "http://no-such-host.invalid".into();
    let error = client.error("hf:owner/name");
    assert!(error.contains("cannot be reached"), "{error}");
}

#[test]
fn names_from_the_hub_do_not_leave_the_cache() {
    let mut files = model();
    files.extend([("../../../evil", bytes(7, 10)), ("/evil", bytes(7, 10)), ("a/../../evil", bytes(7, 10))]);
    let server = Server::start(&files);
    let client = Client::of(&server);
    let mut offered = 0;
    let wanted = |files: &[String]| files.to_vec();
    let folder = client.hub.fetch(&reference("hf:owner/name"), &wanted, &mut |p| {
        offered += usize::from(p.file.contains("evil"));
        Ok(())
    });
    assert!(folder.is_ok() && offered == 0);
    server.world().branches.insert("main".into(), "../../../x".into());
    assert!(client.error("hf:owner/name").contains("names no commit"));
}

#[test]
fn two_at_once_download_once() {
    let server = Server::start(&model());
    let client = Client::of(&server);
    std::thread::scope(|scope| {
        let both = [(), ()].map(|()| scope.spawn(|| client.fetch("hf:owner/name:unet/model.safetensors").unwrap()));
        let both = both.map(|one| one.join().unwrap());
        assert_eq!(both[0], both[1]);
    });
    let contents = server.contents().into_iter().filter(|r| r.host == server.other_host()).count();
    assert_eq!(contents, 1);
}

/// `PYTHON=…/python cargo test -p lsregen-weights --test hub -- --ignored`, a Python with `huggingface_hub`.
#[test]
#[ignore = "needs a Python with huggingface_hub, in PYTHON"]
fn huggingface_hub_finds_ours_and_we_find_its() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let server = Server::start(&model());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hub/huggingface_hub_check.py");
    let run = |client: &Client, what: &str| {
        let mut command = Command::new(&python);
        command.arg(&script).arg(what).env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", client.folder.path());
        for name in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    };
    let client = Client::of(&server);
    let ours = client.fetch("hf:owner/name").unwrap();
    assert_eq!(run(&client, "local"), ours);

    let client = Client::of(&server);
    let theirs = run(&client, "download");
    assert_eq!(client.cached("hf:owner/name"), Some(theirs.clone()));
    server.contents();
    assert_eq!(client.fetch("hf:owner/name").unwrap(), theirs);
    assert_eq!(server.contents().len(), 0);

    // Each resumes the downloads of the other.
    let client = Client::of(&server);
    server.world().cuts = vec![2_000_000, 0, 0, 0, 0, 0];
    client.error("hf:owner/name:unet/model.safetensors");
    server.world().cuts.clear();
    server.contents();
    let theirs = run(&client, "download");
    assert!(server.contents().iter().any(|r| r.range.as_deref() == Some("bytes=2000000-")));
    assert_eq!(fs::read(theirs.join(UNET)).unwrap(), content(UNET));
}
