//! Is the replica what the files say?

use std::path::PathBuf;

use postgres::Client;

use super::expected::{self, Extent};
use super::found;
use crate::Result;

/// What is wrong with a replica of these stores when everything was sent; nothing, if it holds
/// exactly their lines.
///
/// # Errors
/// Files or database cannot be read.
pub fn exact(stores: &[PathBuf], client: &mut Client) -> Result<Vec<String>> {
    let replica = found::content(client)?;
    Ok(expected::content(stores, Extent::Everything)?.differences(&replica))
}

/// What is wrong with a replica at any moment; nothing, if it holds exactly the lines before its
/// cursors.
///
/// # Errors
/// Files or database cannot be read.
pub fn prefix(stores: &[PathBuf], client: &mut Client) -> Result<Vec<String>> {
    let replica = found::content(client)?;
    let extent = Extent::Before(&replica.cursors);
    Ok(expected::content(stores, extent)?.differences(&replica))
}
