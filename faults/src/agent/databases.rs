//! Databases of one server that are made, copied and dropped while others work.

use super::server::Server;
use crate::Result;

/// Ends every connection to a database.
pub(super) const END: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";

/// Drops a database, whoever uses it.
///
/// # Errors
/// The server refuses.
pub(super) fn drop_database(server: &Server, name: &str) -> Result<()> {
    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    Ok(server.client("postgres")?.batch_execute(&sql)?)
}

/// Copies a database; that ends every connection to it.
///
/// # Errors
/// The server refuses.
pub(super) fn clone_database(server: &Server, from: &str, to: &str) -> Result<()> {
    let mut client = server.client("postgres")?;
    client.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1",
        &[&from],
    )?;
    Ok(client.batch_execute(&format!("CREATE DATABASE {to} TEMPLATE {from}"))?)
}
