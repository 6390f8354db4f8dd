//! The nodes of lsregen.
