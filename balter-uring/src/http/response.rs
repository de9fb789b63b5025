//! An answer, from its head to the last byte of its body.

use std::pin::pin;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};

use super::Error;
use super::codec::parse_headers;
use super::connection::{Answer, Connection, Head, Origin};
use crate::outside::Permission;

/// An answer whose head is in; its body may still be on its way.
///
/// Read the body to its end, with [`bytes`](Self::bytes), [`text`](Self::text) or
/// [`discard`](Self::discard), and the connection is used again. Dropped before that it is closed,
/// unless all of the body happens to be there already.
#[derive(Debug)]
#[must_use = "the body has not been read yet: see `discard`"]
pub struct Response {
    /// `None` once it went back to its origin.
    connection: Option<Box<Connection>>,
    /// The connection's, once it went back.
    raw_head: Vec<u8>,
    origin: Rc<Origin>,
    head: Head,
    max_body: usize,
    /// Its deadline is that of the body too.
    permission: Permission,
}

impl Response {
    pub(super) fn new(
        answer: Answer,
        origin: Rc<Origin>,
        max_body: usize,
        permission: Permission,
    ) -> Self {
        let Answer { connection, head } = answer;
        let connection = Some(connection);
        Self { connection, raw_head: Vec::new(), origin, head, max_body, permission }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The version that the target answered in.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Length of the body in bytes, where the head tells it.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.head.content_length
    }

    /// The headers. They are parsed anew at each call: keep the map if it is needed twice.
    ///
    /// # Errors
    /// Never for an answer whose head was accepted; the type is the parser's.
    pub fn headers(&self) -> Result<HeaderMap, Error> {
        let raw =
            self.connection.as_ref().map_or(&self.raw_head, |connection| &connection.raw_head);
        parse_headers(raw).map_err(Error::response)
    }

    /// The answer itself if its status is below 400.
    ///
    /// # Errors
    /// [`Error::Status`] otherwise. The body is then not read; if it is not there yet, the
    /// connection is closed.
    pub fn error_for_status(self) -> Result<Self, Error> {
        match self.head.status.as_u16() {
            ..400 => Ok(self),
            _ => Err(Error::Status(self.head.status)),
        }
    }

    /// The next piece of the body, or `None` at its end. Pieces are as they arrive.
    ///
    /// # Errors
    /// What came between the head and here.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let mut piece = None;
        let more = self.next(|data| piece = Some(Bytes::copy_from_slice(data))).await?;
        if more {
            return Ok(piece);
        }
        // Now rather than with the drop of this: others may want the connection.
        if let Some(connection) = &mut self.connection {
            self.raw_head = std::mem::take(&mut connection.raw_head);
        }
        self.put_back();
        Ok(None)
    }

    /// The whole body.
    ///
    /// # Errors
    /// What came between the head and the end of the body; [`Error::BodyTooLarge`] beyond the
    /// client's limit.
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        let limit = self.max_body;
        let expected = self.head.content_length.unwrap_or(0);
        // The length is what the target says, so it is not trusted with memory beyond a piece.
        let mut body = BytesMut::with_capacity(expected.min(64 << 10) as usize);
        loop {
            let mut fits = true;
            let take = |data: &[u8]| {
                fits = body.len() + data.len() <= limit;
                if fits {
                    body.extend_from_slice(data);
                }
            };
            if !self.next(take).await? {
                return Ok(body.freeze());
            }
            if !fits {
                return Err(Error::BodyTooLarge { limit });
            }
        }
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes); [`Error::Text`] if it is not UTF-8.
    pub async fn text(self) -> Result<String, Error> {
        let body = self.bytes().await?;
        std::str::from_utf8(&body).map(str::to_owned).map_err(Error::Text)
    }

    /// The whole body, read as JSON.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes); [`Error::Json`] if it is not what was expected.
    #[cfg(feature = "json")]
    pub async fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, Error> {
        let body = self.bytes().await?;
        serde_json::from_slice(&body).map_err(Error::Json)
    }

    /// Reads the body to its end without keeping it; answers its length in bytes. Nothing is
    /// allocated and nothing copied.
    ///
    /// # Errors
    /// What came between the head and the end of the body.
    pub async fn discard(mut self) -> Result<u64, Error> {
        let mut length = 0;
        while self.next(|data| length += data.len() as u64).await? {}
        Ok(length)
    }

    async fn next(&mut self, take: impl FnMut(&[u8])) -> Result<bool, Error> {
        let Some(connection) = &mut self.connection else { return Ok(false) };
        let result = {
            let more = pin!(connection.next_data(take));
            self.permission.within(more).await.unwrap_or(Err(Error::Timeout))
        };
        if result.is_err() {
            // It is in no state to be read on.
            self.connection = None;
        }
        result
    }

    fn put_back(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.origin.put_back(connection);
        }
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        while let Ok(Some(true)) = connection.data_at_hand(&mut |_| {}) {}
        if connection.is_complete() {
            self.put_back();
        }
    }
}
