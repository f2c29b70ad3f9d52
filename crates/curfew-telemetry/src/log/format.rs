//! The form of a log line: an event, its fields and its spans.

use std::error::Error;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::escape::{Escaped, Escapes};
use crate::config::LogFormat;

/// The name of every span that [`Span::scope`](crate::Span::scope) returns. Its fields are the ids
/// of the recorded trace and span.
pub(crate) const TRACED: &str = "traced";

/// Writes one line per event. A JSON line has `timestamp`, `level`, `target` and the event's
/// fields. If a trace is recorded, `trace_id` and `span_id` follow. The last member is `spans`,
/// with the outermost span first. A text line has the same content in a form for people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines(LogFormat);

impl Lines {
    pub(super) fn new(format: LogFormat) -> Self {
        Self(format)
    }

    fn json<S, N>(ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let meta = event.metadata();
        out.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut out)?;
        write!(
            out,
            "\",\"level\":\"{}\",\"target\":\"{}\"",
            meta.level(),
            meta.target()
        )?;
        ctx.format_fields(out.by_ref(), event)?;
        let scope = || {
            ctx.event_scope()
                .into_iter()
                .flat_map(|scope| scope.from_root())
        };
        // The ids of the innermost recorded span are written as if they were fields of the event.
        if let Some(span) = scope().filter(|span| span.name() == TRACED).last()
            && let Some(fields) = span.extensions().get::<FormattedFields<N>>()
        {
            out.write_str(fields)?;
        }
        let mut spans = 0;
        for span in scope().filter(|span| span.name() != TRACED) {
            out.write_str(if spans == 0 { ",\"spans\":[" } else { "," })?;
            write!(out, "{{\"name\":\"{}\"", span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                out.write_str(fields)?;
            }
            out.write_char('}')?;
            spans += 1;
        }
        out.write_str(if spans > 0 { "]}\n" } else { "}\n" })
    }

    fn text<S, N>(ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let meta = event.metadata();
        styled(&mut out, DIM, |out| SystemTime.format_time(out))?;
        out.write_char(' ')?;
        styled(&mut out, colour(*meta.level()), |out| {
            write!(out, "{:>5}", meta.level())
        })?;
        out.write_char(' ')?;
        for span in ctx
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            out.write_str(span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(out, "{{{}}}", fields.trim_start())?;
            }
            out.write_str(": ")?;
        }
        styled(&mut out, DIM, |out| write!(out, "{}:", meta.target()))?;
        ctx.format_fields(out.by_ref(), event)?;
        out.write_char('\n')
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.0 {
            LogFormat::Json => Self::json(ctx, writer, event),
            LogFormat::Text => Self::text(ctx, writer, event),
        }
    }
}

impl<'w> FormatFields<'w> for Lines {
    /// Writes the fields. Each field begins with a separator, so that further fields can be
    /// appended.
    fn format_fields<R: RecordFields>(&self, out: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = FieldWriter {
            out,
            format: self.0,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }

    fn add_fields(
        &self,
        current: &'w mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

struct FieldWriter<'w> {
    out: Writer<'w>,
    format: LogFormat,
    result: fmt::Result,
}

impl FieldWriter<'_> {
    fn name(&mut self, field: &Field) -> fmt::Result {
        match self.format {
            // Field names are identifiers in Curfew's or a library's source code, so they need no
            // escaping.
            LogFormat::Json => write!(self.out, ",\"{}\":", field.name()),
            LogFormat::Text if field.name() == "message" => self.out.write_char(' '),
            LogFormat::Text => {
                self.out.write_char(' ')?;
                styled(&mut self.out, DIM, |out| write!(out, "{}=", field.name()))
            }
        }
    }

    /// Returns true if the field is only for the layer that records spans, and does not belong in
    /// the log.
    fn is_silent(field: &Field) -> bool {
        field.name().starts_with("otel.")
    }

    /// Writes a field whose value is a number or a boolean. The value has the same form in JSON and
    /// in text.
    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        if self.result.is_ok() {
            self.result = self.name(field).and_then(|()| write!(self.out, "{value}"));
        }
    }

    fn words(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_ok() && !Self::is_silent(field) {
            self.result = self.name(field).and_then(|()| self.escaped(field, value));
        }
    }

    fn escaped(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        let escapes = match self.format {
            LogFormat::Json => Escapes::Json,
            LogFormat::Text if field.name() == "message" => Escapes::Text,
            LogFormat::Text => Escapes::Quoted,
        };
        let quote = if escapes == Escapes::Text { "" } else { "\"" };
        self.out.write_str(quote)?;
        Escaped::new(&mut self.out, escapes, field.name()).write_fmt(value)?;
        self.out.write_str(quote)
    }
}

impl Visit for FieldWriter<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.words(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.words(field, format_args!("{value}"));
    }

    /// Writes the error, followed by its sources.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.words(field, format_args!("{}", Chain(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field, value);
        } else {
            self.words(field, format_args!("{value}"));
        }
    }
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// The parameter of the ANSI escape sequence for faint text.
const DIM: &str = "2";

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}

fn styled(
    out: &mut Writer<'_>,
    style: &str,
    write: impl FnOnce(&mut Writer<'_>) -> fmt::Result,
) -> fmt::Result {
    if !out.has_ansi_escapes() {
        return write(out);
    }
    write!(out, "\x1b[{style}m")?;
    write(out)?;
    out.write_str("\x1b[0m")
}
