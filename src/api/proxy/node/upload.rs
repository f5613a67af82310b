//! The parts of an uploaded form, one at a time: whole when they are small (a block), as a stream when they are not (an
//! archive).

use super::call::Form;
use crate::api::multipart::{boundary, parts};
use crate::cluster::{AddPart, PartKind};
use crate::error::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{stream, Stream, StreamExt};

/// The files of a form.
pub(super) struct Files {
    parts: BoxStream<'static, Result<AddPart>>,
    /// The head of the next part was read while the one before was.
    begun: bool,
}

impl Files {
    /// Takes a form apart.
    pub(super) fn open(form: Form) -> Result<Files> {
        let boundary = boundary(form.content_type.as_deref())?;
        // Asked again after its end, by whoever looks for another file: fused.
        Ok(Files { parts: parts(form.body, &boundary).fuse().boxed(), begun: false })
    }

    /// Goes to the next file; false at the end of the form.
    pub(super) async fn next(&mut self) -> Result<bool> {
        if std::mem::take(&mut self.begun) {
            return Ok(true);
        }
        loop {
            match self.parts.next().await.transpose()? {
                None => return Ok(false),
                Some(AddPart::Begin { kind: PartKind::File, .. }) => return Ok(true),
                Some(AddPart::Begin { path, .. }) => {
                    return Err(Error::invalid(format!("\"{path}\" is a folder or a link: send files")));
                }
                // What nobody wanted of the file before.
                Some(AddPart::Data(_)) => {}
            }
        }
    }

    /// More of the present file; `None` at its end.
    async fn data(&mut self) -> Result<Option<Bytes>> {
        if self.begun {
            return Ok(None);
        }
        match self.parts.next().await.transpose()? {
            Some(AddPart::Data(data)) => Ok(Some(data)),
            None => Ok(None),
            Some(AddPart::Begin { kind: PartKind::File, .. }) => {
                self.begun = true;
                Ok(None)
            }
            Some(AddPart::Begin { path, .. }) => {
                Err(Error::invalid(format!("\"{path}\" is a folder or a link: send files")))
            }
        }
    }

    /// The present file whole; `None` when it is longer than `limit`.
    pub(super) async fn whole(&mut self, limit: usize) -> Result<Option<Bytes>> {
        let mut all = BytesMut::new();
        while let Some(data) = self.data().await? {
            if all.len() + data.len() > limit {
                return Ok(None);
            }
            all.extend_from_slice(&data);
        }
        Ok(Some(all.freeze()))
    }

    /// The present file as it comes.
    pub(super) fn stream(&mut self) -> impl Stream<Item = Result<Bytes>> + Send + Unpin + '_ {
        stream::unfold(Some(self), |files| async move {
            let files = files?;
            match files.data().await {
                Ok(Some(data)) => Some((Ok(data), Some(files))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}
