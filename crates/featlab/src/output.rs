//! Results on stdout: text for people, one JSON object a line with `--json`. Nothing else writes there.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Text, or JSON lines.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one result: `value` as a JSON line, or what `text` makes of it.
    ///
    /// # Errors
    /// If stdout cannot be written (a closed pipe counts as success, see [`is_broken_pipe`]).
    pub(crate) fn result<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let line = if self.json { serde_json::to_string(value)? } else { text(value) };
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(line.as_bytes())?;
        if !line.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()?;
        Ok(())
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the text form may use colours.
    pub(crate) fn color(&self) -> bool {
        use std::io::IsTerminal;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        !self.json && !no_color && std::io::stdout().is_terminal()
    }
}

/// Whether an error is only that the reader of stdout went away (`featlab … | head`).
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
