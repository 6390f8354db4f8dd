//! Compiles translated kernels, and caches them.
//!
//! The name of a cached file is the hash of the C text, the compiler and its flags. The file ends with a hash of its
//! contents and its name, so that a truncated or foreign file is not used.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::kernel::Kernel;
use crate::mode::settings;
use crate::translate::Translated;

const HASH: usize = 32;

struct Compiler {
    program: String,
    /// Its version and its flags.
    identity: String,
    flags: Vec<&'static str>,
}

fn compiler() -> Result<&'static Compiler, String> {
    static COMPILER: OnceLock<Result<Compiler, String>> = OnceLock::new();
    let find = || {
        let program = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let output = Command::new(&program).arg("--version").output();
        let output = output.map_err(|e| format!("cannot run the C compiler `{program}`: {e}"))?;
        // Sums and products stay apart, as PTX has them: only `fma` is fused.
        let mut flags =
            vec!["-O1", "-std=gnu11", "-fPIC", "-shared", "-w", "-ffp-contract=off", "-fno-strict-aliasing"];
        flags.extend(["-fwrapv", "-fno-math-errno", "-fno-trapping-math", "-Wl,-z,now", "-x", "c"]);
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("f16c") && std::is_x86_feature_detected!("fma") {
            flags.extend(["-mf16c", "-mfma"]);
        }
        let identity = format!("{}{flags:?}", String::from_utf8_lossy(&output.stdout));
        Ok(Compiler { program, identity, flags })
    };
    COMPILER.get_or_init(find).as_ref().map_err(Clone::clone)
}

/// Returns the folder of the cache.
pub fn folder() -> PathBuf {
    if let Some(folder) = &settings().cache {
        return folder.clone();
    }
    let beside = library().and_then(|path| path.parent().map(|folder| folder.join("kernels")));
    beside.unwrap_or_else(|| std::env::temp_dir().join("cuda-device-kernels"))
}

/// Returns the path of this library, or of the program that contains it.
fn library() -> Option<PathBuf> {
    // SAFETY: `dladdr` fills the structure, or says that it did not.
    let name = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(library as *const libc::c_void, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr(info.dli_fname)
    };
    std::fs::canonicalize(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()))).ok()
}

/// Returns the key of a kernel in the cache.
fn key(translated: &Translated) -> Result<String, String> {
    let mut hash = Sha256::new();
    hash.update(&compiler()?.identity);
    hash.update(&translated.c);
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns whether a cached file is whole, and belongs to this key.
fn whole(path: &Path, key: &str) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    let Some(split) = bytes.len().checked_sub(HASH) else { return false };
    let (object, hash) = bytes.split_at(split);
    digest(object, key) == hash
}

fn digest(object: &[u8], key: &str) -> [u8; HASH] {
    let mut hash = Sha256::new();
    hash.update(object);
    hash.update(key);
    hash.finalize().into()
}

/// Compiles a kernel if the cache does not have it. Returns the file, and whether it was compiled.
pub fn compile(translated: &Translated) -> Result<(PathBuf, bool), String> {
    let key = key(translated)?;
    let folder = folder();
    let path = folder.join(format!("{key}.so"));
    if whole(&path, &key) {
        return Ok((path, false));
    }
    let fail = |what: &str, e: std::io::Error| format!("cannot {what} in {}: {e}", folder.display());
    std::fs::create_dir_all(&folder).map_err(|e| fail("create the cache", e))?;
    // Other processes may compile the same kernel. Each has its own files, and the last rename wins.
    static UNIQUE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let unique = UNIQUE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let temporary = |kind: &str| folder.join(format!("{key}.{}.{unique}.{kind}.tmp", std::process::id()));
    let (source, object) = (temporary("c"), temporary("so"));
    std::fs::write(&source, &translated.c).map_err(|e| fail("write", e))?;
    let compiler = compiler()?;
    let output = Command::new(&compiler.program)
        .args(&compiler.flags)
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .arg("-lm")
        .env_remove("LD_LIBRARY_PATH") // it names this device, which the compiler does not need
        .output()
        .map_err(|e| fail("run the C compiler", e))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("the C compiler fails on kernel `{}` ({}):\n{errors}", translated.name, source.display()));
    }
    let mut bytes = std::fs::read(&object).map_err(|e| fail("read", e))?;
    let hash = digest(&bytes, &key);
    bytes.extend_from_slice(&hash);
    std::fs::write(&object, bytes).map_err(|e| fail("write", e))?;
    std::fs::rename(&object, &path).map_err(|e| fail("rename", e))?;
    drop(std::fs::remove_file(&source));
    Ok((path, true))
}

/// Compiles a kernel if need be, and loads it.
pub fn load(translated: &Translated) -> Result<Kernel, String> {
    let (path, _) = compile(translated)?;
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: the object is what the compiler made of the translator's text; it has no initialisers.
    let object = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if object.is_null() {
        return Err(format!("cannot load {}", path.display()));
    }
    Kernel::from_object(translated, object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_file_is_used_only_whole_and_for_its_key() {
        let path = std::env::temp_dir().join(format!("cuda-device-test-{}", std::process::id()));
        let mut bytes = b"object".to_vec();
        bytes.extend(digest(b"object", "key"));
        std::fs::write(&path, &bytes).unwrap();
        assert!(whole(&path, "key"));
        assert!(!whole(&path, "other key"));
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(!whole(&path, "key"));
        std::fs::write(&path, b"short").unwrap();
        assert!(!whole(&path, "key"));
        std::fs::remove_file(&path).unwrap();
    }
}
