//! Descriptors of NVIDIA's libraries.

/// A descriptor of a library whose errors are `E`. It is destroyed when it is dropped.
pub(super) struct Descriptor<T: Copy, E> {
    raw: T,
    destroy: unsafe fn(T) -> Result<(), E>,
}

impl<T: Copy, E> Descriptor<T, E> {
    /// A descriptor that the library has just created, with the library's function that destroys it.
    pub fn new(created: Result<T, E>, destroy: unsafe fn(T) -> Result<(), E>) -> Result<Self, E> {
        Ok(Self { raw: created?, destroy })
    }

    /// The library's pointer. Valid as long as the descriptor.
    pub fn raw(&self) -> T {
        self.raw
    }
}

impl<T: Copy, E> Drop for Descriptor<T, E> {
    fn drop(&mut self) {
        // SAFETY: the library created it, and nothing else destroys it. An error has no use here.
        drop(unsafe { (self.destroy)(self.raw) });
    }
}
