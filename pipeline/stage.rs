//! (room stage)
