//! The settings of the hub, from the environment variables of all clients of the hub.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lsregen_files::Kind;

use super::address::masked;
use crate::{Error, Result};

/// The address of the hub, its cache, and credentials.
#[derive(Clone)]
pub struct Hub {
    /// Address of the hub or of a mirror, without a slash at the end.
    pub endpoint: String,
    /// The cache that all clients share.
    pub cache: PathBuf,
    /// The access token, which is sent to the endpoint and to no other host.
    pub token: Option<String>,
    /// Whether the network is off.
    pub offline: bool,
    /// A PEM file of certificates that replace the built-in ones, for a mirror with its own.
    pub certificates: Option<PathBuf>,
    /// The time without data after which a connection fails.
    pub timeout: Duration,
    /// The wait before the first retry of a request that failed without data; it doubles with each further one.
    pub patience: Duration,
}

impl Hub {
    /// The settings of this process's environment.
    ///
    /// # Errors
    /// If a variable is invalid, or the token file cannot be read.
    pub fn from_env() -> Result<Hub> {
        Hub::from_variables(|name| std::env::var_os(name))
    }

    /// The settings of an environment, with the rules of the Python package `huggingface_hub`.
    ///
    /// # Errors
    /// As [`Hub::from_env`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Hub> {
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok()).filter(|v| !v.is_empty());
        let on = |name: &str| text(name).is_some_and(|v| ["1", "on", "yes", "true"].contains(&&*v.to_lowercase()));

        let user = path("HOME").or_else(std::env::home_dir).unwrap_or_default();
        let expanded = |path: PathBuf| match path.strip_prefix("~") {
            Ok(rest) => user.join(rest),
            Err(_) => path,
        };
        let home = match path("HF_HOME") {
            Some(home) => expanded(home),
            None => path("XDG_CACHE_HOME").map_or_else(|| user.join(".cache"), &expanded).join("huggingface"),
        };
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_file = path("HF_TOKEN_PATH").map_or_else(|| home.join("token"), &expanded);
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).and_then(clean);
        let token = match token {
            None if !on("HF_HUB_DISABLE_IMPLICIT_TOKEN") => read_token(&token_file)?,
            token => token,
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim_end_matches('/').to_string();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let shown = masked(&endpoint);
            return Err(Error::input(format!("HF_ENDPOINT: `{shown}` is not an address that begins with https://")));
        }
        Ok(Hub {
            endpoint,
            cache: cache.map_or_else(|| home.join("hub"), &expanded),
            token,
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            certificates: ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].into_iter().find_map(path),
            timeout: Duration::from_secs(
                text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|v| v.parse().ok()).unwrap_or(10).max(1),
            ),
            patience: Duration::from_secs(1),
        })
    }
}

/// Reads the token that `hf auth login` has saved.
fn read_token(path: &Path) -> Result<Option<String>> {
    match lsregen_files::read_text(path, Kind::SETTINGS) {
        Ok(text) => Ok(clean(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

fn clean(token: String) -> Option<String> {
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Hub {
        let home = [("HOME", "/h")];
        let find = |name: &str| home.iter().chain(variables).rev().find(|v| v.0 == name).map(|v| v.1.into());
        Hub::from_variables(find).unwrap()
    }

    #[test]
    fn the_cache_is_where_other_clients_have_it() {
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[], "/h/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/y")], "/y/hub"),
            (&[("HF_HOME", "~/y")], "/h/y/hub"),
            (&[("HF_HOME", "/y"), ("HF_HUB_CACHE", "/z")], "/z"),
            (&[("HF_HUB_CACHE", "~")], "/h"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HOME", ""), ("HF_HUB_CACHE", "")], "/h/.cache/huggingface/hub"),
        ];
        for (variables, cache) in cases {
            assert_eq!(hub(variables).cache, Path::new(cache), "{variables:?}");
        }
    }

    #[test]
    fn tokens_come_from_the_variable_then_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "from file\n").unwrap();
        let (home, path) = (("HF_HOME", folder.path().to_str().unwrap()), file.to_str().unwrap());
        assert_eq!(hub(&[home]).token.as_deref(), Some("from file"));
        assert_eq!(hub(&[("HF_TOKEN_PATH", path)]).token.as_deref(), Some("from file"));
        assert_eq!(hub(&[home, ("HF_TOKEN", " t\n")]).token.as_deref(), Some("t"));
        assert_eq!(hub(&[home, ("HF_TOKEN", "")]).token.as_deref(), Some("from file"));
        assert_eq!(hub(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
        assert_eq!(hub(&[]).token, None);
    }

    #[test]
    fn switches_and_mirror() {
        assert!(!hub(&[]).offline && !hub(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert!(hub(&[("HF_HUB_OFFLINE", "1")]).offline && hub(&[("TRANSFORMERS_OFFLINE", "True")]).offline);
        assert_eq!(hub(&[]).endpoint, "https://huggingface.co");
        assert_eq!(hub(&[("HF_ENDPOINT", "https://m.example/hub/")]).endpoint, "https://m.example/hub");
        let find = |name: &str| (name == "HF_ENDPOINT").then(|| "m.example".into());
        assert!(Hub::from_variables(find).err().unwrap().to_string().contains("HF_ENDPOINT"));
    }
}
