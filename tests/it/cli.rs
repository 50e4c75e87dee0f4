//! The command line: wiring, exit codes and bad input.
