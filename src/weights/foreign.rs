//! Files that are not what their name says, recognised by their first bytes.

/// Describes a file that is neither weights nor a configuration, and says what to do.
pub fn recognised(file: &[u8]) -> Option<&'static str> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file).trim_ascii_start();
    let begins = |with: &[u8]| file.get(..with.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(with));
    if begins(b"version https://git-lfs") {
        Some("a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`, or download it")
    } else if begins(b"<!DOCTYPE") || begins(b"<html") {
        Some(
            "a web page, not the file itself: the download went wrong (a licence to be accepted, perhaps); fetch it again",
        )
    } else {
        None
    }
}
