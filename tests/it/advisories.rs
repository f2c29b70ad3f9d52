//! Advisories of comparable software, each test named by its id (SECURITY §2). These are the rows
//! that apply to a single node.

mod access;
mod wire;
