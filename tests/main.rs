//! Everything that crosses modules, in one binary with a module a subject.
//!
//! `scripts/test` starts what these tests need: a PostgreSQL with pgvector and a Python with
//! numpy. A test that misses its server fails and says so; none is skipped.

#![cfg(test)]

mod checkpoint_numpy;
mod cli;
mod clock;
mod crash;
mod doctor;
mod durability;
mod end_to_end;
mod faults;
mod fold;
mod format;
mod hostile;
mod import;
mod index;
mod index_schema;
mod migrate;
mod network;
mod packaging;
mod processes;
mod query;
mod recording;
mod replica;
mod schema;
mod service;
mod support;
mod tidy;
mod under_fire;
