//! The agent: follows the files of a store and keeps PostgreSQL an exact replica of them.

pub mod backoff;
pub mod connect;
pub mod database;
pub mod schema;
pub mod sqlstate;
