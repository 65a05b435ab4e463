//! Power fails at every system call, in a model of the disk.
