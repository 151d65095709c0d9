//! (room task)
