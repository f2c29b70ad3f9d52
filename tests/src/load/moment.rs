//! A time in a form that fits into a publication.

use std::ops::Add;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Number of digits of a moment in a publication. They suffice for nearly three hours in
/// microseconds.
const DIGITS: usize = 10;

/// Text before the moment in a publication's data.
const MARK: &[u8] = br#""t":""#;

/// Largest offset at which the mark may start. The names of the channel and the user come before
/// the mark.
const MARK_WITHIN: usize = 192;

/// A time, in microseconds since the test process first made a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

impl Moment {
    /// The current moment.
    pub fn now() -> Self {
        let micros = epoch().elapsed().as_micros();
        Self(u64::try_from(micros).expect("no test lasts 584,000 years"))
    }

    /// The moment as tokio's [`tokio::time::Instant`].
    pub fn instant(self) -> tokio::time::Instant {
        (epoch() + Duration::from_micros(self.0)).into()
    }

    /// Time from `earlier` to this moment; zero if this moment is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment as a member of a JSON object, with constant length.
    pub(super) fn member(self) -> String {
        format!(r#""t":"{}""#, self.digits())
    }

    /// The moment in a publication's text. `at` is the moment's offset in the text of the last
    /// call, and the call updates `at`. This offset is tried first, because it is the same in all
    /// publications of one channel.
    pub(super) fn found_in(text: &[u8], at: &mut usize) -> Option<Self> {
        let is_here = |at: usize| text.get(at..at + MARK.len()) == Some(MARK);
        if !is_here(*at) {
            *at = (0..MARK_WITHIN).find(|at| is_here(*at))?;
        }
        let digits = *at + MARK.len();
        Self::parse(text.get(digits..digits + DIGITS)?)
    }

    /// The text that [`Moment::parse`] reads.
    pub(super) fn digits(self) -> String {
        format!("{:0DIGITS$}", self.0)
    }

    /// Reads the text of [`Moment::digits`].
    pub(super) fn parse(digits: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(digits).ok()?;
        text.parse().ok().map(Self)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0 + u64::try_from(later.as_micros()).expect("no test lasts 584,000 years"))
    }
}

fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}
