//! How far a run is, on standard error: a bar on a terminal, lines or events elsewhere.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use regraft::execute::Progress;
use regraft::overview::{Size, counted};
use serde_json::json;

use super::console::Console;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum How {
    /// A bar on a terminal, lines elsewhere
    Auto,
    /// A bar
    Bar,
    /// A line every few seconds
    Lines,
    /// A JSON document on a line, every half second
    Json,
    /// Nothing
    None,
}

/// Shows progress; used from any thread.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    console: Console,
    json: bool,
    every: Option<Duration>,
    start: Instant,
    /// When something was last said.
    said: Mutex<Instant>,
}

impl Display {
    pub(super) fn new(how: How, console: Console) -> Self {
        let terminal = console.shows_progress();
        let bar = (how == How::Bar || how == How::Auto && terminal).then(bar);
        let every = match how {
            How::Json => Some(Duration::from_millis(500)),
            How::Lines => Some(Duration::from_secs(3)),
            How::Auto if !terminal && !console.quiet && !console.json => {
                Some(Duration::from_secs(3))
            }
            How::Auto | How::Bar | How::None => None,
        };
        let now = Instant::now();
        Self { bar, console, json: how == How::Json, every, start: now, said: Mutex::new(now) }
    }

    pub(super) fn update(&self, progress: Progress) {
        if let Some(bar) = &self.bar {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(format!(
                "{} of {}",
                progress.files,
                counted(progress.total_files, "file")
            ));
        }
        let Some(every) = self.every else { return };
        // Whoever finds it locked has nothing to add.
        let Ok(mut said) = self.said.try_lock() else { return };
        if said.elapsed() < every && progress.done < progress.total {
            return;
        }
        if !self.json && said.elapsed() < every {
            return;
        }
        *said = Instant::now();
        let seconds = self.start.elapsed().as_secs_f64().max(0.001);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )] // for people
        let rate = (progress.done as f64 / seconds) as u64;
        let left = progress.total.saturating_sub(progress.done).checked_div(rate).unwrap_or(0);
        if self.json {
            let event = json!({ "done": progress.done, "total": progress.total, "files": progress.files, "total_files": progress.total_files, "bytes_per_second": rate, "seconds_left": left });
            self.console.aside(&format!("{event}\n"));
        } else {
            self.console.aside(&format!(
                "{} of {}, {} of {}, {} a second, {left} s left\n",
                Size(progress.done),
                Size(progress.total),
                progress.files,
                counted(progress.total_files, "file"),
                Size(rate)
            ));
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:30} {decimal_bytes}/{decimal_total_bytes}  {msg}  {decimal_bytes_per_sec}  {eta} left",
    );
    let bar = ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
