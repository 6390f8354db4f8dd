//! cuDNN.
