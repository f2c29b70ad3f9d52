//! Advisories of comparable software, each test named by its id (SECURITY §2): the rows that apply to
//! one node.

mod access;
mod wire;
