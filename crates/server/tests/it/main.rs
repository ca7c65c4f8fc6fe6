//! A server in this process, asked over a real socket.

mod answers;
mod dark;
mod fixture;
mod lifecycle;
mod refusals;
mod taste;
