//! One queue with two lanes: notices, which may always be sent, and normal frames, which are sent
//! only while the session has access.

use std::collections::VecDeque;
use std::io;
use std::task::Poll;

use bytes::{Buf as _, Bytes};
use curfew_model::Channel;
use curfew_ws::{Socket, WriteBatch};

use super::Progress;
use super::withdraw::Mark;
use crate::{FrameCounts, Wire};

/// Frames on their way to one socket.
///
/// *Notices* are the answer to the upgrade request, errors, pings, pongs and closes: they disclose
/// nothing for which the session needs access. Every other frame is *normal*. A notice that must
/// not overtake normal frames waits in the normal lane, until that lane is withheld.
#[expect(
    clippy::box_collection,
    reason = "an idle session has neither, and holds a pointer for each"
)]
#[derive(Debug, Default)]
pub struct Lanes {
    notices: Option<Box<VecDeque<Bytes>>>,
    normal: VecDeque<Bytes>,
    /// The marks of frames in the normal lane. Each mark has the index of its frame, counted from
    /// the front. The marks are ordered by this index.
    marks: Option<Box<Vec<(usize, Mark)>>>,
    /// True if the first notice is the answer to the upgrade request, which is no frame.
    has_answer: bool,
    /// The lane whose front frame is written in part. The rest of that frame must be written next.
    begun: Option<Lane>,
    /// Set while the socket holds back bytes that it has taken, as TLS does: [`Lane::Normal`] if
    /// any of these bytes belongs to the normal lane. Until these bytes are flushed, their frame
    /// counts as written in part.
    held: Option<Lane>,
}

/// One of the two lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Notices,
    Normal,
}

/// The next request to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Write frames from the front of the lanes: at most `notices` notices, then at most `normal`
    /// normal frames.
    Write { notices: usize, normal: usize },
    /// Flush the bytes that the socket holds back.
    Flush,
}

impl Step {
    /// True if the step needs the session's access.
    fn needs_access(self, held: Option<Lane>) -> bool {
        match self {
            Self::Write { normal, .. } => normal > 0,
            Self::Flush => held == Some(Lane::Normal),
        }
    }
}

/// The outcome of one write.
#[derive(Debug, Default)]
pub(crate) struct WriteOutcome {
    /// The number of written bytes that belong to frames.
    pub(crate) bytes: usize,
    /// The part of `bytes` that belongs to the normal lane.
    pub(super) normal_bytes: usize,
    /// The number of frames of the normal lane whose last byte was written.
    pub(super) normal_frames: usize,
    /// Frames whose first byte was written, by kind.
    pub(crate) frame_counts: FrameCounts,
}

impl Lanes {
    /// Creates lanes with the answer to the upgrade request as first notice, written before any
    /// frame. An empty answer is left out.
    pub fn answering(answer: Bytes) -> Self {
        let mut lanes = Self::default();
        if !answer.is_empty() {
            lanes.has_answer = true;
            lanes.push_notice(answer);
        }
        lanes
    }

    /// Adds a notice.
    pub fn push_notice(&mut self, frame: Bytes) {
        self.notices.get_or_insert_default().push_back(frame);
    }

    /// The number of notices that wait.
    pub fn notices(&self) -> usize {
        self.notices.as_ref().map_or(0, |notices| notices.len())
    }

    /// Writes the notices, before a session exists or after the session has ended.
    pub fn write(&mut self, socket: &mut impl Socket) -> Progress {
        let mut wrote = false;
        while let Some(step) = self.next(false) {
            // A notice never needs access.
            match self.take(step, socket, || false, &mut WriteOutcome::default()) {
                Poll::Ready(Ok(())) => wrote = true,
                Poll::Ready(Err(error)) => return Progress::Broken(error),
                Poll::Pending => return Progress::Blocked { wrote },
            }
        }
        Progress::Done
    }

    /// Adds a frame to the normal lane.
    pub(super) fn push(&mut self, frame: Bytes, mark: Option<&Mark>) {
        if let Some(mark) = mark {
            let marks = self.marks.get_or_insert_default();
            marks.push((self.normal.len(), mark.clone()));
        }
        self.normal.push_back(frame);
    }

    /// Adds a frame to the normal lane ahead of all others. The caller makes sure that no frame of
    /// the normal lane is written in part.
    pub(super) fn push_first(&mut self, frame: Bytes, first: Vec<Mark>) {
        let behind = self.marks.take().into_iter().flat_map(|marks| *marks);
        let behind = behind.map(|(place, mark)| (place + 1, mark));
        let marks: Vec<_> = first
            .into_iter()
            .map(|mark| (0, mark))
            .chain(behind)
            .collect();
        self.marks = (!marks.is_empty()).then(|| Box::new(marks));
        self.normal.push_front(frame);
    }

    /// Moves the notices of the normal lane to the lane of notices, except for a partly written
    /// frame. Returns the moved bytes.
    pub(super) fn release_notices(&mut self) -> usize {
        let first = usize::from(self.begun == Some(Lane::Normal));
        let marks = self.marks.iter().flat_map(|marks| marks.iter());
        let notices = marks.filter(|(place, mark)| *place >= first && *mark == Mark::Notice);
        let notices: Vec<_> = notices.map(|(place, _)| *place).collect();
        let released = self.take_out(|place, _| notices.binary_search(&place).is_ok());
        let bytes = released.iter().map(Bytes::len).sum();
        for frame in released {
            self.push_notice(frame);
        }
        bytes
    }

    /// Drops the frames of `channel`. `wire` is the encoding of the queued frames. Returns the
    /// dropped bytes and frames. Returns `None`, and drops nothing, if one of the channel's frames
    /// is written in part or is an answer, or if the socket holds back bytes of the normal lane.
    pub(super) fn withdraw(&mut self, channel: &Channel, wire: &Wire) -> Option<(usize, usize)> {
        if self.held == Some(Lane::Normal) {
            // The socket holds back bytes of normal frames, and these frames may belong to the
            // channel.
            return None;
        }
        let mut marks = self.marks.iter().flat_map(|marks| marks.iter());
        if marks.any(|(_, mark)| mark.is_out_of_reach(channel, wire)) {
            return None;
        }
        let first = usize::from(self.begun == Some(Lane::Normal));
        let dropped = self.take_out(|place, frame| place >= first && wire.is_of(frame, channel));
        Some((dropped.iter().map(Bytes::len).sum(), dropped.len()))
    }

    /// Removes frames from the normal lane and returns them. `is_taken` selects a frame by its
    /// index and its bytes.
    fn take_out(&mut self, is_taken: impl Fn(usize, &Bytes) -> bool) -> Vec<Bytes> {
        let (mut taken, mut places, mut place) = (Vec::new(), Vec::new(), 0);
        self.normal.retain(|frame| {
            let stays = !is_taken(place, frame);
            if !stays {
                taken.push(frame.clone());
                places.push(place);
            }
            place += 1;
            stays
        });
        if let Some(marks) = &mut self.marks {
            marks.retain(|(place, _)| places.binary_search(place).is_err());
            for (place, _) in marks.iter_mut() {
                // Each removed frame moves the frames behind it forward by one.
                *place -= places.partition_point(|taken| taken < place);
            }
        }
        taken
    }

    /// Bytes in the normal lane.
    pub(super) fn normal_bytes(&self) -> usize {
        self.normal.iter().map(Bytes::len).sum()
    }

    /// The number of frames in the normal lane, including a partly written frame.
    pub(super) fn normal(&self) -> usize {
        self.normal.len()
    }

    /// True if no frame waits.
    pub(super) fn is_empty(&self) -> bool {
        self.notices.is_none() && self.normal.is_empty()
    }

    /// True if any waiting byte needs access.
    pub(super) fn needs_access(&self) -> bool {
        !self.normal.is_empty() || self.held == Some(Lane::Normal)
    }

    /// True if a frame is written in part and the rest of it needs access.
    pub fn is_amid_frame(&self) -> bool {
        self.begun == Some(Lane::Normal) || self.held == Some(Lane::Normal)
    }

    /// Drops the normal lane, except for a partly written frame. Returns the dropped bytes and
    /// frames.
    pub(super) fn clear(&mut self) -> (usize, usize) {
        let mut normal = std::mem::take(&mut self.normal);
        if self.begun == Some(Lane::Normal) {
            self.normal.extend(normal.pop_front());
        }
        self.marks = None;
        let bytes = normal.iter().map(Bytes::len).sum();
        (bytes, normal.len())
    }

    /// The next step; `access` is true if the session has access. `None` if no byte waits, or if
    /// the bytes that have to be written next need access.
    pub(super) fn next(&self, access: bool) -> Option<Step> {
        if let Some(held) = self.held {
            // Held bytes come first in the stream, so they block every other write.
            return (access || held == Lane::Notices).then_some(Step::Flush);
        }
        let normal = if access { self.normal.len() } else { 0 };
        let step = match self.begun {
            // Only the partly written frame is written now: the waiting notices are sent right
            // after it, ahead of other normal frames.
            Some(Lane::Normal) if self.notices.is_some() => Step::Write {
                notices: 0,
                normal: normal.min(1),
            },
            Some(Lane::Normal) => Step::Write { notices: 0, normal },
            Some(Lane::Notices) | None => Step::Write {
                notices: self.notices(),
                normal,
            },
        };
        let is_some = |step: &Step| {
            !matches!(
                step,
                Step::Write {
                    notices: 0,
                    normal: 0
                }
            )
        };
        Some(step).filter(is_some)
    }

    /// Performs a step. If the step needs access, `has_access` is called last, when the bytes are
    /// ready. If `has_access` returns false, nothing is written. `Pending` means that the socket
    /// takes no more.
    pub(super) fn take(
        &mut self,
        step: Step,
        socket: &mut impl Socket,
        has_access: impl FnOnce() -> bool,
        written: &mut WriteOutcome,
    ) -> Poll<io::Result<()>> {
        let held = self.held;
        let may_leave = || !step.needs_access(held) || has_access();
        let (notices, normal) = match step {
            Step::Flush => {
                if !may_leave() {
                    return Poll::Ready(Ok(()));
                }
                return socket.flush().map_ok(|()| self.held = None);
            }
            Step::Write { notices, normal } => (notices, normal),
        };
        let frames = self.notices.iter().flat_map(|notices| notices.iter());
        let frames = frames.take(notices);
        let frames = frames.chain(self.normal.iter().take(normal));
        let some = WriteBatch::of(frames, |batch| may_leave().then(|| socket.write(batch)));
        match some {
            None => Poll::Ready(Ok(())),
            Some(Poll::Ready(Ok(0))) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Some(Poll::Ready(Ok(some))) => {
                if socket.holds_back() {
                    let lane = if normal > 0 {
                        Lane::Normal
                    } else {
                        Lane::Notices
                    };
                    self.held = Some(lane);
                }
                self.advance(some, notices > 0, written);
                Poll::Ready(Ok(()))
            }
            Some(Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            Some(Poll::Pending) => Poll::Pending,
        }
    }

    /// Removes written bytes from the front of the lanes.
    fn advance(&mut self, mut some: usize, notices: bool, written: &mut WriteOutcome) {
        if notices && let Some(mut queue) = self.notices.take() {
            if self.has_answer {
                (some, self.has_answer) = advance_answer(&mut queue, some);
            }
            let begun = self.begun.take_if(|lane| *lane == Lane::Notices).is_some();
            let out = advance(&mut queue, some, begun, &mut written.frame_counts);
            self.begun = out.begun.then_some(Lane::Notices);
            written.bytes += out.bytes;
            some -= out.bytes;
            self.notices = Some(queue).filter(|queue| !queue.is_empty());
        }
        if some == 0 {
            // All written bytes belong to notices.
            return;
        }
        let begun = self.begun.take().is_some();
        let out = advance(&mut self.normal, some, begun, &mut written.frame_counts);
        self.begun = out.begun.then_some(Lane::Normal);
        written.bytes += out.bytes;
        written.normal_bytes += out.bytes;
        written.normal_frames += out.frames;
        if let Some(marks) = &mut self.marks {
            marks.retain(|(place, _)| *place >= out.frames);
            marks.iter_mut().for_each(|(place, _)| *place -= out.frames);
        }
        if let Some(whole) = out.whole {
            let marks = self.marks.get_or_insert_default();
            marks.insert(0, (0, Mark::Begun(whole)));
        }
        if self.normal.is_empty() {
            // An idle session holds no buffer.
            self.normal = VecDeque::new();
            self.marks = None;
        }
    }

    /// Takes the notices out, for the last write. After this call, a partly written normal frame
    /// can no longer be completed.
    pub(super) fn take_notices(&mut self) -> Self {
        Self {
            notices: self.notices.take(),
            normal: VecDeque::new(),
            marks: None,
            has_answer: std::mem::take(&mut self.has_answer),
            begun: self.begun.take(),
            held: self.held.take(),
        }
    }

    /// Appends the lanes that were filled while the lanes in `self` were taken out.
    pub(super) fn append(&mut self, mut behind: Self) {
        if let Some(notices) = &mut behind.notices {
            self.notices.get_or_insert_default().append(notices);
        }
        if let Some(marks) = behind.marks {
            let before = self.normal.len();
            let marks = marks
                .into_iter()
                .map(|(place, mark)| (place + before, mark));
            self.marks.get_or_insert_default().extend(marks);
        }
        if self.normal.is_empty() {
            self.normal = behind.normal;
        } else {
            self.normal.append(&mut behind.normal);
        }
    }
}

/// The bytes and frames of one lane that were written.
struct Out {
    bytes: usize,
    /// The number of frames whose last byte was written.
    frames: usize,
    /// True if the front frame is written in part.
    begun: bool,
    /// The complete front frame, if this write was the first to write a part of it.
    whole: Option<Bytes>,
}

/// Removes written bytes of the answer to the upgrade request from the front of the notices.
/// Returns the number of written bytes that belong to frames, and true if a part of the answer
/// still waits.
fn advance_answer(notices: &mut VecDeque<Bytes>, some: usize) -> (usize, bool) {
    let Some(answer) = notices.front_mut() else {
        return (some, false);
    };
    if some < answer.len() {
        answer.advance(some);
        return (0, true);
    }
    let rest = some - answer.len();
    notices.pop_front();
    (rest, false)
}

/// Removes up to `some` written bytes from the front of a lane, and counts the frames that begin
/// among them. `begun` says whether the front frame was written in part before.
fn advance(
    frames: &mut VecDeque<Bytes>,
    some: usize,
    begun: bool,
    counts: &mut FrameCounts,
) -> Out {
    let mut out = Out {
        bytes: 0,
        frames: 0,
        begun,
        whole: None,
    };
    while let Some(front) = frames.front_mut() {
        let left = some - out.bytes;
        if left == 0 {
            break;
        }
        if !out.begun {
            counts.add(front);
        }
        if left < front.len() {
            out.whole = (!out.begun).then(|| front.clone());
            front.advance(left);
            out.bytes = some;
            out.begun = true;
            break;
        }
        out.bytes += front.len();
        out.frames += 1;
        out.begun = false;
        frames.pop_front();
    }
    out
}
