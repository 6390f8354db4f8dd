//! Writing a file whole or not at all.

use std::path::Path;

use anyhow::Context as _;
use lsregen_engine::{CheckContext, Context, Fault};

use crate::values::SavedFile;

/// Writes an output file by way of a temporary one in the same folder, so that no one ever sees half of it, and says so.
/// Folders are made.
pub(crate) fn write(path: &Path, bytes: &[u8], cx: &Context) -> anyhow::Result<SavedFile> {
    let path = &*cx.output_path(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{}: cannot make this folder; choose another `path`", folder.display()))?;
    let cannot = || format!("{}: cannot be written; choose another `path`", path.display());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lsregen-").suffix(".tmp");
    // As any new file, where a temporary one would be its owner's alone. The umask applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).with_context(cannot)?;
    std::io::Write::write_all(&mut file, bytes).with_context(cannot)?;
    file.persist(path).map_err(|error| error.error).with_context(cannot)?;
    cx.note(format!("wrote {}", path.display()));
    Ok(SavedFile { path: path.into(), digest: blake3::hash(bytes).into() })
}

/// Whether the file is still there as it was written.
pub(crate) fn stands(file: &SavedFile) -> bool {
    std::fs::read(&file.path).is_ok_and(|bytes| *blake3::hash(&bytes).as_bytes() == file.digest)
}

/// Faults of a path to be written, whose name must end in `.{extension}`.
pub(crate) fn faults(path: &Path, extension: &str, cx: &CheckContext) -> Vec<Fault> {
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension)) {
        let named = path.with_extension(extension);
        return vec![
            Fault::new(
                "path",
                format!("`{}` does not end in .{extension}, the format that is written", path.display()),
            )
            .help(format!("write `{}`", named.display())),
        ];
    }
    if cx.output_path(path).is_dir() {
        return vec![Fault::new("path", format!("`{}` is a folder", path.display())).help("give the file's name too")];
    }
    vec![]
}
