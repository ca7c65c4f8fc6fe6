//! The methods against reference numbers, trusted properties and real data.

mod support;

mod always_valid;
mod context;
mod decision;
mod did;
mod estimators;
mod off_policy;
mod planning;
mod real;
mod sequential;
mod simulation;
mod special;
mod srm;
