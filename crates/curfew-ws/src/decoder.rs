//! Cuts a peer's bytes into messages and control frames, without ever waiting and within bounds.
//!
//! Bytes are read into a buffer of the worker thread and lent to the decoder. A message that lies
//! whole in that buffer is unmasked in place and lent on: nothing is copied. What the decoder keeps
//! of its own is a partial frame, the open fragmented message, and whatever the caller could not
//! handle yet; an idle one keeps nothing. It grows by bytes received, never by bytes declared.

use std::fmt;
use std::ops::Range;

use crate::frame::Opcode;
use crate::head::{Head, MAX_CONTROL_BYTES, Parsed, Sender};
use crate::{Event, ProtocolError};

/// Bounds of one message. Passed with every call, so they can change under an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest message in bytes, inclusive: the sum of its fragments.
    pub message_bytes: usize,
    /// Most fragments of one message, inclusive.
    pub fragments: usize,
}

impl Default for Limits {
    /// 64 KiB in at most 64 fragments.
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            fragments: 64,
        }
    }
}

/// Bytes that were just read, and how far they are decoded.
pub struct Input<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// All of `bytes` are new. They are unmasked where they lie.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Nothing new, to decode what was saved.
    pub fn empty() -> Self {
        Self::new(&mut [])
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// The next bytes, at most `most` of them.
    fn take(&mut self, most: usize) -> &[u8] {
        let start = self.at;
        self.at += most.min(self.bytes.len() - start);
        &self.bytes[start..self.at]
    }
}

impl fmt::Debug for Input<'_> {
    /// Contents never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("unread_bytes", &self.unread().len())
            .finish()
    }
}

/// The decoder of one connection. Any error ends it: the connection is to be closed.
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
///         // To stop here and go on later: decoder.save(input), and then
///         // decoder.next(&mut Input::empty(), &limits) until it is done, before the next read.
///     }
///     Ok::<(), curfew_ws::ProtocolError>(())
/// })?;
/// # Ok::<(), curfew_ws::ProtocolError>(())
/// ```
pub struct Decoder {
    /// Received before the input: a partial frame, or more if the caller saved more.
    carry: Vec<u8>,
    /// How much of `carry` is decoded.
    carry_at: usize,
    fragments: Option<Box<Fragments>>,
    sender: Sender,
    ended: bool,
}

/// A message in fragments. Once finished it is lent out and dropped at the next call.
struct Fragments {
    opcode: Opcode,
    data: Vec<u8>,
    count: usize,
    finished: bool,
}

/// A whole frame, taken off the bytes received.
struct Cut {
    head: Head,
    mask: Option<[u8; 4]>,
    place: Place,
    payload: Range<usize>,
}

/// Where a frame lies.
#[derive(Clone, Copy)]
enum Place {
    Carry,
    Input,
}

/// What is ready to be checked and lent.
struct Ready {
    opcode: Opcode,
    /// `None`: the finished fragments.
    frame: Option<(Place, Range<usize>)>,
}

/// A look at the start of some bytes.
enum Found {
    Whole {
        head: Head,
        mask: Option<[u8; 4]>,
        /// Of head and payload.
        bytes: usize,
    },
    /// Nothing more can be told before as many bytes more are there.
    Short { missing: usize },
}

impl Decoder {
    /// Decodes what a client sends.
    pub fn new() -> Self {
        Self::of(Sender::Client)
    }

    /// Decodes what a server sends.
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

    /// Takes the bytes that came with the upgrade, before the first read.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.keep(bytes);
    }

    /// The next message or control frame. What was kept comes first, then `input`.
    ///
    /// `None`: all of `input` is used up and more must be read. After an error or a close, all
    /// further bytes are thrown away.
    pub fn next<'b>(
        &'b mut self,
        input: &'b mut Input<'_>,
        limits: &Limits,
    ) -> Result<Option<Event<'b>>, ProtocolError> {
        self.release();
        if self.ended {
            self.forget();
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

    /// Keeps what `input` still holds, when the caller must stop before [`Decoder::next`] has
    /// returned `None`. Read no more from the socket until all of it is decoded: what is saved
    /// twice is held twice.
    pub fn save(&mut self, input: Input<'_>) {
        self.release();
        if !self.ended {
            self.keep(input.unread());
        }
    }

    /// Whether the peer owes the rest of a frame or of a fragmented message, to be asked when
    /// [`Decoder::next`] has returned `None`. The deadline for that rest starts when this becomes
    /// true and starts again with every [`Event::Message`], not with control frames, which may
    /// interleave for ever.
    pub fn mid_message(&self) -> bool {
        let partial_frame = self.carry_at < self.carry.len();
        let open = self.fragments.as_ref().is_some_and(|open| !open.finished);
        !self.ended && (partial_frame || open)
    }

    /// Decodes until something is ready to be lent.
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

    /// Takes the next whole frame off what is kept and the input; a partial one is kept.
    fn cut(
        &mut self,
        input: &mut Input<'_>,
        limits: &Limits,
    ) -> Result<Option<Cut>, ProtocolError> {
        self.release_carry();
        if self.carry.is_empty() {
            return Ok(match self.find(input.unread(), limits)? {
                Found::Whole { head, mask, bytes } => {
                    let start = input.at;
                    input.at += bytes;
                    Some(Cut {
                        head,
                        mask,
                        place: Place::Input,
                        payload: start + head.bytes..input.at,
                    })
                }
                Found::Short { .. } => {
                    self.keep(input.take(usize::MAX));
                    None
                }
            });
        }
        loop {
            match self.find(&self.carry[self.carry_at..], limits)? {
                Found::Whole { head, mask, bytes } => {
                    let start = self.carry_at;
                    self.carry_at += bytes;
                    return Ok(Some(Cut {
                        head,
                        mask,
                        place: Place::Carry,
                        payload: start + head.bytes..self.carry_at,
                    }));
                }
                Found::Short { missing } => {
                    // Only this frame's bytes move; those behind it are decoded where they lie.
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
    fn find(&self, bytes: &[u8], limits: &Limits) -> Result<Found, ProtocolError> {
        let (head, wanted) = match Head::parse(bytes, self.sender)? {
            Parsed::Head(head) => (Some(head), head.bytes + self.admit(&head, limits)?),
            Parsed::Short { wanted } => (None, wanted),
        };
        Ok(match head {
            Some(head) if wanted <= bytes.len() => Found::Whole {
                head,
                mask: head.mask(bytes),
                bytes: wanted,
            },
            _ => Found::Short {
                missing: wanted - bytes.len(),
            },
        })
    }

    /// Whether the frame may come now and be as large as it declares; its payload's bytes if so.
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

    /// How large the payload of a data frame may be, if one may come now at all.
    fn room(&self, head: &Head, limits: &Limits) -> Result<usize, ProtocolError> {
        let (received, count) = match (&self.fragments, head.opcode) {
            (None, Some(_)) if head.fin => return Ok(limits.message_bytes),
            (None, Some(_)) => (0, 0),
            (Some(open), None) => (open.data.len(), open.count),
            (None, None) => return Err(ProtocolError::ContinuationWithoutStart),
            (Some(_), Some(_)) => return Err(ProtocolError::InterruptedMessage),
        };
        if count >= limits.fragments {
            return Err(ProtocolError::TooManyFragments);
        }
        Ok(limits.message_bytes.saturating_sub(received))
    }

    /// Checks and lends what is ready.
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

    /// Drops what the last event borrowed, as far as it was ours.
    fn release(&mut self) {
        if self.fragments.as_ref().is_some_and(|open| open.finished) {
            self.fragments = None;
        }
        self.release_carry();
    }

    fn release_carry(&mut self) {
        if self.carry_at == self.carry.len() {
            self.carry = Vec::new();
            self.carry_at = 0;
        }
    }

    fn forget(&mut self) {
        self.carry = Vec::new();
        self.carry_at = 0;
        self.fragments = None;
    }

    /// Appends to what is kept, and gives back the memory of what is decoded already.
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
