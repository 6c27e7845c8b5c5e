//! Text that others wrote, as a terminal may see it.

use std::borrow::Cow;

/// The text without anything that a terminal would obey.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use crate::cli::plain::plain;

    #[test]
    fn a_terminal_obeys_nothing_of_it() {
        assert_eq!(plain("größe 24.04"), "größe 24.04");
        assert_eq!(plain("\u{1b}[31mred\nline"), "\\u{1b}[31mred\\nline");
    }
}
