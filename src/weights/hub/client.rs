//! Requests to the hub: the list of a repository's files, and the content of a file; the meaning of its error responses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lsregen_files::Kind;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::address::{is_same_origin, masked, redirected};
use super::cache::is_commit;
use super::reference::is_inside;
use super::{Hub, HubRef};
use crate::{Error, Result};
use lsregen_tensor::nearest;

/// How many redirects are followed.
const REDIRECTS: usize = 10;

/// After how many times the timeout an answer must be complete that is not a file, or the head of one that is.
const SLOWEST: u32 = 6;

/// The most bytes of a response that is not a file: the list of a repository with several hundred thousand files.
const LONGEST_ANSWER: u64 = 128 << 20;

const SEGMENT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const PATH: AsciiSet = SEGMENT.remove(b'/');

/// A repository at one commit.
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<RemoteFile>,
}

/// A file of a repository. [`Client::complete`] requests what the list does not have.
#[derive(Clone)]
pub(super) struct RemoteFile {
    pub path: String,
    pub size: Option<u64>,
    /// The SHA-256 of a large file, or the git object of a small one.
    pub etag: Option<String>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: Option<u64>,
}

pub(super) struct Client<'a> {
    hub: &'a Hub,
    of: &'a HubRef,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub fn new(hub: &'a Hub, of: &'a HubRef) -> Result<Client<'a>> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &hub.certificates {
            let pem = lsregen_files::read(path, Kind::CONFIG).map_err(Error::io(path))?;
            let certificates = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let certificates: Vec<_> = certificates.collect();
            if certificates.is_empty() {
                return Err(Error::input(format!("{}: holds no certificate in PEM form", path.display())));
            }
            tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates)));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            // The client follows them itself, so that the token goes to one scheme, host and port only.
            .max_redirects(0)
            .timeout_resolve(Some(hub.timeout))
            .timeout_connect(Some(hub.timeout))
            .timeout_per_read(Some(hub.timeout))
            .timeout_per_write(Some(hub.timeout))
            .timeout_recv_response(Some(hub.timeout * SLOWEST))
            .user_agent(concat!("lsregen/", env!("CARGO_PKG_VERSION")));
        Ok(Client { hub, of, agent: config.build().into() })
    }

    /// Requests the files of the repository at the revision.
    pub fn list(&self) -> Result<Listing> {
        let revision = utf8_percent_encode(self.of.revision(), &SEGMENT);
        let address = format!("{}/revision/{revision}?blobs=true", self.repository());
        let answer = self.get(&address)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Err(self.not_there());
        }
        let info: Info = self.json(answer, &address)?;
        if !is_commit(&info.sha) {
            return Err(self.strange(&address, "it names no commit"));
        }
        let file = |s: Sibling| match s.lfs {
            Some(lfs) => RemoteFile { path: s.rfilename, size: lfs.size.or(s.size), etag: tag(&lfs.sha256) },
            None => RemoteFile { path: s.rfilename, size: s.size, etag: s.blob_id.as_deref().and_then(tag) },
        };
        let files = info.siblings.into_iter().filter(|sibling| is_inside(&sibling.rfilename)).map(file).collect();
        Ok(Listing { commit: info.sha, files })
    }

    /// Requests the size and the ETag of a file, which the list of a mirror may lack.
    pub fn complete(&self, file: &RemoteFile, commit: &str) -> Result<(String, u64)> {
        let address = self.address(&file.path, commit);
        // The hub redirects to the content and describes it in the same response, so redirects are not followed.
        let request = self.authorized(self.agent.head(&address), &address);
        let answer = request.header("Accept-Encoding", "identity").call();
        let answer = answer.map_err(|error| self.unreachable(error))?;
        if answer.status().is_client_error() || answer.status().is_server_error() {
            return Err(self.refused(answer, &address));
        }
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = header("x-linked-etag").or_else(|| header("etag"));
        let own_size = header("content-length").filter(|_| answer.status().is_success());
        let size = header("x-linked-size").or(own_size).and_then(|size| size.parse().ok());
        let etag = file.etag.clone().or_else(|| tag(etag?.trim_start_matches("W/").trim_matches('"')));
        let missing = || self.strange(&address, "its answer lacks the size of the file, or an ETag that is a checksum");
        etag.zip(file.size.or(size)).ok_or_else(missing)
    }

    /// Requests the content of a file from a byte on. The status of the response shows whether the server supports ranges.
    pub fn content(&self, file: &RemoteFile, commit: &str, from: u64) -> Result<Response<Body>, Failure> {
        let address = self.address(&file.path, commit);
        let answer = self.request(&address, (from > 0).then_some(from), None).map_err(Failure::Passing)?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Ok(answer),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::Passing(self.refused(answer, &address)))
            }
            _ => Err(Failure::Final(self.refused(answer, &address))),
        }
    }

    /// The error for a `path` that is not in the repository.
    pub fn no_file(&self, path: &str, listing: &Listing) -> Error {
        let names = nearest(path, listing.files.iter().map(|file| file.path.as_str()));
        said(format!("{}: the repository has no `{path}`; it has {names}", self.of))
    }

    /// The error if no files were chosen.
    pub fn nothing(&self, files: &[String]) -> Error {
        let weights = |name: &&str| [".safetensors", ".ckpt", ".bin", ".gguf"].iter().any(|end| name.ends_with(end));
        let names = nearest("", files.iter().map(String::as_str).filter(weights));
        said(format!(
            "{}: no model in diffusers' layout; of files with weights there is {names}: name one, as in hf:{}:FILE",
            self.of,
            self.of.id()
        ))
    }

    fn repository(&self) -> String {
        format!("{}/api/models/{}", self.hub.endpoint, self.of.id())
    }

    fn address(&self, path: &str, commit: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.hub.endpoint, self.of.id(), utf8_percent_encode(path, &PATH))
    }

    /// A request, with the token if the address is one of the hub.
    fn authorized<B>(&self, request: ureq::RequestBuilder<B>, address: &str) -> ureq::RequestBuilder<B> {
        match &self.hub.token {
            Some(token) if is_same_origin(&self.hub.endpoint, address) => {
                request.header("Authorization", format!("Bearer {token}"))
            }
            _ => request,
        }
    }

    /// Requests something that is not a file, whose answer has to come in time.
    fn get(&self, address: &str) -> Result<Response<Body>> {
        self.request(address, None, Some(self.hub.timeout * SLOWEST))
    }

    /// Requests an address, and those to which it redirects.
    fn request(&self, address: &str, from: Option<u64>, in_time: Option<Duration>) -> Result<Response<Body>> {
        let mut address = address.to_string();
        for _ in 0..=REDIRECTS {
            let request = self.agent.get(&address).config().timeout_recv_body(in_time).build();
            let mut request = self.authorized(request, &address).header("Accept-Encoding", "identity");
            if let Some(from) = from {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let answer = request.call().map_err(|error| self.unreachable(error))?;
            let location = answer.headers().get("location").and_then(|location| location.to_str().ok());
            let (true, Some(location)) = (answer.status().is_redirection(), location) else { return Ok(answer) };
            address =
                redirected(&address, location).ok_or_else(|| self.strange(&address, "it redirects to no address"))?;
        }
        Err(self.strange(&address, "it redirects without end"))
    }

    fn json<T: DeserializeOwned>(&self, mut answer: Response<Body>, address: &str) -> Result<T> {
        if !answer.status().is_success() {
            return Err(self.refused(answer, address));
        }
        let text = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        let text = text.map_err(|error| self.unreachable(error))?;
        serde_json::from_slice(&text).map_err(|error| self.strange(address, &error.to_string()))
    }

    /// The error for a missing repository or revision, with existing names.
    fn not_there(&self) -> Error {
        #[derive(Deserialize)]
        struct Named {
            #[serde(alias = "id")]
            name: String,
        }
        #[derive(Deserialize)]
        struct Refs {
            #[serde(default)]
            branches: Vec<Named>,
            #[serde(default)]
            tags: Vec<Named>,
        }
        let ask = |address: &str| self.get(address).ok();
        let refs = format!("{}/refs", self.repository());
        if let Some(refs) = ask(&refs).and_then(|answer| self.json::<Refs>(answer, &refs).ok()) {
            let names = refs.branches.iter().chain(&refs.tags).map(|named| named.name.as_str());
            let names = nearest(self.of.revision(), names);
            return said(format!("{}: no branch, tag or commit of this name; there is {names}", self.of));
        }
        let others = format!("{}/api/models?author={}&limit=500", self.hub.endpoint, self.of.owner);
        let others = ask(&others).and_then(|answer| self.json::<Vec<Named>>(answer, &others).ok()).unwrap_or_default();
        let hint = match nearest(&self.of.id(), others.iter().map(|named| named.name.as_str())) {
            names if others.is_empty() => format!("{} has {names} there; check the name", self.of.owner),
            names => format!("{} has {names}", self.of.owner),
        };
        said(format!("{}: {} has no such repository; {hint}", self.of, self.hub.endpoint))
    }

    fn refused(&self, mut answer: Response<Body>, address: &str) -> Error {
        let status = answer.status();
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let message = message.or_else(|| {
            #[derive(Deserialize)]
            struct Said {
                error: String,
            }
            let text = answer.body_mut().with_config().limit(1 << 16).read_to_vec().ok()?;
            Some(serde_json::from_slice::<Said>(&text).ok()?.error)
        });
        let quoted =
            message.map(|m| format!(" (\"{}\")", m.chars().filter(|c| !c.is_control()).take(300).collect::<String>()));
        let answer = format!("the hub answers {}{}", status.as_u16(), quoted.unwrap_or_default());
        let page = format!("{}/{}", self.hub.endpoint, self.of.id());
        let advice = match (status.as_u16(), &self.hub.token) {
            (401, Some(_)) if code.as_deref() != Some("GatedRepo") => format!(
                "it does not accept the token, or the token gives no access to this repository: check the name, and set HF_TOKEN to a \
                 valid token, or unset it; a gated model's licence is accepted at {page}"
            ),
            (401, _) => format!(
                "there is no such repository, or it is private or gated: check the name; accept the licence at {page} \
                 and set HF_TOKEN to a token of your account"
            ),
            (403, _) => format!(
                "access is not granted: accept the licence at {page} with the account of the token in HF_TOKEN, and allow \
                 that token to read gated repositories"
            ),
            (429, _) => "too many requests: try again later, or set HF_TOKEN".into(),
            (500.., _) => "try again later".into(),
            _ => format!("asked for {address}"),
        };
        said(format!("{}: {answer}: {advice}", self.of))
    }

    fn unreachable(&self, error: ureq::Error) -> Error {
        let why = match &error {
            ureq::Error::HostNotFound => "its host name cannot be resolved".to_string(),
            ureq::Error::Timeout(_) => format!("no answer for {} s", self.hub.timeout.as_secs()),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connection refused".into(),
            error => error.to_string(),
        };
        let advice = if why.contains("certificate") {
            "set SSL_CERT_FILE to the certificates of your proxy or mirror"
        } else {
            "check the network, set HTTPS_PROXY or a mirror as HF_ENDPOINT"
        };
        let kept = if self.hub.cached(self.of).is_some() { " (some of its files are cached)" } else { "" };
        said(format!(
            "{}: {} cannot be reached: {why}; {advice}, or set HF_HUB_OFFLINE=1 to use only what was downloaded \
             before{kept}",
            self.of, self.hub.endpoint
        ))
    }

    fn strange(&self, address: &str, what: &str) -> Error {
        said(format!("{}: {address} does not answer as the hub does: {what}; is HF_ENDPOINT a mirror of it?", self.of))
    }
}

/// An error that shows no password.
fn said(message: String) -> Error {
    Error::Input(masked(&message))
}

/// Why a request has no content.
pub(super) enum Failure {
    /// A later attempt may succeed.
    Passing(Error),
    Final(Error),
}

/// An ETag that is a checksum: a SHA-256, or a git object. A content with another name could not be verified.
fn tag(etag: &str) -> Option<String> {
    let is_sum = [40, 64].contains(&etag.len()) && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sum.then(|| etag.to_lowercase())
}
