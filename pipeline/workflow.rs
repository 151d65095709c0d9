//! (room workflow)
