//! Tests of the bulk import.
