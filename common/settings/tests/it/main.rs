//! The layers, on a program of the tests' own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod layers;
mod readers;
