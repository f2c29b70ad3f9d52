//! Encoding of messages in Protobuf.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use curfew_model::{DataForm, Present, SessionId};

use super::{Field, Fields, Published, Root, put_present};

/// Length of a session's id as text, in bytes.
const ID_BYTES: usize = 36;

/// Maximum length of an encoded number, in bytes.
const MAX_VARINT: usize = 10;

const VARINT: u32 = 0;
const BYTES: u32 = 2;

/// A message that is being written.
pub(crate) struct Protobuf<'o> {
    out: &'o mut BytesMut,
}

impl<'o> Protobuf<'o> {
    pub(crate) fn new(out: &'o mut BytesMut) -> Self {
        Self { out }
    }

    fn key(&mut self, tag: u32, kind: u32) {
        self.varint((tag << 3 | kind).into());
    }

    fn varint(&mut self, number: u64) {
        let (digits, length) = varint(number);
        self.out.put_slice(&digits[..length]);
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.length(tag, bytes.len());
        self.out.put_slice(bytes);
    }

    /// Writes the tag and the length of a field.
    fn length(&mut self, tag: u32, length: usize) {
        self.key(tag, BYTES);
        self.varint(length as u64);
    }

    /// Writes content that is preceded by its length. The length is known only after the content is
    /// written, so the content is then moved to make room for the length.
    fn delimited(&mut self, write: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        write(self);
        let end = self.out.len();
        let (digits, length) = varint((end - start) as u64);
        self.out.put_slice(&digits[..length]);
        self.out.copy_within(start..end, start + length);
        self.out[start..start + length].copy_from_slice(&digits[..length]);
    }
}

impl Root for Protobuf<'_> {
    type Fields<'f>
        = Self
    where
        Self: 'f;

    fn write(mut self, write: impl FnOnce(&mut Self)) {
        self.delimited(write);
    }

    fn push(mut self, channel: &str, publication: &Published<'_>) {
        let publication_length = publication_length(publication);
        let push_length = field_length(2, channel.len()) + field_length(4, publication_length);
        let reply_length = field_length(4, push_length);
        self.out.reserve(MAX_VARINT + reply_length);
        self.varint(reply_length as u64);
        self.length(4, push_length);
        self.bytes(2, channel.as_bytes());
        self.length(4, publication_length);
        self.publication(publication);
    }
}

impl Fields for Protobuf<'_> {
    const IS_TEXT: bool = false;

    fn text(&mut self, field: Field, text: &str) {
        self.payload(field, text.as_bytes());
    }

    fn id(&mut self, field: Field, id: SessionId) {
        self.length(field.1, ID_BYTES);
        write!(self.out, "{id}").expect("a buffer that grows takes any text");
    }

    fn number(&mut self, field: Field, number: u64) {
        if number != 0 {
            self.key(field.1, VARINT);
            self.varint(number);
        }
    }

    fn flag(&mut self, field: Field, flag: bool) {
        self.number(field, flag.into());
    }

    fn payload(&mut self, field: Field, payload: &[u8]) {
        if !payload.is_empty() {
            self.bytes(field.1, payload);
        }
    }

    fn message(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        self.key(field.1, BYTES);
        self.delimited(write);
    }

    fn messages<T>(
        &mut self,
        field: Field,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        for item in items {
            self.message(field, |fields| write(fields, item));
        }
    }

    fn entries<'k, T>(
        &mut self,
        field: Field,
        items: impl Iterator<Item = (Cow<'k, str>, T)>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.messages(field, items, |fields, (key, item)| {
            fields.text(("key", 1), &key);
            fields.message(("value", 2), |fields| write(fields, item));
        });
    }

    fn with_zeros(&mut self, write: impl FnOnce(&mut Self)) {
        // In Protobuf, an absent field stands for zero.
        write(self);
    }

    fn publication(&mut self, publication: &Published<'_>) {
        self.payload(("data", 4), data(publication));
        if let Some(sender) = publication.sender {
            self.length(5, sender_length(sender));
            put_present(self, sender);
        }
        self.number(("offset", 6), publication.offset());
        let is_difference = matches!(publication.form, DataForm::Difference(_));
        self.flag(("delta", 8), is_difference);
        if let Some(epoch) = publication.epoch() {
            self.text(("epoch", 14), epoch);
        }
    }
}

/// True for a publication, a join or a leave of `channel`.
pub(crate) fn is_of(message: &[u8], channel: &str) -> bool {
    let is_kind = |rest: &[u8]| {
        let mut kinds = [4, 5, 6].map(|tag| (tag << 3 | BYTES) as u8).into_iter();
        kinds.any(|kind| rest.first() == Some(&kind))
    };
    let push = strip_varint(message).and_then(|reply| strip_key(reply, 4));
    let push = push.and_then(strip_varint);
    push.and_then(|push| strip_text(push, 2, channel))
        .is_some_and(is_kind)
}

/// The bytes behind a field with this tag and this text; `None` if `message` does not begin with
/// such a field.
fn strip_text<'m>(message: &'m [u8], tag: u8, text: &str) -> Option<&'m [u8]> {
    let (digits, length) = varint(text.len() as u64);
    let rest = strip_key(message, tag)?.strip_prefix(&digits[..length])?;
    rest.strip_prefix(text.as_bytes())
}

/// The bytes behind the key of a length-delimited field with this tag; `None` if `message` does not
/// begin with this key.
fn strip_key(message: &[u8], tag: u8) -> Option<&[u8]> {
    message.strip_prefix(&[tag << 3 | BYTES as u8])
}

/// The bytes behind a varint; `None` if `bytes` has no complete varint.
fn strip_varint(bytes: &[u8]) -> Option<&[u8]> {
    let last = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    Some(&bytes[last + 1..])
}

fn data<'p>(publication: &Published<'p>) -> &'p [u8] {
    match publication.form {
        DataForm::Plain | DataForm::Whole => publication.data,
        DataForm::Difference(patch) => patch,
    }
}

/// The number of bytes that [`Fields::publication`] writes.
fn publication_length(publication: &Published<'_>) -> usize {
    let sender = publication.sender;
    let is_difference = matches!(publication.form, DataForm::Difference(_));
    text_length(4, data(publication))
        + sender.map_or(0, |sender| field_length(5, sender_length(sender)))
        + match publication.offset() {
            0 => 0,
            offset => 1 + varint(offset).1,
        }
        + if is_difference { 2 } else { 0 }
        + text_length(14, publication.epoch().unwrap_or_default().as_bytes())
}

/// The number of bytes that [`put_present`] writes.
fn sender_length(sender: &Present) -> usize {
    let info = sender.info.as_deref().unwrap_or_default();
    let channel_info = sender.channel_info.as_deref().unwrap_or_default();
    text_length(1, sender.user.as_bytes())
        + field_length(2, ID_BYTES)
        + text_length(3, info.as_bytes())
        + text_length(4, channel_info.as_bytes())
}

/// Size of a text field, in bytes; 0 for an empty text, which is left out.
fn text_length(tag: u32, text: &[u8]) -> usize {
    match text.is_empty() {
        true => 0,
        false => field_length(tag, text.len()),
    }
}

/// Size of a whole field, in bytes. The field's content has `length` bytes.
fn field_length(tag: u32, length: usize) -> usize {
    varint((tag << 3).into()).1 + varint(length as u64).1 + length
}

/// A number in base 128, lowest digit first, with the number of its digits.
fn varint(mut number: u64) -> ([u8; MAX_VARINT], usize) {
    let mut digits = [0; MAX_VARINT];
    for (at, digit) in digits.iter_mut().enumerate() {
        let low = number as u8 & 0x7f;
        number >>= 7;
        if number == 0 {
            *digit = low;
            return (digits, at + 1);
        }
        *digit = low | 0x80;
    }
    (digits, MAX_VARINT)
}
