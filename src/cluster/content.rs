//! Reading content: `GET /ipfs/…`, `pinfold get | cat | ls`.

use super::Cluster;
use crate::error::Result;
use crate::ipfs::DirEntry;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::ops::Range;

impl Cluster {
    /// Content of a file by path `<cid>/a/b`, or of a range of it.
    ///
    /// # Errors
    /// What the IPFS node says: no such link, not a file, nobody has it.
    pub async fn cat(
        &self,
        path: &str,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.inner.ipfs.cat(path, range).await
    }

    /// What a path is, and its entries when it is a folder.
    ///
    /// # Errors
    /// What the IPFS node says.
    pub async fn ls(&self, path: &str) -> Result<(DirEntry, BoxStream<'static, Result<DirEntry>>)> {
        self.inner.ipfs.ls(path).await
    }
}
