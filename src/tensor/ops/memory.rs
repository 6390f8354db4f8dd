//! What becomes of the memory that networks free.

/// Lets the C library keep freed memory of moderate size for the next operation.
///
/// Networks allocate and free the same few sizes over and over. glibc by default returns them to the system, which then
/// hands them out again page by page, each zeroed: for a convolution of a large picture that takes as long as the
/// convolution. To be called once, by the command, before the first network runs; it concerns the whole process, which
/// is why no library function does it by itself. Elsewhere than under glibc it does nothing.
pub fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both only set numbers of the allocator. Blocks below 32 MiB come from its heaps, which keep up to 256 MiB.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
    }
}
