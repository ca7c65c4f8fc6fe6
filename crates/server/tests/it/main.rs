//! A server in this process, asked over a real socket.

mod answers;
mod fixture;
mod lifecycle;
mod refusals;
