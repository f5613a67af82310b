//! The rolling digest: one number that two peers with the same state share.
//!
//! Each replicated row contributes the first 16 bytes of SHA-256 over table, key and value; the digest is
//! their sum modulo 2^128. A sum does not care for order and a row can be taken out again, so that one
//! changed row costs two hashes whatever the size of the state. It finds divergence and damage; it is no
//! defence against somebody who may write to the state.

use super::machine::DIGEST_KEY;
use crate::error::Result;
use crate::store::{StateStore, Table};
use sha2::{Digest as _, Sha256};

/// Rows per read transaction of [`compute`].
const PAGE: usize = 1_000;

/// What one row contributes.
pub(crate) fn row(table: Table, key: &[u8], value: &[u8]) -> u128 {
    let tag: u8 = match table {
        Table::Pins => 1,
        Table::Members => 2,
        Table::Meta => 3,
        Table::Local => 4,
    };
    let mut hash = Sha256::new();
    hash.update([tag]);
    // Lengths first, so that no two rows are the same bytes.
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(value);
    let hash = hash.finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(first)
}

/// Adds up rows, from wherever they are read, and keeps the digest that is among them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    /// What the rows so far add up to.
    pub(crate) digest: u128,
    /// What was written as their digest, once its row has come by.
    pub(crate) stored: Option<u128>,
}

impl Sum {
    /// Takes a replicated row.
    pub(crate) fn add(&mut self, table: Table, key: &[u8], value: &[u8]) {
        // The digest is a row too, and cannot contain itself.
        if table == Table::Meta && key == DIGEST_KEY {
            self.stored = <[u8; 16]>::try_from(value).ok().map(u128::from_be_bytes);
        } else {
            self.digest = self.digest.wrapping_add(row(table, key, value));
        }
    }
}

/// The digest of all replicated rows, read anew.
///
/// # Errors
/// When the disk fails.
pub fn compute(store: &dyn StateStore) -> Result<u128> {
    let mut sum = Sum::default();
    for table in Table::REPLICATED {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = store.scan(table, after.as_deref(), PAGE)?;
            for (key, value) in &rows {
                sum.add(table, key, value);
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
    }
    Ok(sum.digest)
}
