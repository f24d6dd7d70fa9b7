//! Where bytes wait.
