//! Settings from the environment. All names start with `CUDA_DEVICE_`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A planned failure of the device, as `CUDA_DEVICE_FAIL` names it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Failure {
    /// From the launch of this number on, every call returns `CUDA_ERROR_ILLEGAL_ADDRESS`.
    Lost(u64),
    /// The allocation of this number returns `CUDA_ERROR_OUT_OF_MEMORY`.
    Memory(u64),
    /// From the convolution of this number on, cuDNN does not find its library of convolutions.
    Library(u64),
    /// From the question of this number on, cuDNN supports no convolution with channels last.
    Refusal(u64),
}

/// All settings.
#[derive(Debug)]
pub struct Settings {
    /// `MODE=null`: nothing runs, and only counts are kept. The default, `run`, runs everything.
    pub null: bool,
    /// `COUNTS`: the file that receives the counts.
    pub counts: Option<PathBuf>,
    /// `MEMORY`: the size of the device's memory in bytes, for example `2GiB`.
    pub memory: u64,
    /// `CACHE`: the folder of the translated kernels.
    pub cache: Option<PathBuf>,
    /// `THREADS`: how many threads run blocks and matrix products.
    pub threads: usize,
    /// `FAIL`: a planned failure.
    pub fail: Option<Failure>,
    /// `VERSION`: the version of the driver.
    pub version: i32,
    /// `DEVICES`: how many devices there are.
    pub devices: i32,
    /// `CAPABILITY`: the compute capability, 10 × major + minor.
    pub capability: i32,
}

/// Returns the settings. They are read once.
pub fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        read(|name| std::env::var(format!("CUDA_DEVICE_{name}")).ok()).unwrap_or_else(|error| {
            eprintln!("software CUDA device: {error}");
            std::process::exit(2)
        })
    })
}

/// Returns whether the device only counts, and runs nothing.
pub fn null() -> bool {
    settings().null
}

fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let invalid = |name: &str, text: &str, form: &str| format!("`CUDA_DEVICE_{name}` must be {form}, but is `{text}`");
    let number =
        |name: &str, default: i32, allowed: RangeInclusive<i32>| match get(name) {
            None => Ok(default),
            Some(text) => text.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
                invalid(name, &text, &format!("a number from {} to {}", allowed.start(), allowed.end()))
            }),
        };
    // Each launch starts its threads anew, so that many more threads than cores take most of the time.
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(1 << 10) as i32);
    Ok(Settings {
        null: match get("MODE").as_deref() {
            None | Some("run") => false,
            Some("null") => true,
            Some(text) => return Err(invalid("MODE", text, "`run` or `null`")),
        },
        counts: get("COUNTS").map(PathBuf::from),
        memory: match get("MEMORY") {
            None => 80 << 30,
            Some(text) => bytes(&text).ok_or_else(|| invalid("MEMORY", &text, "a size such as `2GiB`"))?,
        },
        // Absolute, because the program may change its folder, and a library without a folder is looked up elsewhere.
        cache: get("CACHE")
            .filter(|text| !text.is_empty())
            .map(|text| std::path::absolute(&text).unwrap_or_else(|_| text.into())),
        threads: number("THREADS", cores, 1..=cores.max(64))? as usize,
        fail: match get("FAIL") {
            None => None,
            Some(text) => {
                let expected = "`lost:N`, `memory:N`, `library:N` or `refusal:N`";
                Some(failure(&text).ok_or_else(|| invalid("FAIL", &text, expected))?)
            }
        },
        version: number("VERSION", 13000, 0..=1_000_000)?,
        devices: number("DEVICES", 1, 0..=64)?,
        capability: number("CAPABILITY", 90, 10..=1000)?,
    })
}

fn failure(text: &str) -> Option<Failure> {
    let (kind, number) = text.split_once(':')?;
    let number = number.parse().ok().filter(|n| *n > 0)?;
    match kind {
        "lost" => Some(Failure::Lost(number)),
        "memory" => Some(Failure::Memory(number)),
        "library" => Some(Failure::Library(number)),
        "refusal" => Some(Failure::Refusal(number)),
        _ => None,
    }
}

/// Reads a size: bytes, or a number with KiB, MiB or GiB.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &'static str) -> Result<Settings, String> {
        read(move |n| (n == name).then(|| value.to_owned()))
    }

    #[test]
    fn settings_are_read() {
        assert_eq!(with("MEMORY", "2GiB").unwrap().memory, 2 << 30);
        assert_eq!(with("MEMORY", "77").unwrap().memory, 77);
        assert_eq!(with("FAIL", "lost:3").unwrap().fail, Some(Failure::Lost(3)));
        assert!(with("MODE", "null").unwrap().null);
        assert!(!with("MODE", "run").unwrap().null);
    }

    #[test]
    fn invalid_settings_are_named() {
        for (name, value) in [
            ("MEMORY", "2GB"),
            ("FAIL", "lost"),
            ("FAIL", "lost:0"),
            ("MODE", "fast"),
            ("THREADS", "x"),
            ("THREADS", "0"),
            ("THREADS", "100000"),
            ("DEVICES", "4294967297"),
            ("VERSION", "-1"),
            ("CAPABILITY", "9"),
        ] {
            assert!(with(name, value).unwrap_err().contains(name), "{name}={value}");
        }
    }
}
