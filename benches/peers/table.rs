//! What was measured, beside what is to be reached.

use std::path::Path;

use serde_json::{Value, json};

/// How a figure stands to what is to be reached.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// It is shown, and nothing was promised of it.
    None,
}

#[derive(Debug)]
struct Row {
    work: String,
    figure: String,
    value: f64,
    goal: Goal,
    /// The measurements that it was made of.
    of: Value,
}

impl Row {
    /// What is to be reached, and whether it is.
    fn verdict(&self) -> (String, &'static str) {
        let said = |is_reached| if is_reached { "reached" } else { "MISSED" };
        match self.goal {
            Goal::AtLeast(least) => (format!(">= {least}"), said(self.value >= least)),
            Goal::AtMost(most) => (format!("<= {most}"), said(self.value <= most)),
            Goal::None => (String::new(), ""),
        }
    }
}

/// All figures.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

impl Table {
    pub fn add(&mut self, work: &str, figure: &str, value: f64, goal: Goal, of: Value) {
        self.0.push(Row { work: work.to_owned(), figure: figure.to_owned(), value, goal, of });
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of it for people: one line for each figure, and each work named once.
    pub fn markdown(&self) -> String {
        let mut text = "| work | figure | measured | to reach | |\n|---|---|---:|---|---|\n".to_owned();
        let mut last = "";
        for row in &self.0 {
            let work = if row.work == last { "" } else { &row.work };
            let (wanted, verdict) = row.verdict();
            text += &format!("| {work} | {} | {:.3} | {wanted} | {verdict} |\n", row.figure, row.value);
            last = &row.work;
        }
        text
    }

    /// Prints the rows that came after the first `before`.
    pub fn print_since(&self, before: usize) {
        if before == 0 {
            println!("{:<44} {:<44} {:>10}   {:<10}", "work", "figure", "measured", "to reach");
        }
        for row in &self.0[before..] {
            let (Row { work, figure, value, .. }, (wanted, verdict)) = (row, row.verdict());
            println!("{work:<44} {figure:<44} {value:>10.3}   {wanted:<10} {verdict}");
        }
    }

    /// Writes everything down.
    pub fn write(&self, path: &Path) {
        let rows: Vec<Value> = self
            .0
            .iter()
            .map(|row| {
                let (least, most) = match row.goal {
                    Goal::AtLeast(least) => (Some(least), None),
                    Goal::AtMost(most) => (None, Some(most)),
                    Goal::None => (None, None),
                };
                json!({"work": row.work, "figure": row.figure, "value": row.value, "at_least": least, "at_most": most, "of": row.of})
            })
            .collect();
        std::fs::write(path, serde_json::to_vec_pretty(&rows).expect("numbers serialize")).expect("target is there");
    }
}
