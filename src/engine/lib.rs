//! The engine of lsregen.
