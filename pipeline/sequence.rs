//! (room sequence)
