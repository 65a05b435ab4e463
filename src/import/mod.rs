//! How do older files come in?

pub mod pickle;
