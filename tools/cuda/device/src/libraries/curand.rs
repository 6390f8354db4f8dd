//! cuRAND.
