//! cuBLASLt.
