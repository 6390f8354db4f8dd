//! Models by a short name, in the folders where people keep them.
//!
//! Knows folders and names: plain ones, and those of ComfyUI and of A1111's web UI, so that nothing need be copied.
//! Knows not what is in a file.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use lsregen_tensor::nearest;

/// What a file is looked for as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A whole checkpoint: a file, or a folder in diffusers' layout.
    Model,
    /// An autoencoder alone.
    Vae,
    /// The grounding weights of GLIGEN.
    Gligen,
    /// A CLIP with both encoders: a folder in transformers' layout.
    Clip,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Model, Kind::Vae, Kind::Gligen, Kind::Clip];

    /// What a file may be: the others are folders.
    pub const FILES: [Kind; 3] = [Kind::Model, Kind::Vae, Kind::Gligen];

    /// As it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::Vae => "VAE",
            Kind::Gligen => "GLIGEN",
            Kind::Clip => "CLIP",
        }
    }

    /// What ComfyUI and A1111's web UI keep in a folder of this name; `None` for what is not ours.
    pub fn kept_in(folder: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.folders().contains(&folder))
    }

    /// The folders for it of ComfyUI and of A1111's web UI.
    fn folders(self) -> &'static [&'static str] {
        match self {
            Kind::Model => &["checkpoints", "diffusers", "Stable-diffusion"],
            Kind::Vae => &["vae", "VAE"],
            Kind::Gligen => &["gligen"],
            Kind::Clip => &["clip", "clip_vision"],
        }
    }
}

/// Folders of ComfyUI for networks without their text encoders and autoencoder, which are not supported.
const BARE: [&str; 2] = ["diffusion_models", "unet"];

/// Their folders for what is no model, besides those of [`Kind::folders`] and [`BARE`]; in lower case.
const OTHER: [&str; 20] = [
    "audio_encoders",
    "codeformer",
    "configs",
    "controlnet",
    "deepbooru",
    "embeddings",
    "esrgan",
    "gfpgan",
    "hypernetworks",
    "karlo",
    "latent_upscale_models",
    "lora",
    "loras",
    "model_patches",
    "photomaker",
    "style_models",
    "text_encoders",
    "upscale_models",
    "vae-approx",
    "vae_approx",
];

const EXTENSIONS: [&str; 7] = ["safetensors", "sft", "ckpt", "pt", "pth", "bin", "gguf"];

/// Bounds of a search, for folders that hold more than models: a home, a disk.
const DEEPEST: usize = 8;
const MOST: usize = 100_000;

/// Folders in which models are looked for, the first one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelsPath {
    /// Each a folder of models, ComfyUI's folder `models`, or an installation of ComfyUI or of A1111's web UI. It need
    /// not be there.
    pub roots: Vec<PathBuf>,
    /// Folders for one kind alone, which are looked through after the roots.
    pub folders: Vec<(Kind, PathBuf)>,
}

impl ModelsPath {
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> ModelsPath {
        ModelsPath { roots: roots.into_iter().collect(), folders: Vec::new() }
    }

    /// Where things of a kind are: in each root the folders for them, then the root itself; then the further folders.
    fn places(&self, kind: Kind) -> impl Iterator<Item = PathBuf> {
        let of_root = move |root: &PathBuf| {
            let base = base(root);
            kind.folders().iter().map(move |folder| base.join(folder)).chain([self::base(root)])
        };
        let further = self.folders.iter().filter(move |(of, _)| *of == kind).map(|(_, folder)| folder.clone());
        self.roots.iter().flat_map(of_root).chain(further).filter(|folder| folder.is_dir())
    }

    /// The place of what is called `name`: its path below a folder, with or without the file's extension, or its last
    /// part alone where only one is called so. Never a place outside of the folders, except where their links lead.
    pub fn find(&self, kind: Kind, name: &str) -> Option<PathBuf> {
        // Workflows made on Windows have backslashes.
        let name = name.replace('\\', "/");
        let inside = |part| matches!(part, Component::Normal(_));
        if name.is_empty() || !Path::new(&name).components().all(inside) {
            return None;
        }
        let named = |folder: &PathBuf| {
            let path = folder.join(&name);
            let extended = || EXTENSIONS.iter().map(|e| folder.join(format!("{name}.{e}"))).find(|path| path.is_file());
            match kind {
                _ if is_folder_of(kind, &path) => Some(path),
                _ if !Kind::FILES.contains(&kind) => None,
                _ if path.is_file() => Some(path),
                _ => extended(),
            }
        };
        if let Some(path) = self.places(kind).find_map(|folder| named(&folder)) {
            return Some(path);
        }
        match self.called(kind, &name).as_slice() {
            [(_, path)] => Some(path.clone()),
            _ => None,
        }
    }

    /// All names, sorted.
    pub fn names(&self, kind: Kind) -> Vec<String> {
        self.entries(kind).into_keys().collect()
    }

    /// All names and their places. In a folder that is not sorted by kinds, whatever might be of this kind.
    pub fn entries(&self, kind: Kind) -> BTreeMap<String, PathBuf> {
        let mut walk = Walk { kind, found: BTreeMap::new(), seen: HashSet::new(), left: MOST };
        for folder in self.places(kind) {
            walk.folder(&folder, "", 0);
        }
        walk.found
    }

    /// Those whose last part is `name`.
    fn called(&self, kind: Kind, name: &str) -> Vec<(String, PathBuf)> {
        let is = |path: &Path| {
            let last = path.file_name().is_some_and(|last| last == name);
            last || is_weights(path) && path.file_stem().is_some_and(|stem| stem == name)
        };
        self.entries(kind).into_iter().filter(|(_, path)| is(path)).collect()
    }

    /// Why nothing was found, and what there is: for a person who gave this name.
    pub fn missing(&self, kind: Kind, name: &str) -> String {
        let several = self.called(kind, name);
        if several.len() > 1 {
            let names = nearest(name, several.iter().map(|(name, _)| name.as_str()));
            return format!("several are called `{name}`: {names}; write which");
        }
        let others = Kind::ALL.into_iter().filter(|other| *other != kind);
        if let Some((other, path)) = others.filter_map(|other| Some((other, self.find(other, name)?))).next() {
            return format!("`{name}` is no {} but a {}: {}", kind.name(), other.name(), path.display());
        }
        if let Some(path) = self.bare(name) {
            return format!(
                "{} lies where ComfyUI keeps networks without their text encoders and autoencoder, which are not \
                 supported; use a whole checkpoint",
                path.display()
            );
        }
        let further = self.folders.iter().filter(|(of, _)| *of == kind).map(|(_, folder)| folder);
        let folders = self.roots.iter().chain(further).filter(|folder| folder.is_dir());
        let folders: Vec<_> = folders.map(|folder| folder.display().to_string()).collect();
        if folders.is_empty() {
            let roots: Vec<_> = self.roots.iter().map(|root| root.display().to_string()).collect();
            let looked = if roots.is_empty() { String::new() } else { format!(" (looked for {})", roots.join(", ")) };
            return format!("there is no folder of models{looked}; name one by --models-dir");
        }
        let names = self.names(kind);
        let names = nearest(name, names.iter().map(String::as_str));
        format!("no {} `{name}` in {}; there is {names}", kind.name(), folders.join(", "))
    }

    /// Where ComfyUI would find a network alone.
    fn bare(&self, name: &str) -> Option<PathBuf> {
        let folders = self.roots.iter().flat_map(|root| BARE.map(|folder| base(root).join(folder)));
        let bare = ModelsPath::new(folders.filter(|folder| folder.is_dir()));
        bare.find(Kind::Model, name)
    }
}

/// The folder below which an installation keeps its models; any other folder itself.
fn base(root: &Path) -> PathBuf {
    let below = root.join("models");
    let installed = Kind::Model.folders().iter().any(|folder| below.join(folder).is_dir());
    if installed { below } else { root.to_path_buf() }
}

fn is_weights(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.contains(&extension.to_lowercase().as_str())
}

/// Whether a folder is one thing: a model in diffusers' layout, or one part of it.
fn is_whole(folder: &Path) -> bool {
    ["model_index.json", "config.json"].iter().any(|file| folder.join(file).is_file())
}

/// Whether a folder is a network in transformers' layout that takes pictures.
fn looks_at_pictures(folder: &Path) -> bool {
    ["config.json", "preprocessor_config.json"].iter().all(|file| folder.join(file).is_file())
}

fn is_folder_of(kind: Kind, folder: &Path) -> bool {
    match kind {
        Kind::Model | Kind::Gligen => folder.join("model_index.json").is_file(),
        // A whole model has an autoencoder too.
        Kind::Vae => is_whole(folder) && !looks_at_pictures(folder),
        Kind::Clip => looks_at_pictures(folder),
    }
}

/// Goes through folders.
struct Walk {
    kind: Kind,
    found: BTreeMap<String, PathBuf>,
    /// Folders as they are without links: none is gone through twice, so no loop is endless.
    seen: HashSet<PathBuf>,
    left: usize,
}

impl Walk {
    /// Adds what is below a folder. One that cannot be read has nothing.
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let new = fs::canonicalize(folder).is_ok_and(|real| self.seen.insert(real));
        if !new || depth > DEEPEST {
            return;
        }
        let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().take(self.left).collect();
        self.left -= entries.len();
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let file_name = entry.file_name();
            let Some(last) = file_name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            let (path, name) = (entry.path(), format!("{prefix}{last}"));
            // Follows links, unlike the entry's own.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let is_file = Kind::FILES.contains(&self.kind) && metadata.is_file() && is_weights(&path);
            if is_file || metadata.is_dir() && is_folder_of(self.kind, &path) {
                self.found.entry(name).or_insert(path);
            } else if metadata.is_dir() && !is_whole(&path) && !(depth == 0 && is_sorted(last)) {
                self.folder(&path, &format!("{name}/"), depth + 1);
            }
        }
    }
}

/// Whether a folder of this name holds things of one kind, or none of ours.
fn is_sorted(name: &str) -> bool {
    let kinds = Kind::ALL.iter().flat_map(|kind| kind.folders());
    kinds.chain(&BARE).any(|folder| *folder == name) || OTHER.contains(&name.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes empty files.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    /// What is found, relative to the root.
    fn found(root: &Path, kind: Kind, name: &str) -> Option<String> {
        let path = ModelsPath::new([root.to_path_buf()]).find(kind, name)?;
        Some(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"))
    }

    fn names(root: &Path, kind: Kind) -> Vec<String> {
        ModelsPath::new([root.to_path_buf()]).names(kind)
    }

    #[test]
    fn plain_folders() {
        let root = tree(&[
            "sd.safetensors",
            "old/v1.4.ckpt",
            "xl/model_index.json",
            "xl/unet/config.json",
            "xl/unet/x.safetensors",
            "fix/config.json",
            "fix/diffusion_pytorch_model.safetensors",
            "notes.txt",
            ".hidden/x.safetensors",
        ]);
        let root = root.path();
        for (name, path) in [
            ("sd", "sd.safetensors"),
            ("sd.safetensors", "sd.safetensors"),
            ("old/v1.4", "old/v1.4.ckpt"),
            ("v1.4", "old/v1.4.ckpt"),
            ("v1.4.ckpt", "old/v1.4.ckpt"),
            ("old\\v1.4.ckpt", "old/v1.4.ckpt"),
            ("xl", "xl"),
        ] {
            assert_eq!(found(root, Kind::Model, name).as_deref(), Some(path), "{name}");
        }
        assert_eq!(found(root, Kind::Vae, "fix").as_deref(), Some("fix"));
        for name in ["fix", "old", "v1", "notes", "", ".", "x"] {
            assert_eq!(found(root, Kind::Model, name), None, "{name}");
        }
        assert_eq!(names(root, Kind::Model), ["old/v1.4.ckpt", "sd.safetensors", "xl"]);
    }

    #[test]
    fn the_folders_of_comfyui_and_of_the_web_ui() {
        let comfy = tree(&[
            "models/checkpoints/SDXL/base.safetensors",
            "models/checkpoints/sd.ckpt",
            "models/diffusers/d/model_index.json",
            "models/vae/fix.safetensors",
            "models/gligen/g.safetensors",
            "models/loras/l.safetensors",
            "models/unet/flux.safetensors",
            "output/x.safetensors",
        ]);
        for root in [comfy.path().to_path_buf(), comfy.path().join("models")] {
            assert_eq!(names(&root, Kind::Model), ["SDXL/base.safetensors", "d", "sd.ckpt"]);
            assert_eq!(names(&root, Kind::Vae), ["fix.safetensors"]);
            assert_eq!(names(&root, Kind::Gligen), ["g.safetensors"]);
            for name in ["SDXL/base.safetensors", "SDXL\\base", "base", "sd", "d", "checkpoints/sd.ckpt"] {
                assert!(found(&root, Kind::Model, name).is_some(), "{name}");
            }
            assert!(found(&root, Kind::Model, "fix").is_none() && found(&root, Kind::Vae, "sd").is_none());
        }
        let path = ModelsPath::new([comfy.path().to_path_buf()]);
        assert!(path.missing(Kind::Model, "fix").contains("is no model but a VAE"));
        assert!(path.missing(Kind::Model, "flux").contains("without their text encoders"));
        let web = tree(&["models/Stable-diffusion/a/sd.safetensors", "models/VAE/v.pt", "models/Lora/l.safetensors"]);
        assert_eq!(names(web.path(), Kind::Model), ["a/sd.safetensors"]);
        assert_eq!(names(web.path(), Kind::Vae), ["v.pt"]);
    }

    #[test]
    fn a_clip_is_a_folder() {
        let root = tree(&[
            "clip/b32/config.json",
            "clip/b32/preprocessor_config.json",
            "clip/b32/model.safetensors",
            "clip/clip_l.safetensors",
            "clip_vision/h14.safetensors",
            "vae/fix/config.json",
            "vae/fix/x.safetensors",
            "own/config.json",
            "own/preprocessor_config.json",
        ]);
        let root = root.path();
        assert_eq!(names(root, Kind::Clip), ["b32", "own"]);
        assert_eq!((names(root, Kind::Vae), names(root, Kind::Model)), (vec!["fix".into()], vec![]));
        assert_eq!(found(root, Kind::Clip, "b32").as_deref(), Some("clip/b32"));
        assert_eq!((found(root, Kind::Clip, "clip_l"), found(root, Kind::Clip, "fix")), (None, None));
        let path = ModelsPath::new([root.to_path_buf()]);
        assert!(path.missing(Kind::Clip, "fix").contains("is no CLIP but a VAE"));
    }

    #[test]
    fn further_folders_are_for_their_kind() {
        let (root, disk) = (tree(&["own.safetensors"]), tree(&["a.safetensors"]));
        let mut path = ModelsPath::new([root.path().to_path_buf()]);
        path.folders = vec![(Kind::Vae, disk.path().to_path_buf())];
        assert_eq!(path.names(Kind::Model), ["own.safetensors"]);
        assert_eq!(path.names(Kind::Vae), ["a.safetensors", "own.safetensors"]);
        assert_eq!(path.find(Kind::Vae, "a"), Some(disk.path().join("a.safetensors")));
        assert_eq!(path.find(Kind::Model, "a"), None);
        assert_eq!(
            ["diffusers", "VAE", "gligen", "loras"].map(Kind::kept_in).map(|k| k.map(Kind::name)),
            [Some("model"), Some("VAE"), Some("GLIGEN"), None]
        );
    }

    #[test]
    fn names_do_not_leave_the_roots() {
        let root = tree(&["in/a.safetensors", "b.safetensors"]);
        let inside = root.path().join("in");
        let absolute = root.path().join("b.safetensors");
        for name in ["../b", "../b.safetensors", "x/../../b", "./../b", absolute.to_str().unwrap(), "/", "in/.."] {
            assert_eq!(found(&inside, Kind::Model, name), None, "{name}");
        }
    }

    #[test]
    fn the_first_root_wins_and_doubles_are_told() {
        let (one, two) = (tree(&["a.ckpt", "x/b.ckpt", "y/b.ckpt"]), tree(&["a.ckpt", "c.ckpt"]));
        let path = ModelsPath::new([one.path().into(), "nowhere".into(), two.path().into()]);
        assert_eq!(path.find(Kind::Model, "a").unwrap(), one.path().join("a.ckpt"));
        assert_eq!(path.find(Kind::Model, "c").unwrap(), two.path().join("c.ckpt"));
        assert_eq!(path.names(Kind::Model), ["a.ckpt", "c.ckpt", "x/b.ckpt", "y/b.ckpt"]);
        assert_eq!(path.find(Kind::Model, "b"), None);
        assert!(path.missing(Kind::Model, "b").contains("several are called `b`: `x/b.ckpt`, `y/b.ckpt`"));
        assert!(path.missing(Kind::Model, "cc").contains("there is `c.ckpt`, "), "{}", path.missing(Kind::Model, "cc"));
        let none = ModelsPath::new(["nowhere".into()]);
        assert!(none.missing(Kind::Model, "a").contains("no folder of models (looked for nowhere)"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_loops_end() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let elsewhere = tree(&["big/sd.safetensors", "one.ckpt"]);
        let root = tree(&["a/x.safetensors", "closed/y.safetensors"]);
        symlink(elsewhere.path().join("big"), root.path().join("linked")).unwrap();
        symlink(elsewhere.path().join("one.ckpt"), root.path().join("one.ckpt")).unwrap();
        symlink(root.path(), root.path().join("a/loop")).unwrap();
        symlink("nowhere", root.path().join("dead.safetensors")).unwrap();
        fs::set_permissions(root.path().join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        let names = names(root.path(), Kind::Model);
        fs::set_permissions(root.path().join("closed"), fs::Permissions::from_mode(0o755)).unwrap();
        // The superuser reads what is closed.
        let open: Vec<_> = names.iter().filter(|name| !name.starts_with("closed")).collect();
        assert_eq!(open, ["a/x.safetensors", "linked/sd.safetensors", "one.ckpt"]);
        assert!(found(root.path(), Kind::Model, "linked/sd").is_some());
    }
}
