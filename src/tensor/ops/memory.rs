//! Reuse of freed memory.

/// Lets the C library keep freed memory of moderate size for the next operation.
///
/// Networks allocate and free the same few sizes over and over. By default glibc returns them to the system, which then
/// provides them again page by page, each zeroed. For a convolution of a large image that takes as long as the
/// convolution. A program calls this function once, before its first network runs. It changes the whole process, so no
/// library function calls it. Without glibc it does nothing.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both only set numbers of the allocator. Blocks below 32 MiB come from its heaps, which keep up to 256 MiB.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
    }
}
