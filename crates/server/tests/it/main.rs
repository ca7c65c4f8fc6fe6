//! A server in this process, asked over a real socket.

mod answers;
mod dark;
mod experiments;
mod exposures;
mod fixture;
mod hostile;
mod lifecycle;
mod models;
mod ofrep;
mod refusals;
mod taste;
