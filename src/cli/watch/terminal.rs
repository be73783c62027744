//! The terminal while it is ours: the other screen, no cursor, keys without Enter. However the program ends,
//! short of SIGKILL, it gets back what it was.

use super::text::Line;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use std::env;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

// The other screen; no cursor; nothing wraps at the right edge, whatever a terminal thinks of a width.
const TAKE: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const GIVE_BACK: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
// Terminals that know it show what is between them at once.
const BEGIN_FRAME: &str = "\x1b[?2026h";
const END_FRAME: &str = "\x1b[?2026l";

/// What to give back: `Some` while the terminal is taken, with the modes of its keyboard if it has one.
static TAKEN: Mutex<Option<Option<Termios>>> = Mutex::new(None);

/// Whether there is a screen to draw on.
pub(super) fn is_there() -> bool {
    io::stdout().is_terminal() && env::var("TERM").is_ok_and(|term| !term.is_empty() && term != "dumb")
}

/// The terminal, taken; dropping it gives it back.
pub(super) struct Terminal {
    shown: Vec<String>,
    size: (usize, usize),
    colour: bool,
    unicode: bool,
}

impl Terminal {
    pub(super) fn take() -> io::Result<Self> {
        let keyboard = if io::stdin().is_terminal() { Some(tcgetattr(io::stdin())?) } else { None };
        if let Some(mut modes) = keyboard.clone() {
            // Not a signal either: Ctrl-C is a key, and Ctrl-Z would leave the other screen behind.
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            modes.input_modes -= InputModes::IXON;
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(io::stdin(), OptionalActions::Flush, &modes)?;
        }
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(keyboard);
        // What a panic says belongs on the screen that stays.
        let says = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            says(panic);
        }));
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let terminal = Self {
            shown: Vec::new(),
            size: (0, 0),
            colour: set("NO_COLOR").is_none(),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        };
        write(TAKE)?;
        Ok(terminal)
    }

    /// Columns and rows.
    pub(super) fn size() -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }

    /// Writes the lines that have changed since they were last drawn.
    pub(super) fn draw(&mut self, lines: &[Line], size: (usize, usize)) -> io::Result<()> {
        let painted: Vec<String> = lines.iter().map(|line| line.paint(self.colour, self.unicode)).collect();
        let mut frame = String::from(BEGIN_FRAME);
        if size != self.size {
            frame.push_str("\x1b[2J");
            self.shown.clear();
            self.size = size;
        }
        for (row, line) in painted.iter().enumerate() {
            if self.shown.get(row) != Some(line) {
                frame += &format!("\x1b[{};1H\x1b[2K{line}", row + 1);
            }
        }
        frame.push_str(END_FRAME);
        self.shown = painted;
        write(&frame)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(keyboard) = taken {
        // A terminal that has gone needs nothing any more.
        let _ = write(GIVE_BACK);
        if let Some(modes) = keyboard {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &modes);
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Pause,
    Slower,
    Faster,
    Help,
    Span(i32),
}

/// Keys as they are pressed. The thread waits for the next one when the program ends, and ends with it.
pub(super) fn keys() -> mpsc::UnboundedReceiver<Key> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok(read @ 1..) = io::stdin().read(&mut bytes) {
            for key in pressed(&bytes[..read]) {
                if sender.send(key).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// The keys in what was read at once. Escape alone quits; with something behind it, it is an arrow or the like.
fn pressed(mut bytes: &[u8]) -> Vec<Key> {
    let key = |byte: &u8| match byte {
        // Ctrl-C, Ctrl-D, Escape.
        b'q' | b'Q' | 0x03 | 0x04 | 0x1b => Some(Key::Quit),
        b'p' | b'P' | b' ' => Some(Key::Pause),
        b'+' | b'=' => Some(Key::Slower),
        b'-' | b'_' => Some(Key::Faster),
        b'h' | b'H' | b'?' => Some(Key::Help),
        b'1' => Some(Key::Span(10)),
        b'2' => Some(Key::Span(60)),
        b'3' => Some(Key::Span(1440)),
        _ => None,
    };
    let mut keys = Vec::new();
    while let Some((first, rest)) = bytes.split_first() {
        bytes = match (first, rest) {
            // Up to and with its final byte.
            (0x1b, [b'[', sequence @ ..]) => {
                let end = sequence.iter().position(|byte| (0x40..=0x7e).contains(byte));
                end.map_or(&[][..], |end| &sequence[end + 1..])
            }
            (0x1b, [b'O', _, rest @ ..] | [_, rest @ ..]) => rest,
            _ => {
                keys.extend(key(first));
                rest
            }
        };
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_alone_quits_and_an_arrow_does_not() {
        assert_eq!(pressed(b"\x1b"), [Key::Quit]);
        assert_eq!(pressed(b"\x1b[A\x1bOB\x1b[1;5Dp\x1b["), [Key::Pause]);
        assert_eq!(pressed(b"\x03"), [Key::Quit]);
        assert_eq!(pressed(b"p2x?"), [Key::Pause, Key::Span(60), Key::Help]);
    }
}
