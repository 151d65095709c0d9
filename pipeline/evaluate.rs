//! (room evaluate)
