//! (room artifact)
