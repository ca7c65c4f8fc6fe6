//! Black-box tests: the real binary, real processes, real sockets, files on a real disk.

mod architecture;
mod contract;
mod crash;
mod durability;
mod exclusion;
mod freshen;
mod holdout;
mod logged;
mod replicas;
mod support;
mod swap;
mod trouble;
mod violations;
