//! The Centrifuge client protocol, held against the server that it comes from.

mod oracle;
