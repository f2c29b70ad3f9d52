//! Decodes a peer's bytes into messages and control frames. The decoder never waits, and its memory
//! is bounded.
//!
//! Bytes are read into a buffer of the worker thread, from which the decoder borrows them. A
//! message that lies completely in this buffer is unmasked in place and lent to the caller without
//! a copy. The decoder itself stores only a partial frame, an open fragmented message, and input
//! that the caller saved. An idle decoder stores nothing. The stored memory grows with the received
//! bytes, never with declared lengths.

use std::fmt;
use std::ops::Range;

use crate::frame::{MAX_CONTROL_BYTES, Opcode};
use crate::head::{Head, Parsed, Sender};
use crate::{Event, ProtocolError};

/// Limits of one message. The caller passes the limits to every call of [`Decoder::next`], so that
/// a reload also applies to open connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of a message in bytes, all its fragments together. A message of exactly this
    /// size is allowed.
    pub message_bytes: usize,
    /// Maximum number of fragments of one message.
    pub fragments: usize,
}

impl Default for Limits {
    /// The default limits: 64 KiB in at most 64 fragments.
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            fragments: 64,
        }
    }
}

/// The bytes of one read, with the position up to which they are decoded.
pub struct Input<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// Wraps bytes that were just read. The decoder unmasks these bytes in place.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// An empty input, to decode saved bytes.
    pub fn empty() -> Self {
        Self::new(&mut [])
    }

    /// The bytes that are not decoded yet.
    fn unread(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Takes the next bytes, at most `most` of them.
    fn take(&mut self, most: usize) -> &[u8] {
        let start = self.at;
        self.at += most.min(self.bytes.len() - start);
        &self.bytes[start..self.at]
    }
}

impl fmt::Debug for Input<'_> {
    /// Prints sizes only: contents never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("unread_bytes", &self.unread().len())
            .finish()
    }
}

/// The decoder of one connection. The connection must be closed after any error.
///
/// ```
/// use curfew_ws::{Decoder, Event, Input, Limits, with_read_buffer};
///
/// let limits = Limits::default();
/// let mut decoder = Decoder::new();
/// with_read_buffer(|buffer| {
///     // A masked ping, as if it had been read from a socket.
///     buffer[..6].copy_from_slice(&[0x89, 0x80, 1, 2, 3, 4]);
///     let mut input = Input::new(&mut buffer[..6]);
///     while let Some(event) = decoder.next(&mut input, &limits)? {
///         assert_eq!(event, Event::Ping(b""));
///         // To stop here, call decoder.save(input). To go on, call
///         // decoder.next(&mut Input::empty(), &limits) until it returns None, then read again.
///     }
///     Ok::<(), curfew_ws::ProtocolError>(())
/// })?;
/// # Ok::<(), curfew_ws::ProtocolError>(())
/// ```
pub struct Decoder {
    /// Bytes from before the current input: a partial frame, and input that the caller saved.
    carry: Vec<u8>,
    /// The position in `carry` up to which it is decoded.
    carry_at: usize,
    /// The open fragmented message, boxed because most connections have none.
    fragments: Option<Box<Fragments>>,
    sender: Sender,
    /// True after an error or a close.
    ended: bool,
}

/// The fragments of a message that is being assembled. The finished message is lent to the caller,
/// and the next call of the decoder drops the message.
struct Fragments {
    opcode: Opcode,
    data: Vec<u8>,
    /// The number of fragments so far.
    count: usize,
    /// True once the last fragment has arrived.
    finished: bool,
}

/// A whole frame found in the received bytes.
struct Cut {
    head: Head,
    mask: Option<[u8; 4]>,
    place: Place,
    payload: Range<usize>,
}

/// The buffer that holds a frame.
#[derive(Clone, Copy)]
enum Place {
    Carry,
    Input,
}

/// An event that is ready to be checked and lent to the caller.
struct Ready {
    opcode: Opcode,
    /// The buffer and range of the frame; `None` for the finished fragments.
    frame: Option<(Place, Range<usize>)>,
}

/// The result of a search for a whole frame at the start of some bytes.
enum FrameStart {
    Whole {
        head: Head,
        mask: Option<[u8; 4]>,
        /// Length of head and payload.
        bytes: usize,
    },
    /// The frame is incomplete: at least `missing` more bytes are needed.
    Short { missing: usize },
}

impl Decoder {
    /// Creates a decoder for the frames of a client.
    pub fn new() -> Self {
        Self::of(Sender::Client)
    }

    /// Creates a decoder for the frames of a server.
    pub(crate) fn of_server() -> Self {
        Self::of(Sender::Server)
    }

    fn of(sender: Sender) -> Self {
        Self {
            carry: Vec::new(),
            carry_at: 0,
            fragments: None,
            sender,
            ended: false,
        }
    }

    /// Adds the bytes that came with the upgrade. Call it before the first read.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.keep(bytes);
    }

    /// Returns the next message or control frame. Stored bytes are decoded first, then `input`.
    ///
    /// `None` means that all of `input` is decoded, and that the caller must read more. After an
    /// error or a close, all further bytes are discarded.
    pub fn next<'b>(
        &'b mut self,
        input: &'b mut Input<'_>,
        limits: &Limits,
    ) -> Result<Option<Event<'b>>, ProtocolError> {
        self.release();
        if self.ended {
            self.forget();
            // Bytes that follow an error or a close are ignored.
            return Ok(None);
        }
        match self.advance(input, limits) {
            Ok(Some(ready)) => self.lend(ready, input).map(Some),
            Ok(None) => Ok(None),
            Err(error) => {
                self.ended = true;
                self.forget();
                Err(error)
            }
        }
    }

    /// Stores the rest of `input`, for a caller that stops before [`Decoder::next`] has returned
    /// `None`. The caller must decode all saved bytes before it reads from the socket again.
    /// Otherwise saved bytes pile up.
    pub fn save(&mut self, input: Input<'_>) {
        self.release();
        if !self.ended {
            self.keep(input.unread());
        }
    }

    /// True if a frame or a fragmented message is incomplete. Call it after [`Decoder::next`] has
    /// returned `None`.
    ///
    /// The caller limits the wait for the missing part by a deadline. The deadline starts when the
    /// result becomes true, and restarts with every [`Event::Message`]. A control frame does not
    /// restart the deadline, because a peer may send any number of control frames within a message.
    pub fn mid_message(&self) -> bool {
        let partial_frame = self.carry_at < self.carry.len();
        let open = self.fragments.as_ref().is_some_and(|open| !open.finished);
        !self.ended && (partial_frame || open)
    }

    /// Decodes until an event is ready to be lent.
    fn advance(
        &mut self,
        input: &mut Input<'_>,
        limits: &Limits,
    ) -> Result<Option<Ready>, ProtocolError> {
        while let Some(cut) = self.cut(input, limits)? {
            let payload = match cut.place {
                Place::Carry => &mut self.carry[cut.payload.clone()],
                Place::Input => &mut input.bytes[cut.payload.clone()],
            };
            if let Some(mask) = cut.mask {
                fastwebsockets::unmask(payload, mask);
            }
            match (cut.head.opcode, &mut self.fragments) {
                (Some(opcode), _) if cut.head.fin => {
                    // The frame is an unfragmented message, or a control frame, which may come
                    // between two fragments.
                    return Ok(Some(Ready {
                        opcode,
                        frame: Some((cut.place, cut.payload)),
                    }));
                }
                (Some(opcode), fragments) => {
                    *fragments = Some(Box::new(Fragments {
                        opcode,
                        data: payload.to_vec(),
                        count: 1,
                        finished: false,
                    }));
                }
                (None, Some(open)) => {
                    open.data.extend_from_slice(payload);
                    open.count += 1;
                    open.finished = cut.head.fin;
                    if open.finished {
                        return Ok(Some(Ready {
                            opcode: open.opcode,
                            frame: None,
                        }));
                    }
                }
                (None, None) => return Err(ProtocolError::ContinuationWithoutStart),
            }
        }
        Ok(None)
    }

    /// Cuts the next whole frame from the stored bytes and the input. A partial frame is stored.
    fn cut(
        &mut self,
        input: &mut Input<'_>,
        limits: &Limits,
    ) -> Result<Option<Cut>, ProtocolError> {
        self.release_carry();
        if self.carry.is_empty() {
            // No bytes are stored, so the frame can be decoded in the read buffer.
            return Ok(match self.find(input.unread(), limits)? {
                FrameStart::Whole { head, mask, bytes } => {
                    let start = input.at;
                    input.at += bytes;
                    Some(Cut {
                        head,
                        mask,
                        place: Place::Input,
                        payload: start + head.bytes..input.at,
                    })
                }
                FrameStart::Short { .. } => {
                    self.keep(input.take(usize::MAX));
                    None
                }
            });
        }
        loop {
            match self.find(&self.carry[self.carry_at..], limits)? {
                FrameStart::Whole { head, mask, bytes } => {
                    let start = self.carry_at;
                    self.carry_at += bytes;
                    return Ok(Some(Cut {
                        head,
                        mask,
                        place: Place::Carry,
                        payload: start + head.bytes..self.carry_at,
                    }));
                }
                FrameStart::Short { missing } => {
                    // Only the bytes of this frame are moved. Later frames are decoded in the read
                    // buffer.
                    let more = input.take(missing);
                    self.keep(more);
                    if more.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Looks for a whole frame at the start of `bytes`.
    fn find(&self, bytes: &[u8], limits: &Limits) -> Result<FrameStart, ProtocolError> {
        let (head, wanted) = match Head::parse(bytes, self.sender)? {
            Parsed::Head(head) => (Some(head), head.bytes + self.admit(&head, limits)?),
            Parsed::Short { wanted } => (None, wanted),
        };
        Ok(match head {
            Some(head) if wanted <= bytes.len() => FrameStart::Whole {
                head,
                mask: head.mask(bytes),
                bytes: wanted,
            },
            _ => FrameStart::Short {
                missing: wanted - bytes.len(),
            },
        })
    }

    /// Checks that a frame with this head may follow the frames before it. Returns the length of
    /// the frame's payload.
    fn admit(&self, head: &Head, limits: &Limits) -> Result<usize, ProtocolError> {
        let room = if head.is_control() {
            MAX_CONTROL_BYTES
        } else {
            self.room(head, limits)?
        };
        usize::try_from(head.payload_bytes)
            .ok()
            .filter(|bytes| *bytes <= room)
            .ok_or(ProtocolError::MessageTooLarge)
    }

    /// Returns the maximum length of the payload of a data frame with this head. Fails if the frame
    /// may not follow the frames before it.
    fn room(&self, head: &Head, limits: &Limits) -> Result<usize, ProtocolError> {
        let (received, count) = match (&self.fragments, head.opcode) {
            (None, Some(_)) if head.fin => return Ok(limits.message_bytes),
            (None, Some(_)) => (0, 0),
            (Some(open), None) => (open.data.len(), open.count),
            (None, None) => return Err(ProtocolError::ContinuationWithoutStart),
            (Some(_), Some(_)) => return Err(ProtocolError::InterruptedMessage),
        };
        if count >= limits.fragments {
            // The number of fragments is limited separately, because many empty fragments would not
            // exceed the limit of bytes.
            return Err(ProtocolError::TooManyFragments);
        }
        Ok(limits.message_bytes.saturating_sub(received))
    }

    /// Checks an event and lends it to the caller.
    fn lend<'b>(
        &'b mut self,
        ready: Ready,
        input: &'b Input<'_>,
    ) -> Result<Event<'b>, ProtocolError> {
        let payload = match ready.frame {
            Some((Place::Carry, range)) => &self.carry[range],
            Some((Place::Input, range)) => &input.bytes[range],
            None => self
                .fragments
                .as_ref()
                .map_or(&[][..], |message| &message.data),
        };
        let event = Event::read(ready.opcode, payload);
        self.ended = matches!(event, Err(_) | Ok(Event::Close { .. }));
        event
    }

    /// Drops the memory that was lent with the last event.
    fn release(&mut self) {
        if self.fragments.as_ref().is_some_and(|open| open.finished) {
            self.fragments = None;
        }
        self.release_carry();
    }

    /// Frees the stored bytes, once all of them are decoded.
    fn release_carry(&mut self) {
        if self.carry_at == self.carry.len() {
            self.carry = Vec::new();
            self.carry_at = 0;
        }
    }

    /// Frees all stored bytes and fragments.
    fn forget(&mut self) {
        self.carry = Vec::new();
        self.carry_at = 0;
        self.fragments = None;
    }

    /// Appends to the stored bytes. Frees those stored bytes that are already decoded.
    fn keep(&mut self, bytes: &[u8]) {
        if self.carry_at > 0 {
            self.carry = self.carry[self.carry_at..].to_vec();
            self.carry_at = 0;
        }
        self.carry.extend_from_slice(bytes);
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("kept_bytes", &(self.carry.len() - self.carry_at))
            .field("fragments", &self.fragments.as_ref().map(|open| open.count))
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
