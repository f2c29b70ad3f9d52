//! Output of a process, collected line by line.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

/// The lines that a process has written so far. Clones share the lines.
#[derive(Debug, Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    written: watch::Receiver<usize>,
    count: Arc<watch::Sender<usize>>,
}

impl Log {
    /// Creates a log without lines.
    pub(crate) fn new() -> Self {
        let (count, written) = watch::channel(0);
        Self {
            lines: Arc::default(),
            written,
            count: Arc::new(count),
        }
    }

    /// Collects the lines of `source` on a separate thread until `source` ends.
    pub(crate) fn collect(&self, source: impl Read + Send + 'static) {
        let (lines, count) = (Arc::clone(&self.lines), Arc::clone(&self.count));
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source
                .read_until(b'\n', &mut line)
                .is_ok_and(|bytes| bytes > 0)
            {
                let text = String::from_utf8_lossy(&line);
                lines.lock().push(text.trim_end_matches('\n').to_owned());
                count.send_modify(|count| *count += 1);
                line.clear();
            }
            count.send_modify(|count| *count += 1);
        });
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// All lines so far, as one text.
    pub fn text(&self) -> String {
        self.lines.lock().join("\n")
    }

    /// The lines so far that are JSON.
    pub fn entries(&self) -> Vec<Value> {
        let lines = self.lines.lock();
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Waits for the first line that `wanted` accepts. Returns `None` if no such line comes within
    /// `patience`.
    pub async fn line<T>(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let mut written = self.written.clone();
        timeout(patience, async {
            let mut seen = 0;
            loop {
                let new = self.lines.lock()[seen..].to_vec();
                seen += new.len();
                if let Some(found) = new.iter().find_map(|line| wanted(line)) {
                    return Some(found);
                }
                written.changed().await.ok()?;
            }
        })
        .await
        .ok()
        .flatten()
    }
}
