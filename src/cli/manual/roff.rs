//! The language of manual pages (`man(7)`), as much of it as our pages need.
//!
//! What is written must look the same with groff and with mandoc, and must be what stands in a terminal when it is
//! copied from there: `--flag` with two plain dashes. So all text goes through [`Page::text`] (prose, with code between
//! backticks) or [`code`]; nothing else may put words on a page.

use std::fmt::Write;

/// Columns after which source lines are broken; only for whoever reads the source.
const WIDTH: usize = 78;

/// A page that is being written, and whether its last line is the title of a section: that begins a paragraph already.
pub(super) struct Page(String, bool);

impl Page {
    /// Begins a page of a section of the manual.
    pub(super) fn begin(name: &str, section: u8, (version, date): (&str, &str)) -> Page {
        let mut page = Page(String::new(), false);
        page.line(".\\\" Made by `pinfold man` from the program's own tables; a test keeps it true.");
        let title = code(&name.to_uppercase());
        page.line(&format!(".TH {title} {section} {date} \"pinfold {version}\" \"pinfold manual\""));
        // Words to be typed must not be hyphenated, nor spread over the line.
        page.line(".nh");
        page.line(".ad l");
        page
    }

    /// The page.
    pub(super) fn end(self) -> String {
        self.0
    }

    /// A section.
    pub(super) fn section(&mut self, title: &str) {
        self.line(&format!(".SH \"{}\"", code(title)));
        self.1 = true;
    }

    /// A section of a section.
    pub(super) fn sub(&mut self, title: &str) {
        self.line(&format!(".SS \"{}\"", code(title)));
        self.1 = true;
    }

    /// A paragraph of prose.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.begin_paragraph();
        self.text(text);
    }

    /// A term with what it means; the term is roff, made of [`code`], [`bold`] and [`italic`].
    pub(super) fn term(&mut self, term: &str, text: &str) {
        self.line(".TP");
        self.line(term);
        self.text(text);
    }

    /// Further prose of a term.
    pub(super) fn further(&mut self, text: &str) {
        self.line(".br");
        self.text(text);
    }

    /// One line of roff, made of [`code`], [`bold`] and [`italic`], in a paragraph of its own.
    pub(super) fn alone(&mut self, roff: &str) {
        self.begin_paragraph();
        self.line(roff);
    }

    /// Lines that stay as they are.
    pub(super) fn example(&mut self, lines: &str) {
        self.begin_paragraph();
        self.line(".in +4n");
        self.line(".nf");
        for line in lines.lines() {
            self.line(&guard(&code(line)));
        }
        self.line(".fi");
        self.line(".in");
    }

    /// Prose, with code between backticks.
    pub(super) fn text(&mut self, text: &str) {
        let mut line = String::new();
        let mut columns = 0;
        for word in prose(text).split(' ').filter(|word| !word.is_empty()) {
            if columns > 0 && columns + 1 + word.len() > WIDTH {
                self.line(&guard(&line));
                (line, columns) = (String::new(), 0);
            }
            if columns > 0 {
                line.push(' ');
            }
            line.push_str(word);
            columns = line.len();
        }
        if columns > 0 {
            self.line(&guard(&line));
        }
    }

    fn begin_paragraph(&mut self) {
        if !self.1 {
            self.line(".PP");
        }
    }

    fn line(&mut self, line: &str) {
        self.1 = false;
        let _ = writeln!(self.0, "{line}");
    }
}

/// A dot or a quote at the beginning of a line would be a command.
fn guard(line: &str) -> String {
    match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    }
}

/// Prose: what is between backticks is bold and can be copied. A space inside of code stays one word's space for the
/// breaking of lines, which roff undoes anyway.
fn prose(text: &str) -> String {
    let mut out = String::new();
    for (n, part) in text.split('`').enumerate() {
        match n % 2 {
            0 => out.push_str(&plain(part)),
            _ => out.push_str(&bold(part)),
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Words of prose: a dash may become a real hyphen, a quote a curled one. Flags are found by their two dashes.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut last = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        // `--flag`, `-1`: a dash that begins a word is one to be typed.
        let begins = !last.is_alphanumeric();
        match c {
            '-' if begins || rest.peek() == Some(&'-') => out.push_str("\\-"),
            '\'' => out.push('\''),
            c => push(&mut out, c),
        }
        last = c;
    }
    out
}

/// Something to be typed: every character stays what it is.
pub(super) fn code(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            // A long list may go on in the next line.
            ',' => out.push_str(",\\:"),
            c => push(&mut out, c),
        }
    }
    out
}

/// Code that is to be typed as it is.
pub(super) fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", code(text))
}

/// A place for something of the reader's.
pub(super) fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", code(text))
}

/// What has a meaning for roff wherever it stands, and what is not ASCII.
fn push(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\(rs"),
        '"' => out.push_str("\\(dq"),
        '\n' => out.push(' '),
        '`' => out.push_str("\\(ga"),
        '^' => out.push_str("\\(ha"),
        '~' => out.push_str("\\(ti"),
        c if c.is_ascii() => out.push(c),
        c => {
            let _ = write!(out, "\\[u{:04X}]", u32::from(c));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_a_command_of_roff_is_text() {
        assert_eq!(code(r"a\b -c 'd' ~/.x"), r"a\(rsb \-c \(aqd\(aq \(ti/.x");
        assert_eq!(
            prose("say `x -y` or --z, -1, a-b \"q\" …"),
            "say \\fBx \\-y\\fR or \\-\\-z, \\-1, a-b \\(dqq\\(dq \\[u2026]"
        );
        let mut page = Page(String::new(), false);
        page.text(".SH is no title, and 'tis no comment");
        page.example(".PP\n'quoted'");
        assert_eq!(
            page.end(),
            "\\&.SH is no title, and 'tis no comment\n.PP\n.in +4n\n.nf\n\\&.PP\n\\(aqquoted\\(aq\n.fi\n.in\n"
        );
    }

    #[test]
    fn a_line_that_is_broken_before_a_dot_does_not_begin_with_it() {
        let mut page = Page(String::new(), false);
        page.text(&format!("{} .gone", "word ".repeat(WIDTH / 5)));
        let text = page.end();
        assert!(text.lines().all(|line| line.len() <= WIDTH + 2 && !line.starts_with('.')), "{text}");
        assert!(text.contains("\\&.gone"), "{text}");
    }
}
