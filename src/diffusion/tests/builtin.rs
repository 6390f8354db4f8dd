//! The embedded models are complete: the table has every file that a blueprint of their folder reads.

use std::path::Path;

use lsregen_diffusion::models::Blueprint;
use lsregen_diffusion::models::clip::ClipBlueprint;
use lsregen_weights::{BUILTIN, BUILTIN_CLIP, ModelFiles};

/// The tables have the same files as the folders.
#[test]
fn tables_are_complete() {
    for files in &BUILTIN {
        let ModelFiles::Embedded { name, files: table } = files else { panic!("not embedded") };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name);
        let folder = Blueprint::open(&ModelFiles::Folder(root.clone()).into()).unwrap();
        let sorted = |mut paths: Vec<String>| {
            paths.sort();
            paths
        };
        let inside = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_string();
        let needed = sorted(folder.files().map(inside).collect());
        assert_eq!(needed, sorted(table.iter().map(|(path, _)| path.to_string()).collect()), "{name}");
        let embedded = Blueprint::open(&files.clone().into()).unwrap();
        assert_eq!(embedded.unet.1.elements(), folder.unet.1.elements());
    }
}

#[test]
fn table_of_clip_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/shapes/clip");
    let needed = ClipBlueprint::open(&ModelFiles::Folder(root.clone())).unwrap().files();
    let ModelFiles::Embedded { files: table, .. } = &BUILTIN_CLIP else { panic!("not embedded") };
    let table = table.iter().map(|(path, _)| root.join(path)).collect();
    assert_eq!(needed, table);
    ClipBlueprint::open(&BUILTIN_CLIP).unwrap();
}
