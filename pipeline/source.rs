//! (room source)
