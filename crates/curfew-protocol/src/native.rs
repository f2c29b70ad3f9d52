//! The native protocol, `curfew.v1`.
