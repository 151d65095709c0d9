//! (room metric)
