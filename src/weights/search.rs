//! Finds models by a short name, in plain folders and in those of ComfyUI and A1111's web UI.
//!
//! It uses the names of files and folders only.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use lsregen_tensor::nearest;

/// A kind of model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelKind {
    /// A whole checkpoint: a file, or a folder in diffusers' layout.
    Model,
    /// An autoencoder.
    Vae,
    /// GLIGEN's fusers.
    Gligen,
    /// A CLIP with both encoders: a folder in transformers' layout.
    Clip,
}

impl ModelKind {
    /// All kinds.
    pub const ALL: [ModelKind; 4] = [ModelKind::Model, ModelKind::Vae, ModelKind::Gligen, ModelKind::Clip];

    /// The kinds that may be files; the others are folders.
    pub const FILES: [ModelKind; 3] = [ModelKind::Model, ModelKind::Vae, ModelKind::Gligen];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            ModelKind::Model => "model",
            ModelKind::Vae => "VAE",
            ModelKind::Gligen => "GLIGEN",
            ModelKind::Clip => "CLIP",
        }
    }

    /// The kind that ComfyUI and A1111's web UI keep in a folder of this name, if it is supported.
    pub fn kept_in(folder: &str) -> Option<ModelKind> {
        ModelKind::ALL.into_iter().find(|kind| kind.folders().contains(&folder))
    }

    /// The folders of ComfyUI and A1111's web UI for this kind.
    fn folders(self) -> &'static [&'static str] {
        match self {
            ModelKind::Model => &["checkpoints", "diffusers", "Stable-diffusion"],
            ModelKind::Vae => &["vae", "VAE"],
            ModelKind::Gligen => &["gligen"],
            ModelKind::Clip => &["clip", "clip_vision"],
        }
    }
}

/// Folders of ComfyUI for denoisers without text encoders and autoencoder, which are not supported.
const BARE: [&str; 2] = ["diffusion_models", "unet"];

/// Other folders of both programs, in lower case.
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

/// Limits of a search, for folders that hold more than models, such as a home folder or a disk.
const DEEPEST: usize = 8;
const MOST: usize = 100_000;

/// The folders that are searched for models, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelsPath {
    /// Each is a folder of models, ComfyUI's folder `models`, or an installation of ComfyUI or A1111's web UI. Folders that do
    /// not exist are skipped.
    pub roots: Vec<PathBuf>,
    /// Folders for one kind, which are searched after the roots.
    pub folders: Vec<(ModelKind, PathBuf)>,
}

impl ModelsPath {
    /// Searches these roots.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> ModelsPath {
        ModelsPath { roots: roots.into_iter().collect(), folders: Vec::new() }
    }

    /// The folders for a kind: in each root its folders, then the root itself; then the further folders.
    fn places(&self, kind: ModelKind) -> impl Iterator<Item = PathBuf> {
        let of_root = move |root: &PathBuf| {
            let base = base(root);
            kind.folders().iter().map(move |folder| base.join(folder)).chain([self::base(root)])
        };
        let further = self.folders.iter().filter(move |(of, _)| *of == kind).map(|(_, folder)| folder.clone());
        self.roots.iter().flat_map(of_root).chain(further).filter(|folder| folder.is_dir())
    }

    /// Finds a model by `name`: its path below a folder, with or without the extension, or the last part of the path if that is
    /// unique. Never returns a path outside the folders, except through links in them.
    pub fn find(&self, kind: ModelKind, name: &str) -> Option<PathBuf> {
        // Workflows from Windows have backslashes.
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
                _ if !ModelKind::FILES.contains(&kind) => None,
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
    pub fn names(&self, kind: ModelKind) -> Vec<String> {
        self.entries(kind).into_keys().collect()
    }

    /// All names and their paths. In folders that are not sorted by kind, everything that may be of this kind.
    pub fn entries(&self, kind: ModelKind) -> BTreeMap<String, PathBuf> {
        let mut walk = Walk { kind, found: BTreeMap::new(), seen: HashSet::new(), left: MOST };
        for folder in self.places(kind) {
            walk.folder(&folder, "", 0);
        }
        walk.found
    }

    /// Models whose last part is `name`.
    fn called(&self, kind: ModelKind, name: &str) -> Vec<(String, PathBuf)> {
        let is = |path: &Path| {
            let last = path.file_name().is_some_and(|last| last == name);
            last || is_weights(path) && path.file_stem().is_some_and(|stem| stem == name)
        };
        self.entries(kind).into_iter().filter(|(_, path)| is(path)).collect()
    }

    /// The message for a name that was not found: the reason, and similar names.
    pub fn missing(&self, kind: ModelKind, name: &str) -> String {
        let several = self.called(kind, name);
        if several.len() > 1 {
            let names = nearest(name, several.iter().map(|(name, _)| name.as_str()));
            return format!("several are called `{name}`: {names}; write which");
        }
        let others = ModelKind::ALL.into_iter().filter(|other| *other != kind);
        if let Some((other, path)) = others.filter_map(|other| Some((other, self.find(other, name)?))).next() {
            return format!("`{name}` is a {}, not a {}: {}", other.name(), kind.name(), path.display());
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
            return format!(
                "no folder of models was found{looked}; write `shapes/gligen`, `shapes/xl` or the path of a model, or pass \
                 `--models-dir DIR`"
            );
        }
        let names = self.names(kind);
        let names = nearest(name, names.iter().map(String::as_str));
        format!("no {} `{name}` in {}; there is {names}", kind.name(), folders.join(", "))
    }

    /// Finds `name` in ComfyUI's folders for bare denoisers.
    fn bare(&self, name: &str) -> Option<PathBuf> {
        let folders = self.roots.iter().flat_map(|root| BARE.map(|folder| base(root).join(folder)));
        let bare = ModelsPath::new(folders.filter(|folder| folder.is_dir()));
        bare.find(ModelKind::Model, name)
    }
}

/// The folder of an installation's models; any other folder itself.
fn base(root: &Path) -> PathBuf {
    let below = root.join("models");
    let installed = ModelKind::Model.folders().iter().any(|folder| below.join(folder).is_dir());
    if installed { below } else { root.to_path_buf() }
}

fn is_weights(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.contains(&extension.to_lowercase().as_str())
}

/// Whether a folder is a model in diffusers' layout, or a part of one.
fn is_whole(folder: &Path) -> bool {
    ["model_index.json", "config.json"].iter().any(|file| folder.join(file).is_file())
}

/// Whether a folder is a network in transformers' layout that takes images.
fn takes_images(folder: &Path) -> bool {
    ["config.json", "preprocessor_config.json"].iter().all(|file| folder.join(file).is_file())
}

fn is_folder_of(kind: ModelKind, folder: &Path) -> bool {
    match kind {
        ModelKind::Model | ModelKind::Gligen => folder.join("model_index.json").is_file(),
        // A whole model has an autoencoder too.
        ModelKind::Vae => is_whole(folder) && !takes_images(folder),
        ModelKind::Clip => takes_images(folder),
    }
}

/// The state of a recursive search.
struct Walk {
    kind: ModelKind,
    found: BTreeMap<String, PathBuf>,
    /// The canonical paths of visited folders, so that loops of links end.
    seen: HashSet<PathBuf>,
    left: usize,
}

impl Walk {
    /// Adds the models below a folder. A folder that cannot be read is empty.
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
            // Follows links, unlike `entry.metadata()`.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let is_file = ModelKind::FILES.contains(&self.kind) && metadata.is_file() && is_weights(&path);
            if is_file || metadata.is_dir() && is_folder_of(self.kind, &path) {
                self.found.entry(name).or_insert(path);
            } else if metadata.is_dir() && !is_whole(&path) && !(depth == 0 && is_sorted(last)) {
                self.folder(&path, &format!("{name}/"), depth + 1);
            }
        }
    }
}

/// Whether ComfyUI or A1111's web UI uses a folder of this name.
fn is_sorted(name: &str) -> bool {
    let kinds = ModelKind::ALL.iter().flat_map(|kind| kind.folders());
    kinds.chain(&BARE).any(|folder| *folder == name) || OTHER.contains(&name.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates empty files.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    /// The path that is found, relative to the root.
    fn found(root: &Path, kind: ModelKind, name: &str) -> Option<String> {
        let path = ModelsPath::new([root.to_path_buf()]).find(kind, name)?;
        Some(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"))
    }

    fn names(root: &Path, kind: ModelKind) -> Vec<String> {
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
            assert_eq!(found(root, ModelKind::Model, name).as_deref(), Some(path), "{name}");
        }
        assert_eq!(found(root, ModelKind::Vae, "fix").as_deref(), Some("fix"));
        for name in ["fix", "old", "v1", "notes", "", ".", "x"] {
            assert_eq!(found(root, ModelKind::Model, name), None, "{name}");
        }
        assert_eq!(names(root, ModelKind::Model), ["old/v1.4.ckpt", "sd.safetensors", "xl"]);
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
            assert_eq!(names(&root, ModelKind::Model), ["SDXL/base.safetensors", "d", "sd.ckpt"]);
            assert_eq!(names(&root, ModelKind::Vae), ["fix.safetensors"]);
            assert_eq!(names(&root, ModelKind::Gligen), ["g.safetensors"]);
            for name in ["SDXL/base.safetensors", "SDXL\\base", "base", "sd", "d", "checkpoints/sd.ckpt"] {
                assert!(found(&root, ModelKind::Model, name).is_some(), "{name}");
            }
            assert!(found(&root, ModelKind::Model, "fix").is_none() && found(&root, ModelKind::Vae, "sd").is_none());
        }
        let path = ModelsPath::new([comfy.path().to_path_buf()]);
        assert!(path.missing(ModelKind::Model, "fix").contains("is a VAE, not a model"));
        assert!(path.missing(ModelKind::Model, "flux").contains("without their text encoders"));
        let web = tree(&["models/Stable-diffusion/a/sd.safetensors", "models/VAE/v.pt", "models/Lora/l.safetensors"]);
        assert_eq!(names(web.path(), ModelKind::Model), ["a/sd.safetensors"]);
        assert_eq!(names(web.path(), ModelKind::Vae), ["v.pt"]);
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
        assert_eq!(names(root, ModelKind::Clip), ["b32", "own"]);
        assert_eq!((names(root, ModelKind::Vae), names(root, ModelKind::Model)), (vec!["fix".into()], vec![]));
        assert_eq!(found(root, ModelKind::Clip, "b32").as_deref(), Some("clip/b32"));
        assert_eq!((found(root, ModelKind::Clip, "clip_l"), found(root, ModelKind::Clip, "fix")), (None, None));
        let path = ModelsPath::new([root.to_path_buf()]);
        assert!(path.missing(ModelKind::Clip, "fix").contains("is a VAE, not a CLIP"));
    }

    #[test]
    fn further_folders_are_for_their_kind() {
        let (root, disk) = (tree(&["own.safetensors"]), tree(&["a.safetensors"]));
        let mut path = ModelsPath::new([root.path().to_path_buf()]);
        path.folders = vec![(ModelKind::Vae, disk.path().to_path_buf())];
        assert_eq!(path.names(ModelKind::Model), ["own.safetensors"]);
        assert_eq!(path.names(ModelKind::Vae), ["a.safetensors", "own.safetensors"]);
        assert_eq!(path.find(ModelKind::Vae, "a"), Some(disk.path().join("a.safetensors")));
        assert_eq!(path.find(ModelKind::Model, "a"), None);
        assert_eq!(
            ["diffusers", "VAE", "gligen", "loras"].map(ModelKind::kept_in).map(|k| k.map(ModelKind::name)),
            [Some("model"), Some("VAE"), Some("GLIGEN"), None]
        );
    }

    #[test]
    fn names_do_not_leave_the_roots() {
        let root = tree(&["in/a.safetensors", "b.safetensors"]);
        let inside = root.path().join("in");
        let absolute = root.path().join("b.safetensors");
        for name in ["../b", "../b.safetensors", "x/../../b", "./../b", absolute.to_str().unwrap(), "/", "in/.."] {
            assert_eq!(found(&inside, ModelKind::Model, name), None, "{name}");
        }
    }

    #[test]
    fn the_first_root_wins_and_duplicates_are_reported() {
        let (one, two) = (tree(&["a.ckpt", "x/b.ckpt", "y/b.ckpt"]), tree(&["a.ckpt", "c.ckpt"]));
        let path = ModelsPath::new([one.path().into(), "nowhere".into(), two.path().into()]);
        assert_eq!(path.find(ModelKind::Model, "a").unwrap(), one.path().join("a.ckpt"));
        assert_eq!(path.find(ModelKind::Model, "c").unwrap(), two.path().join("c.ckpt"));
        assert_eq!(path.names(ModelKind::Model), ["a.ckpt", "c.ckpt", "x/b.ckpt", "y/b.ckpt"]);
        assert_eq!(path.find(ModelKind::Model, "b"), None);
        assert!(path.missing(ModelKind::Model, "b").contains("several are called `b`: `x/b.ckpt`, `y/b.ckpt`"));
        assert!(
            path.missing(ModelKind::Model, "cc").contains("there is `c.ckpt`, "),
            "{}",
            path.missing(ModelKind::Model, "cc")
        );
        let none = ModelsPath::new(["nowhere".into()]);
        assert!(none.missing(ModelKind::Model, "a").contains("no folder of models was found (looked for nowhere)"));
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
        let names = names(root.path(), ModelKind::Model);
        fs::set_permissions(root.path().join("closed"), fs::Permissions::from_mode(0o755)).unwrap();
        // Root can read the folder `closed` despite its permissions.
        let open: Vec<_> = names.iter().filter(|name| !name.starts_with("closed")).collect();
        assert_eq!(open, ["a/x.safetensors", "linked/sd.safetensors", "one.ckpt"]);
        assert!(found(root.path(), ModelKind::Model, "linked/sd").is_some());
    }
}
