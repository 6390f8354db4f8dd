//! The place of a file that a graph writes: below the output folder, by its text and by the links on the way.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Why a path leaves the folder that it is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// It is absolute, or names a drive.
    Absolute,
    /// It leads to a parent of the folder.
    Above,
    /// It begins with `~`, which a shell would replace by the home folder.
    Home,
}

impl fmt::Display for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Leaves::Absolute => "is an absolute path",
            Leaves::Above => "leads above that folder by `..`",
            Leaves::Home => "begins with `~`, which only a shell replaces by the home folder",
        })
    }
}

/// Returns a relative path without `.` and `..`, as it is compared and written.
///
/// # Errors
/// If it leaves the folder that it is relative to, judged by its text.
pub fn normal(path: &Path) -> Result<PathBuf, Leaves> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Prefix(_) | Component::RootDir => return Err(Leaves::Absolute),
            Component::CurDir => {}
            Component::ParentDir if normal.pop() => {}
            Component::ParentDir => return Err(Leaves::Above),
            Component::Normal(name) if normal.as_os_str().is_empty() && is_home(name) => return Err(Leaves::Home),
            Component::Normal(name) => normal.push(name),
        }
    }
    Ok(normal)
}

fn is_home(name: &OsStr) -> bool {
    name.as_encoded_bytes().first() == Some(&b'~')
}

/// Whether a file at `path` below `folder` would lie elsewhere, because of a link on the way. Folders that are missing count
/// as folders.
///
/// # Errors
/// If the folder cannot be read.
pub fn outside_by_links(folder: &Path, path: &Path) -> io::Result<bool> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let real = match fs::canonicalize(folder) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let parent = path.parent().unwrap_or(Path::new(""));
    for existing in parent.ancestors() {
        match fs::canonicalize(folder.join(existing)) {
            Ok(place) => return Ok(!place.starts_with(&real)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Creates the folder of a file at `path` below `folder`, if it lies there.
///
/// # Errors
/// If a link leads elsewhere, or the folder cannot be created.
pub fn create_folder(folder: &Path, path: &Path) -> io::Result<()> {
    let elsewhere =
        || io::Error::new(io::ErrorKind::PermissionDenied, "a link on the way leads out of the output folder");
    if outside_by_links(folder, path)? {
        return Err(elsewhere());
    }
    let place = folder.join(path);
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    // A link that appeared meanwhile.
    if outside_by_links(folder, path)? { Err(elsewhere()) } else { Ok(()) }
}

/// What two paths have in common if they lead to one file, whether or not it exists: the absolute path without `.`, `..` and
/// links, in small letters where the system does not tell them from capitals.
pub fn identity(path: &Path) -> PathBuf {
    let mut real = PathBuf::new();
    for component in std::path::absolute(path).unwrap_or(path.into()).components() {
        match component {
            Component::CurDir => {}
            // `real` has no links, so that its parent is that of its text.
            Component::ParentDir => drop(real.pop()),
            component => {
                real.push(component);
                real = fs::canonicalize(&real).unwrap_or(real);
            }
        }
    }
    if cfg!(any(windows, target_os = "macos")) { real.to_string_lossy().to_lowercase().into() } else { real }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn paths_to_one_file_are_identical() {
        let all = tempfile::tempdir().unwrap();
        fs::create_dir(all.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", all.path().join("b")).unwrap();
        let of = |path: &str| identity(&all.path().join(path));
        for path in ["b/x.png", "b/./x.png", "b/../a/x.png", "new/../a/x.png", "a/new/../x.png"] {
            assert_eq!(of(path), of("a/x.png"), "{path}");
        }
        assert_ne!(of("a/x.png"), of("x.png"));
        assert_ne!(of("new/x.png"), of("x.png"));
    }

    #[test]
    fn paths_are_normalised_or_leave() {
        for (path, expected) in [
            ("x.png", Ok("x.png")),
            ("./a/./x.png", Ok("a/x.png")),
            ("a/../a/x.png", Ok("a/x.png")),
            ("a/~/x.png", Ok("a/~/x.png")),
            ("a/../../x.png", Err(Leaves::Above)),
            ("../x.png", Err(Leaves::Above)),
            ("/x.png", Err(Leaves::Absolute)),
            ("~/x.png", Err(Leaves::Home)),
            ("./~user/x.png", Err(Leaves::Home)),
            ("a/../~/x.png", Err(Leaves::Home)),
        ] {
            assert_eq!(normal(Path::new(path)), expected.map(PathBuf::from), "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_within_the_folder_only() {
        use std::os::unix::fs::symlink;
        let all = tempfile::tempdir().unwrap();
        let out = all.path().join("out");
        fs::create_dir_all(out.join("inner")).unwrap();
        fs::create_dir(all.path().join("other")).unwrap();
        symlink("inner", out.join("within")).unwrap();
        symlink("../other", out.join("beyond")).unwrap();
        symlink("../nowhere", out.join("dangling")).unwrap();
        let create = |path: &str| create_folder(&out, Path::new(path)).is_ok();
        assert!(create("x.png") && create("new/folder/x.png") && create("within/new/x.png"));
        assert!(!create("beyond/x.png") && !create("beyond/new/x.png") && !create("dangling/x.png"));
        assert!(fs::read_dir(all.path().join("other")).unwrap().next().is_none());
        assert!(!all.path().join("nowhere").exists());
        // The output folder itself may be a link, and need not exist.
        symlink(&out, all.path().join("link")).unwrap();
        assert!(!outside_by_links(&all.path().join("link"), Path::new("x.png")).unwrap());
        assert!(!outside_by_links(&all.path().join("later"), Path::new("x.png")).unwrap());
    }
}
