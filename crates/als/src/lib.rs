//! Implicit-feedback ALS: training, Gram matrix, user fold-in.
