//! What random sequences leave out.
