//! Advisories about comparable software. Each test is named after the id of its advisory (SECURITY
//! §2). The advisories in these modules apply to a single node.

mod access;
mod wire;
