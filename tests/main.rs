//! Tests that cross modules: the store, the agent and the programs together.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod checkpoint_numpy;
