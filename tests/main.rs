//! Everything that crosses modules, in one binary with a module a subject.
//!
//! `scripts/test` starts what these tests need: a PostgreSQL with pgvector and a Python with
//! numpy. A test that misses its server fails and says so; none is skipped.

#![expect(unreachable_pub, reason = "a test binary has no users")]

mod fold;
mod recording;
mod schema;
mod support;
mod tidy;
