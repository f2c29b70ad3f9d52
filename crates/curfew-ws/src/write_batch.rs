//! The part of a queue of frames that one write hands to the socket.

use std::cell::RefCell;
use std::io::IoSlice;

use bytes::Bytes;

/// Maximum number of frames in one vectored write. A higher limit gains little, because at 64
/// frames the cost of the call is only a small part of the cost of each frame.
const FRAMES_PER_WRITE: usize = 64;

/// Maximum size, in bytes, of a frame that is copied together with other frames. Copying a frame of
/// this size costs less than the kernel's work for one more slice.
const SMALL_FRAME: usize = 1024;

/// Minimum number of small frames at the front of the queue that are copied together.
const MANY_FRAMES: usize = 4;

/// Maximum number of bytes that one write hands to a socket. A socket accepts about this number of
/// bytes at once. Access is checked before each write, so at most this number of bytes is sent
/// after one check.
pub const MAX_WRITE_BYTES: usize = 64 * 1024;

thread_local! {
    /// The buffer in which frames are copied together. It is empty between two writes, so one
    /// buffer for each worker thread is enough.
    static TOGETHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The data of one write, in the form that is cheapest to write.
#[derive(Debug, Clone, Copy)]
pub enum WriteBatch<'a> {
    /// One frame, or several frames copied together. For a single slice, a plain write is cheaper
    /// than a vectored write.
    Bytes(&'a [u8]),
    /// Several frames.
    Slices(&'a [IoSlice<'a>]),
}

impl WriteBatch<'_> {
    /// Calls `write` with at most [`MAX_WRITE_BYTES`] from the front of `frames`. `frames` must not
    /// be empty, and `write` must not call this function.
    pub fn of<'f, T>(
        frames: impl Iterator<Item = &'f Bytes> + Clone,
        write: impl FnOnce(WriteBatch<'_>) -> T,
    ) -> T {
        let mut ahead = frames.clone();
        if let (Some(only), None) = (ahead.next(), ahead.next()) {
            // The common case: one frame needs no slices and no copy.
            return write(WriteBatch::Bytes(&only[..only.len().min(MAX_WRITE_BYTES)]));
        }
        let small = |frame: &&Bytes| frame.len() <= SMALL_FRAME;
        if frames.clone().take(MANY_FRAMES).filter(small).count() == MANY_FRAMES {
            // The batch has only the small frames at the front. It ends before the first large
            // frame.
            return TOGETHER.with_borrow_mut(|together| {
                together.clear();
                together.reserve_exact(MAX_WRITE_BYTES);
                for frame in frames.take_while(small) {
                    if together.len() + frame.len() > MAX_WRITE_BYTES {
                        break;
                    }
                    together.extend_from_slice(frame);
                }
                write(WriteBatch::Bytes(together))
            });
        }
        let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
        let (mut count, mut room) = (0, MAX_WRITE_BYTES);
        for (slice, frame) in slices.iter_mut().zip(frames) {
            if room == 0 {
                break;
            }
            let part = &frame[..frame.len().min(room)];
            *slice = IoSlice::new(part);
            room -= part.len();
            count += 1;
        }
        write(WriteBatch::Slices(&slices[..count]))
    }
}
