//! The voice of the demo: headings with the time that has passed, plain lines, and what is typed.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Instant;

/// The width of a paragraph, in characters.
const PARAGRAPH: usize = 76;

/// Writes to standard output; in colour if that is a terminal and `NO_COLOR` is unset.
pub(super) struct Narrator {
    began_at: Instant,
    chapter: u32,
    colour: bool,
}

impl Narrator {
    /// The clock starts now.
    pub(super) fn new() -> Self {
        // https://no-color.org: set and not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { began_at: Instant::now(), chapter: 0, colour: !unwanted && std::io::stdout().is_terminal() }
    }

    /// Seconds since the beginning.
    pub(super) fn elapsed_s(&self) -> f64 {
        self.began_at.elapsed().as_secs_f64()
    }

    /// A heading.
    pub(super) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        let (number, elapsed_s) = (self.chapter, self.elapsed_s());
        write_line(format_args!(
            "\n{} {}",
            self.paint("1;36", format_args!("{number:>2}. {title:<68}")),
            self.dim(format_args!("{elapsed_s:5.1} s"))
        ));
    }

    /// What happens, as a paragraph.
    pub(super) fn say(&self, text: impl Display) {
        let text = text.to_string();
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > PARAGRAPH {
                self.row(&line);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.row(line);
    }

    /// A line of a table, or one that is not to be broken.
    pub(super) fn row(&self, text: impl Display) {
        write_line(format_args!("    {text}"));
    }

    /// What somebody types.
    pub(super) fn typed(&self, text: impl Display) {
        for line in text.to_string().lines() {
            write_line(format_args!("      {}", self.paint("33", line)));
        }
    }

    /// What comes back.
    pub(super) fn answer(&self, text: impl Display) {
        for line in text.to_string().lines() {
            write_line(format_args!("      {}", self.dim(line)));
        }
    }

    /// An empty line.
    pub(super) fn gap(&self) {
        write_line("");
    }

    /// A word that says whether all is well.
    pub(super) fn verdict(&self, well: bool, text: &str) -> String {
        self.paint(if well { "1;32" } else { "1;31" }, text)
    }

    fn dim(&self, text: impl Display) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: impl Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Standard output may be a pipe that somebody closed: then nobody reads on, and nothing is lost.
pub(super) fn write_line(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
