//! Prints lists as tables, for people.

use crate::output::plain;

/// Puts rows under headings; columns are as wide as their widest cell. Without rows, the result is only
/// `none`.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]], none: &str) -> String {
    if rows.is_empty() {
        return format!("{none}\n");
    }
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| plain(cell))).collect();
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&headings.map(String::from), &widths);
    rows.iter().for_each(|row| text.push_str(&line(row, &widths)));
    text
}

fn line<const N: usize>(cells: &[String; N], widths: &[usize; N]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(&format!("{cell:width$}  "));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The first digits of an id, enough of them to tell a few thousand ids apart.
pub(super) fn short(id: &str) -> String {
    id.chars().take(SHORT_DIGITS).collect()
}

const SHORT_DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".into(), "long one".into()], ["meter-17".into(), String::new()]];
        assert_eq!(
            table(["DEVICE", "STATE"], &rows, "none"),
            "DEVICE    STATE\na         long one\nmeter-17\n"
        );
        assert_eq!(table(["DEVICE"], &[], "no devices"), "no devices\n");
    }

    #[test]
    fn cells_cannot_break_the_table() {
        let rows = [["a\nb".into(), "\u{1b}[2J".into()]];
        assert_eq!(table(["X", "Y"], &rows, ""), "X        Y\na\\u{a}b  \\u{1b}[2J\n");
    }
}
