//! What of a queue of frames is handed to a socket at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf as _, Bytes};

/// Frames written by one vectored write. More gain little: at 64 the call is a small part of a
/// frame's cost.
const FRAMES_PER_WRITE: usize = 64;

/// Frames of up to so many bytes are put together before they are written: copying one costs less
/// than a slice of its own costs the kernel.
const SMALL_FRAME: usize = 1024;

/// From so many small frames on.
const MANY_FRAMES: usize = 4;

/// Bytes put together: what a socket takes at once, by and large.
const TOGETHER_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where frames are put together: one for each worker, since none is needed between two writes.
    static TOGETHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is in front of a queue of frames, in the form that is cheapest to write.
#[derive(Debug, Clone, Copy)]
pub enum Front<'a> {
    /// One frame, or several put together: a plain write is cheaper than a vectored one of one
    /// slice.
    Bytes(&'a [u8]),
    /// Several frames.
    Slices(&'a [IoSlice<'a>]),
}

impl Front<'_> {
    /// Calls `write` with the front of `frames`, of which there must be some. `write` must not
    /// call this.
    pub fn of<T>(frames: &VecDeque<Bytes>, write: impl FnOnce(Front<'_>) -> T) -> T {
        if let (Some(only), 1) = (frames.front(), frames.len()) {
            return write(Front::Bytes(only));
        }
        let small = |frame: &&Bytes| frame.len() <= SMALL_FRAME;
        if frames.iter().take(MANY_FRAMES).filter(small).count() == MANY_FRAMES {
            return TOGETHER.with_borrow_mut(|together| {
                together.clear();
                together.reserve_exact(TOGETHER_BYTES);
                for frame in frames.iter().take_while(small) {
                    if together.len() + frame.len() > TOGETHER_BYTES {
                        break;
                    }
                    together.extend_from_slice(frame);
                }
                write(Front::Bytes(together))
            });
        }
        let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE];
        let count = frames.len().min(FRAMES_PER_WRITE);
        for (slice, frame) in slices.iter_mut().zip(frames) {
            *slice = IoSlice::new(frame);
        }
        write(Front::Slices(&slices[..count]))
    }

    /// Takes what was written off the front. `partial` says, before and after, whether the front
    /// frame has been written in part.
    pub fn advance(frames: &mut VecDeque<Bytes>, mut written: usize, partial: &mut bool) {
        while let Some(front) = frames.front_mut() {
            if written < front.len() {
                *partial = *partial || written > 0;
                front.advance(written);
                return;
            }
            written -= front.len();
            frames.pop_front();
            *partial = false;
        }
    }
}
