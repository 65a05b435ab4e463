//! The store under faults that are made on purpose; short seeded runs of `scripts/faults`.

mod cuts;
mod environment;
mod kills;
mod states;
mod syscalls;
