//! Encoding of messages in JSON.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use curfew_model::{DataForm, Present, SessionId};
use curfew_protocol::json::{put_string, strip_string};

use super::{Field, Fields, Published, Root, put_present};

/// Estimated length of a publication's message without its channel, data and sender, in bytes.
const PUSH_OVERHEAD: usize = 112;

/// The start of a push about a channel, up to the channel's name.
const PUSH_START: &[u8] = b"{\"push\":{\"channel\":";

/// Estimated length of a sender without its user and its information, in bytes.
const SENDER_OVERHEAD: usize = 80;

/// Number of bytes that the search for line ends compares at a time.
const STRIDE: usize = 32;

/// An object that is being written.
pub(crate) struct Json<'o> {
    out: &'o mut BytesMut,
    /// True until the object has its first member.
    is_empty: bool,
    /// True while zeros and empty values are written too.
    has_zeros: bool,
}

impl<'o> Json<'o> {
    pub(crate) fn new(out: &'o mut BytesMut) -> Self {
        Self {
            out,
            is_empty: true,
            has_zeros: false,
        }
    }

    /// Writes the name of a member. The name needs no escaping.
    fn name(&mut self, name: &str) {
        self.separate();
        self.out.put_u8(b'"');
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(b"\":");
    }

    fn separate(&mut self) {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.out.put_u8(b',');
        }
    }

    fn object(&mut self, write: impl FnOnce(&mut Self)) {
        self.out.put_u8(b'{');
        self.is_empty = true;
        write(self);
        self.is_empty = false;
        self.out.put_u8(b'}');
    }
}

impl<'o> Root for Json<'o> {
    type Fields<'f>
        = Self
    where
        Self: 'f;

    fn write(mut self, write: impl FnOnce(&mut Self)) {
        self.object(write);
    }

    fn push(mut self, channel: &str, publication: &Published<'_>) {
        let data = match publication.form {
            DataForm::Plain => publication.data.len(),
            // Within a string, every quotation mark of the JSON takes one more byte.
            DataForm::Whole => publication.data.len() + publication.data.len() / 2,
            DataForm::Difference(patch) => patch.len() + patch.len() / 2,
        };
        let sender = publication.sender.map_or(0, |sender| {
            let infos = [&sender.info, &sender.channel_info];
            let infos = infos.map(|info| info.as_ref().map_or(0, |info| info.len()));
            SENDER_OVERHEAD + sender.user.len() + infos[0] + infos[1]
        });
        self.out
            .reserve(PUSH_OVERHEAD + channel.len() + data + sender);
        self.out.put_slice(PUSH_START);
        put_string(channel.as_bytes(), self.out);
        self.out.put_slice(b",\"pub\":{");
        self.publication(publication);
        self.out.put_slice(b"}}}");
    }
}

impl Fields for Json<'_> {
    const IS_TEXT: bool = true;

    fn text(&mut self, field: Field, text: &str) {
        if self.has_zeros || !text.is_empty() {
            self.name(field.0);
            put_string(text.as_bytes(), self.out);
        }
    }

    fn id(&mut self, field: Field, id: SessionId) {
        self.name(field.0);
        write!(self.out, "\"{id}\"").expect("a buffer that grows takes any text");
    }

    fn number(&mut self, field: Field, number: u64) {
        if self.has_zeros || number != 0 {
            self.name(field.0);
            write!(self.out, "{number}").expect("a buffer that grows takes any text");
        }
    }

    fn flag(&mut self, field: Field, flag: bool) {
        if flag {
            self.name(field.0);
            self.out.put_slice(b"true");
        }
    }

    fn payload(&mut self, field: Field, payload: &[u8]) {
        if !payload.is_empty() {
            self.name(field.0);
            put_payload(payload, self.out);
        }
    }

    fn message(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        self.name(field.0);
        self.object(write);
    }

    fn messages<T>(
        &mut self,
        field: Field,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        let mut items = items.peekable();
        if !self.has_zeros && items.peek().is_none() {
            return;
        }
        self.name(field.0);
        self.out.put_u8(b'[');
        self.is_empty = true;
        for item in items {
            self.separate();
            self.object(|fields| write(fields, item));
        }
        self.is_empty = false;
        self.out.put_u8(b']');
    }

    fn entries<'k, T>(
        &mut self,
        field: Field,
        items: impl Iterator<Item = (Cow<'k, str>, T)>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        let mut items = items.peekable();
        if !self.has_zeros && items.peek().is_none() {
            return;
        }
        self.message(field, |fields| {
            for (key, item) in items {
                fields.separate();
                put_string(key.as_bytes(), fields.out);
                fields.out.put_u8(b':');
                fields.object(|fields| write(fields, item));
            }
        });
    }

    fn publication(&mut self, publication: &Published<'_>) {
        self.is_empty = true;
        let has_zeros = std::mem::replace(&mut self.has_zeros, false);
        let is_difference = matches!(publication.form, DataForm::Difference(_));
        self.name("data");
        match publication.form {
            DataForm::Plain => put_payload(publication.data, self.out),
            // A subscriber that takes differences expects all data as strings.
            DataForm::Whole => put_string(publication.data, self.out),
            DataForm::Difference(patch) => put_string(patch, self.out),
        }
        self.number(("offset", 6), publication.offset());
        if let Some(sender) = publication.sender {
            self.sender(sender);
        }
        self.flag(("delta", 8), is_difference);
        if let Some(epoch) = publication.epoch() {
            self.text(("epoch", 14), epoch);
        }
        self.has_zeros = has_zeros;
    }

    fn with_zeros(&mut self, write: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.has_zeros, true);
        write(self);
        self.has_zeros = before;
    }
}

impl Json<'_> {
    fn sender(&mut self, sender: &Present) {
        self.message(("info", 5), |fields| put_present(fields, sender));
    }
}

/// True for a publication, a join or a leave of `channel`.
pub(crate) fn is_of(message: &[u8], channel: &str) -> bool {
    let rest = message.strip_prefix(PUSH_START);
    let rest = rest.and_then(|rest| strip_string(rest, channel));
    let kinds = [&b",\"pub\":"[..], b",\"join\":", b",\"leave\":"];
    rest.is_some_and(|rest| kinds.iter().any(|kind| rest.starts_with(kind)))
}

/// Writes a JSON value on one line, because a newline ends a message. Line ends within JSON strings
/// are escaped, so removing raw line ends changes no value.
fn put_payload(payload: &[u8], out: &mut BytesMut) {
    if !has_line_end(payload) {
        out.put_slice(payload);
        return;
    }
    for part in payload.split(|byte| is_line_end(*byte)) {
        out.put_slice(part);
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// True if there is a line end. The loop within a stride has no branch, so that many bytes are
/// compared at once.
fn has_line_end(bytes: &[u8]) -> bool {
    bytes.chunks(STRIDE).any(|stride| {
        stride
            .iter()
            .fold(false, |found, byte| found | is_line_end(*byte))
    })
}
