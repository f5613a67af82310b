//! Crash images: real LMDB and real files under a recorder, and every state that a power cut may leave, opened again.
//!
//! ```text
//! recorder.c ─ trace ─> disk (what is certain, what is open) ─ images ─> search (real code, contract) ─> report
//! ```
//!
//! [`trace`] runs a workload in a child under the recorder; [`disk`] is the model of what a disk may hold; [`search`]
//! builds the images and hands them to a contract; [`store`], [`node`] and [`files`] are workloads with contracts.

#![allow(dead_code)]

pub mod disk;
pub mod files;
pub mod node;
pub mod search;
pub mod store;
pub mod sweep;
pub mod trace;
