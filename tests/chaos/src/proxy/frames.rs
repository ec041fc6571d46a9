//! Frames out of a stream, whole ones; what is no frame stays as it came.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest frame that is read whole, in bytes: a fetch of librdkafka may fill 50 MiB and a batch more.
/// What is larger, or no frame at all, turns its direction of the connection into a plain pipe.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Read at a time, in bytes: a pipeline of small requests in one call.
const READ_BYTES: usize = 16 * 1024;
/// In front of every frame, in bytes.
pub(super) const PREFIX_BYTES: usize = 4;

/// What comes next on a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A frame with its length in front.
    Frame(Bytes),
    /// No frame, or one that is too large to be kept.
    Opaque,
    /// The other side has closed, or broken off.
    End,
}

/// A stream that is read frame by frame.
pub(super) struct Frames<R> {
    /// Where the bytes come from.
    pub(super) reader: R,
    /// Read, and not yet given out.
    pub(super) buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::new() }
    }

    /// May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            let missing = match self.length() {
                Ok(Some(length)) if self.buffer.len() >= length => {
                    return Next::Frame(self.buffer.split_to(length).freeze());
                }
                Ok(length) => length.unwrap_or(PREFIX_BYTES) - self.buffer.len(),
                Err(NoFrame) => return Next::Opaque,
            };
            self.buffer.reserve(missing.max(READ_BYTES));
            match self.reader.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Next::End,
                Ok(_) => {}
            }
        }
    }

    /// Of the next frame with its prefix, as soon as that is there.
    fn length(&self) -> Result<Option<usize>, NoFrame> {
        let Some(mut prefix) = self.buffer.get(..PREFIX_BYTES) else { return Ok(None) };
        match usize::try_from(prefix.get_i32()) {
            Ok(length) if length <= FRAME_BYTES_MAX => Ok(Some(PREFIX_BYTES + length)),
            _ => Err(NoFrame),
        }
    }
}

struct NoFrame;

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(stream: &[u8]) -> Vec<Next> {
        let mut frames = Frames::new(stream);
        let mut seen = Vec::new();
        loop {
            let next = frames.next().await;
            let is_last = !matches!(next, Next::Frame(_));
            seen.push(next);
            if is_last {
                return seen;
            }
        }
    }

    #[tokio::test]
    async fn whole_frames_and_nothing_else() {
        let large = [&100_000_i32.to_be_bytes()[..], &vec![7; 100_000]].concat();
        let stream = [&b"\0\0\0\x02ab\0\0\0\0"[..], &large, b"\0\0\0\x02a"].concat();
        let frame = |bytes: &[u8]| Next::Frame(Bytes::copy_from_slice(bytes));
        let expected = [frame(b"\0\0\0\x02ab"), frame(b"\0\0\0\0"), frame(&large), Next::End];
        assert_eq!(read_all(&stream).await, expected);
        assert_eq!(read_all(b"GET / HTTP/1.1").await, [Next::Opaque]);
        assert_eq!(read_all(b"\xff\xff\xff\xff").await, [Next::Opaque]);
    }
}
