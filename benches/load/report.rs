//! What was measured: samples by work, who did it and figure; medians with their spread, as Markdown.

use std::collections::BTreeMap;

struct Sample {
    work: String,
    who: String,
    figure: &'static str,
    value: f64,
    round: u32,
}

#[derive(Default)]
pub struct Report {
    samples: Vec<Sample>,
    notes: Vec<(String, String)>,
    pub round: u32,
}

impl Report {
    pub fn add(&mut self, work: &str, who: &str, figure: &'static str, value: f64) {
        eprintln!("  {who}: {figure} {}", number(value));
        self.samples.push(Sample {
            work: work.to_owned(),
            who: who.to_owned(),
            figure,
            value,
            round: self.round,
        });
    }

    /// Something to be said below a work's table.
    pub fn note(&mut self, work: &str, text: String) {
        eprintln!("  {text}");
        self.notes.push((work.to_owned(), text));
    }

    fn values(&self, work: &str, who: &str, figure: &str) -> BTreeMap<u32, f64> {
        let mine = self.samples.iter().filter(|s| s.work == work && s.who == who && s.figure == figure);
        mine.map(|sample| (sample.round, sample.value)).collect()
    }

    /// How many times `other` a figure of `who` is: the median of the rounds' ratios, since a round is one moment of
    /// the machine.
    fn ratio(&self, work: &str, who: &str, other: &str, figure: &str) -> Option<f64> {
        let (mine, theirs) = (self.values(work, who, figure), self.values(work, other, figure));
        let ratios = mine.iter().filter_map(|(round, value)| Some(value / theirs.get(round)?));
        median(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// Everything, a table for each work: `median (least to greatest)`, and ours as a multiple of each other's.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for work in unique(self.samples.iter().map(|sample| sample.work.as_str())) {
            let of_work = || self.samples.iter().filter(|sample| sample.work == work);
            let figures = unique(of_work().map(|sample| sample.figure));
            text += &format!("\n### {work}\n\n| |");
            for figure in &figures {
                text += &format!(" {figure} |");
            }
            text += &format!("\n|---|{}\n", "---|".repeat(figures.len()));
            for who in unique(of_work().map(|sample| sample.who.as_str())) {
                text += &format!("| {who} |");
                for figure in &figures {
                    text += &format!(" {} |", self.cell(work, who, figure));
                }
                text.push('\n');
            }
            for (_, note) in self.notes.iter().filter(|(of, _)| *of == work) {
                text += &format!("\n{note}\n");
            }
        }
        text
    }

    fn cell(&self, work: &str, who: &str, figure: &str) -> String {
        let values = self.values(work, who, figure);
        let Some(middle) = median(values.values().copied().collect()) else { return String::new() };
        let least = values.values().copied().fold(f64::INFINITY, f64::min);
        let greatest = values.values().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut cell = number(middle);
        if values.len() > 1 {
            cell += &format!(" ({} to {})", number(least), number(greatest));
        }
        if who != WALCAST
            && let Some(ratio) = self.ratio(work, WALCAST, who, figure)
        {
            cell += &format!("; walcast {ratio:.2} of it");
        }
        cell
    }
}

/// Our own name in every table.
pub const WALCAST: &str = "walcast";

fn unique<'a, T: PartialEq + ?Sized + 'a>(items: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    Some(if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    })
}

/// Three digits that matter, thousands apart.
pub fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
