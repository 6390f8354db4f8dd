//! A hub with one repository that behaves like the real one, and fails as tests configure it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Larger files have their SHA-256 as ETag, and another host serves them.
const LARGE: usize = 1000;

/// The content and behaviour of the server, which tests may change while it runs.
#[derive(Default)]
pub struct World {
    /// The repository's `owner/name`.
    pub id: String,
    /// Branches and their commits.
    pub branches: BTreeMap<String, String>,
    /// Files of every commit.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Refuses content without this token.
    pub token: Option<String>,
    /// Refuses every request for content with this status and `X-Error-Code`.
    pub refuse: Option<(u16, &'static str)>,
    /// The next responses with a large file end after so many bytes each,
    pub cuts: Vec<usize>,
    /// after this silence.
    pub silence: Duration,
    /// Serves bytes that do not match the ETag.
    pub corrupt: bool,
    /// Ignores ranges and serves whole files.
    pub no_ranges: bool,
    /// Lists only names.
    pub plain_list: bool,
    /// Redirects large files to this port of the same host.
    pub content_port: Option<u16>,
    /// Sends large files a byte at a time, with this pause.
    pub drip: Option<Duration>,
    /// Names contents by texts that are no checksums.
    pub odd_etags: bool,
    /// All requests so far.
    pub log: Vec<Request>,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub host: String,
    pub range: Option<String>,
    pub token: Option<String>,
}

pub struct Server {
    pub endpoint: String,
    pub port: u16,
    world: Arc<Mutex<World>>,
}

impl Server {
    /// Starts a server of the repository `owner/name` with a branch `main`.
    pub fn start(files: &[(&str, Vec<u8>)]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let world = Arc::new(Mutex::new(World {
            id: "owner/name".into(),
            branches: BTreeMap::from([("main".into(), "a".repeat(40))]),
            files: files.iter().map(|(path, bytes)| (path.to_string(), bytes.clone())).collect(),
            ..World::default()
        }));
        let shared = world.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, port, &shared));
            }
        });
        Server { endpoint: format!("http://127.0.0.1:{port}"), port, world }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The host of large files.
    pub fn other_host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Requests for content since the last call.
    pub fn contents(&self) -> Vec<Request> {
        let log = std::mem::take(&mut self.world().log);
        log.into_iter().filter(|r| r.method == "GET" && !r.path.starts_with("/api/")).collect()
    }
}

/// The ETag of a file.
pub fn etag(bytes: &[u8]) -> String {
    if bytes.len() > LARGE {
        return format!("{:x}", Sha256::digest(bytes));
    }
    let git = Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes);
    format!("{:x}", git.finalize())
}

fn serve(mut stream: TcpStream, port: u16, world: &Mutex<World>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let mut words = line.split(' ').map(str::to_string);
        let (method, path) = (words.next()?, words.next()?);
        let mut request = Request { method, path, host: String::new(), range: None, token: None };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_lowercase().as_str() {
                "host" => request.host = value.into(),
                "range" => request.range = Some(value.into()),
                "authorization" => request.token = Some(value.into()),
                _ => {}
            }
        }
        let mut now = world.lock().unwrap_or_else(|e| e.into_inner());
        now.log.push(request.clone());
        let answer = answer(&request, port, &mut now);
        let (silence, drip) = (now.silence, now.drip);
        drop(now);
        let mut head = format!("HTTP/1.1 {} Some\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        if request.method == "HEAD" {
            continue;
        }
        if let (Some(pause), true) = (drip, answer.body.len() > LARGE) {
            for byte in answer.body {
                stream.write_all(&[byte]).ok()?;
                sleep(pause);
            }
            continue;
        }
        match answer.cut {
            Some(cut) if cut < answer.body.len() => {
                stream.write_all(&answer.body[..cut]).ok()?;
                sleep(silence);
                return None;
            }
            _ => stream.write_all(&answer.body).ok()?,
        }
    }
}

#[derive(Default)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
}

impl Answer {
    fn json(value: serde_json::Value) -> Answer {
        let headers = vec![("Content-Type", "application/json".into())];
        Answer { status: 200, headers, body: value.to_string().into_bytes(), cut: None }
    }

    fn refusal(status: u16, code: &str) -> Answer {
        let body = json!({"error": format!("refused: {code}")}).to_string().into_bytes();
        Answer { status, headers: vec![("X-Error-Code", code.into())], body, cut: None }
    }
}

fn answer(request: &Request, port: u16, world: &mut World) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    if path == "/api/models" {
        return Answer::json(json!([{"_id": "1", "id": world.id, "modelId": world.id}]));
    }
    if let Some(rest) = path.strip_prefix(&format!("/api/models/{}", world.id)) {
        if rest == "/refs" {
            let branch = |name: &String| json!({"name": name, "ref": format!("refs/heads/{name}")});
            let branches: Vec<_> = world.branches.keys().map(branch).collect();
            return Answer::json(json!({"branches": branches, "tags": [], "converts": []}));
        }
        return match commit(rest.strip_prefix("/revision/").unwrap_or("main"), world) {
            Some(commit) => Answer::json(list(&commit, query.contains("blobs"), world)),
            None => Answer::refusal(404, "RevisionNotFound"),
        };
    }
    // The host of large files requires no token.
    if let Some(rest) = path.strip_prefix("/content/") {
        return content(request, rest, world);
    }
    let Some(rest) = path.strip_prefix(&format!("/{}/resolve/", world.id)) else {
        return Answer::refusal(404, "RepoNotFound");
    };
    if let Some((status, code)) = world.refuse {
        return Answer::refusal(status, code);
    }
    if world.token.as_ref().is_some_and(|token| request.token != Some(format!("Bearer {token}"))) {
        return Answer::refusal(401, "GatedRepo");
    }
    let Some((commit, file)) = rest.split_once('/').and_then(|(r, file)| Some((commit(r, world)?, file))) else {
        return Answer::refusal(404, "RevisionNotFound");
    };
    let Some(bytes) = world.files.get(file) else { return Answer::refusal(404, "EntryNotFound") };
    if bytes.len() <= LARGE {
        let (mut name, size) = (etag(bytes), bytes.len());
        if world.odd_etags {
            name.truncate(32);
        }
        let mut answer = content(request, file, world);
        if request.method == "HEAD" {
            (answer.body, answer.status) = (vec![0; size], 200);
        }
        answer.headers.extend([("ETag", format!("\"{name}\"")), ("X-Repo-Commit", commit)]);
        return answer;
    }
    let headers = vec![
        (
            "Location",
            match world.content_port {
                Some(port) => format!("http://127.0.0.1:{port}/content/{file}?signature=x"),
                None => format!("http://localhost:{port}/content/{file}?signature=x"),
            },
        ),
        ("X-Repo-Commit", commit),
        ("X-Linked-Etag", format!("\"{}\"", etag(bytes))),
        ("X-Linked-Size", bytes.len().to_string()),
        ("ETag", "\"of the redirect\"".into()),
    ];
    Answer { status: 302, headers, ..Answer::default() }
}

fn commit(revision: &str, world: &World) -> Option<String> {
    let own = world.branches.values().find(|commit| *commit == revision);
    world.branches.get(revision).or(own).cloned()
}

fn list(commit: &str, blobs: bool, world: &World) -> serde_json::Value {
    let siblings = world.files.iter().map(|(path, bytes)| {
        let mut file = json!({"rfilename": path});
        if blobs && !world.plain_list {
            file["size"] = bytes.len().into();
            file["blobId"] = "b".repeat(40).into();
            match bytes.len() > LARGE {
                true => file["lfs"] = json!({"sha256": etag(bytes), "size": bytes.len(), "pointerSize": 135}),
                false => file["blobId"] = etag(bytes).into(),
            }
        }
        file
    });
    json!({"id": world.id, "modelId": world.id, "sha": commit, "siblings": siblings.collect::<Vec<_>>()})
}

fn content(request: &Request, path: &str, world: &mut World) -> Answer {
    let mut body = world.files[path].clone();
    let large = body.len() > LARGE;
    if world.corrupt {
        body[0] ^= 1;
    }
    let mut answer = Answer { status: 200, ..Answer::default() };
    let from = request.range.as_ref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    if let Some(from) = from.filter(|_| !world.no_ranges) {
        let size = body.len();
        answer.status = 206;
        answer.headers.push(("Content-Range", format!("bytes {from}-{}/{size}", size - 1)));
        body.drain(..from);
    }
    if request.method == "GET" && large && !world.cuts.is_empty() {
        answer.cut = Some(world.cuts.remove(0));
    }
    Answer { body, ..answer }
}
