//! The binary as its users run it: arguments in, exit code, documents, tables and files out.

mod bench;
mod client;
mod experiments;
mod input;
mod offline;
mod road;
mod support;
mod usage;
mod verdicts;
