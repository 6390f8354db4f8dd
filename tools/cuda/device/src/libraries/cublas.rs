//! cuBLAS.
