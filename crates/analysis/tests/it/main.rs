//! The methods against reference numbers, trusted properties and real data.

mod support;

mod always_valid;
mod decision;
mod estimators;
mod sequential;
mod special;
mod srm;
