//! The name of a model on the Hugging Face hub in a graph, such as `hf:owner/name`.

use std::fmt;

use crate::{Error, Result};

/// A repository of the hub, and optionally a revision and something inside: `hf:owner/name@revision:file`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HubRef {
    /// User or organisation.
    pub owner: String,
    /// The repository's name.
    pub name: String,
    /// Branch, tag or commit; `None` is the branch `main`.
    pub revision: Option<String>,
    /// Path of a file or folder inside the repository; `None` is all of it.
    pub file: Option<String>,
}

const FORM: &str =
    "write hf:owner/name, hf:owner/name:file or hf:owner/name@revision:file, as in hf:CompVis/stable-diffusion-v1-4";

impl HubRef {
    /// Parses a reference; `None` for a text that does not start with `hf:`.
    ///
    /// # Errors
    /// If a text that starts with `hf:` is malformed.
    pub fn parse(text: &str) -> Result<Option<HubRef>> {
        let Some(rest) = text.strip_prefix("hf:") else { return Ok(None) };
        let invalid = |what: String| Error::input(format!("`{text}`: {what}; {FORM}"));
        let (repository, file) = match rest.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (rest, None),
        };
        let (id, revision) = match repository.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (repository, None),
        };
        let Some((owner, name)) = id.split_once('/') else { return Err(invalid("no owner/name".into())) };
        if let Some((name, inside)) = name.split_once('/')
            && is_name(owner)
            && is_name(name)
            && is_inside(inside)
        {
            return Err(invalid(format!("write the file after a colon: hf:{owner}/{name}:{inside}")));
        }
        for part in [owner, name] {
            if !is_name(part) {
                return Err(invalid(format!(
                    "`{part}` is not a valid name on the hub (letters, digits, `-`, `_`, `.`)"
                )));
            }
        }
        if let Some(revision) = revision.filter(|revision| !is_inside(revision)) {
            return Err(invalid(format!("`{revision}` is not a valid branch, tag or commit")));
        }
        if let Some(file) = file.filter(|file| !is_inside(file)) {
            return Err(invalid(format!("`{file}` is not a path inside a repository")));
        }
        Ok(Some(HubRef {
            owner: owner.into(),
            name: name.into(),
            revision: revision.map(Into::into),
            file: file.map(Into::into),
        }))
    }

    /// The reference that a text without `hf:` most likely means: `owner/name`, or the address of a page or file on the hub.
    pub fn meant_by(text: &str) -> Option<HubRef> {
        let text = text.trim();
        let is_address = |prefix: &&str| text.strip_prefix(*prefix);
        let hosts =
            ["https://huggingface.co/", "http://huggingface.co/", "huggingface.co/", "https://hf.co/", "hf.co/"];
        let Some(path) = hosts.iter().find_map(is_address) else {
            let (_, name) = text.split_once('/')?;
            let is_file = [".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".yaml", ".yml", ".png", ".onnx"];
            let meant = HubRef::parse(&format!("hf:{text}")).ok().flatten();
            // `shapes/…` are the built-in models.
            return meant.filter(|meant| {
                meant.owner != "shapes" && !is_file.iter().any(|end| name.to_lowercase().ends_with(end))
            });
        };
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let mut parts = path.split('/');
        let (owner, name) = (parts.next()?, parts.next()?);
        let reference = match (parts.next(), parts.next(), parts.collect::<Vec<_>>().join("/")) {
            (Some("blob" | "resolve" | "tree" | "raw"), Some(revision), file) => {
                let revision = if revision == "main" { String::new() } else { format!("@{revision}") };
                let file = if file.is_empty() { file } else { format!(":{file}") };
                format!("hf:{owner}/{name}{revision}{file}")
            }
            _ => format!("hf:{owner}/{name}"),
        };
        HubRef::parse(&reference).ok().flatten()
    }

    /// `owner/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The branch, tag or commit, by default `main`.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "hf:{}/{}", self.owner, self.name)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        if let Some(file) = &self.file {
            write!(f, ":{file}")?;
        }
        Ok(())
    }
}

/// Whether the hub allows a name of an owner or repository. `--` separates the two in the cache.
fn is_name(text: &str) -> bool {
    let edge = |c: char| c == '-' || c == '.';
    let inner = |c: char| c.is_ascii_alphanumeric() || edge(c) || c == '_';
    !text.is_empty()
        && text.len() <= 96
        && text.chars().all(inner)
        && !text.starts_with(edge)
        && !text.ends_with(edge)
        && !text.contains("--")
        && !text.contains("..")
}

/// Whether a path of the hub stays inside the folder of its repository, on every system.
pub(super) fn is_inside(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_recognised_without_its_prefix() {
        let meant = |text: &str| HubRef::meant_by(text).map(|reference| reference.to_string());
        for (text, reference) in [
            ("stabilityai/stable-diffusion-xl-base-1.0", "hf:stabilityai/stable-diffusion-xl-base-1.0"),
            ("https://huggingface.co/CompVis/stable-diffusion-v1-4", "hf:CompVis/stable-diffusion-v1-4"),
            ("https://huggingface.co/a/b/blob/main/c/d.safetensors?download=true", "hf:a/b:c/d.safetensors"),
            ("https://huggingface.co/a/b/tree/fp16", "hf:a/b@fp16"),
            ("hf.co/a/b/", "hf:a/b"),
        ] {
            assert_eq!(meant(text).as_deref(), Some(reference));
        }
        for text in ["", "model", "a/b/c", "./a/b", "a/b.safetensors", "../b", "https://example.org/a/b", "a b/c"] {
            assert_eq!(meant(text), None, "{text}");
        }
    }

    #[test]
    fn references_are_read_and_written() {
        for text in [
            "hf:CompVis/stable-diffusion-v1-4",
            "hf:a/b@fp16",
            "hf:a/b@refs/pr/1:unet/x.safetensors",
            "hf:a/b:sub/folder/file.safetensors",
        ] {
            assert_eq!(HubRef::parse(text).unwrap().unwrap().to_string(), text);
        }
        let full = HubRef::parse("hf:o_1/n.2@refs/pr/1:vae/x.bin").unwrap().unwrap();
        assert_eq!((full.owner.as_str(), full.name.as_str()), ("o_1", "n.2"));
        assert_eq!((full.revision(), full.file.as_deref()), ("refs/pr/1", Some("vae/x.bin")));
        assert_eq!(HubRef::parse("hf:a/b").unwrap().unwrap().revision(), "main");
    }

    #[test]
    fn other_texts_are_others() {
        for text in ["", "models/sd", "hf", "HF:a/b", "./hf:a/b", "shapes/xl"] {
            assert_eq!(HubRef::parse(text).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn errors_state_the_expected_form() {
        let faulty = [
            "hf:",
            "hf:a",
            "hf:/b",
            "hf:a/",
            "hf:a/b@",
            "hf:a/b:",
            "hf:a/b:../c",
            "hf:a/b:/c",
            "hf:a/b:c//d",
            "hf:../b",
            "hf:a/..",
            "hf:a--b/c",
            "hf:a/b@../c",
            "hf:a/b:c\\d",
            "hf:a b/c",
            "hf://a/b",
            "hf:a/b:c:d",
        ];
        for text in faulty {
            let error = HubRef::parse(text).expect_err(text).to_string();
            assert!(error.contains("hf:owner/name"), "{error}");
        }
        let error = HubRef::parse("hf:a/b/unet/x.safetensors").unwrap_err().to_string();
        assert!(error.contains("hf:a/b:unet/x.safetensors"), "{error}");
    }
}
