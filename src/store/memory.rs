//! Nothing outlives the process.
