//! How figures are drawn: in a terminal of any size, and as plain text.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Row, Table, Widget};

use super::figures::{BackendFigures, Figures, FoundFigures, LATENCIES, OUTCOMES};

/// The width of plain text.
const PLAIN_WIDTH: u16 = 100;
/// Below this width or height one pane at a time is shown.
const SMALL: (u16, u16) = (70, 16);
/// What stands between two words of the head.
const GAP: usize = 2;
const KEYS: &str = "q quit  Tab next  ↑↓ scroll";
/// Backends, who asks most, who is refused most.
const PANES: usize = 3;

/// What is shown.
pub(super) struct Screen {
    /// Where the API is.
    place: String,
    figures: Figures,
    /// Why there are no newer ones.
    trouble: Option<String>,
    /// The pane that scrolls.
    focus: usize,
    /// The first row of each that is shown.
    first: [usize; PANES],
}

impl Screen {
    pub(super) fn new(place: String, figures: Figures) -> Self {
        Screen { place, figures, trouble: None, focus: 0, first: [0; PANES] }
    }

    /// Shows what was found from now on; where nothing was, what was known last, and why.
    pub(super) fn take(&mut self, found: FoundFigures) {
        match found {
            Ok(figures) => (self.figures, self.trouble) = (figures, None),
            Err(trouble) => self.trouble = Some(trouble.lines().next().unwrap_or_default().to_owned()),
        }
        self.scroll(0);
    }

    /// Turns to the pane so many further.
    pub(super) fn turn(&mut self, by: usize) {
        self.focus = (self.focus + by) % PANES;
    }

    /// Scrolls that pane.
    pub(super) fn scroll(&mut self, by: isize) {
        for pane in 0..PANES {
            let last = self.rows(pane).saturating_sub(1);
            let by = if pane == self.focus { by } else { 0 };
            self.first[pane] = self.first[pane].saturating_add_signed(by).min(last);
        }
    }

    fn rows(&self, pane: usize) -> usize {
        match pane {
            0 => self.figures.backends.len(),
            by => self.figures.callers[by - 1].len(),
        }
    }

    /// All of it, as text without colours.
    pub(super) fn plain(&self) -> String {
        let head = self.head(PLAIN_WIDTH);
        let height = head.len() + (0..PANES).map(|pane| self.rows(pane) + 3).sum::<usize>();
        let area = Rect::new(0, 0, PLAIN_WIDTH, u16::try_from(height).unwrap_or(u16::MAX));
        let mut buffer = Buffer::empty(area);
        let mut top = draw_lines(head, area, &mut buffer);
        for pane in 0..PANES {
            let height = u16::try_from(self.rows(pane) + 2).unwrap_or(u16::MAX);
            self.draw_pane(pane, Rect { y: top, height, ..area }.intersection(area), &mut buffer);
            top = top.saturating_add(height + 1);
        }
        let rows = buffer.content.chunks(usize::from(PLAIN_WIDTH));
        let lines = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        let text = lines.map(|line| line.trim_end().to_owned() + "\n").collect::<String>();
        format!("{}\n", text.trim_end())
    }

    /// Draws it into this much of a terminal.
    pub(super) fn draw(&self, area: Rect, buffer: &mut Buffer) {
        let top = draw_lines(self.head(area.width), area, buffer);
        let height = area.bottom().saturating_sub(top).saturating_sub(1);
        let body = Rect { y: top, height, ..area }.intersection(area);
        if area.width < SMALL.0 || area.height < SMALL.1 {
            self.draw_pane(self.focus, body, buffer);
        } else {
            // As many rows as there are backends, but no more than half.
            let wanted = u16::try_from(self.figures.backends.len() + 2).unwrap_or(u16::MAX).min(body.height / 2);
            let [backends, callers] = Layout::vertical([Constraint::Length(wanted), Constraint::Min(0)]).areas(body);
            let [asks, limited] = Layout::horizontal([Constraint::Fill(1); 2]).spacing(2).areas(callers);
            for (pane, area) in [backends, asks, limited].into_iter().enumerate() {
                self.draw_pane(pane, area, buffer);
            }
        }
        if area.height > 3 {
            let foot = Rect { y: area.bottom() - 1, height: 1, ..area };
            Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM)).render(foot, buffer);
        }
    }

    /// The lines at the top, in so much width.
    fn head(&self, width: u16) -> Vec<Line<'static>> {
        let figures = &self.figures;
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let all: u64 = figures.answers.iter().sum();
        let mut lines = flowed(vec![(figures.process.clone(), bold), (self.place.clone(), Style::new())], width);
        if let Some(trouble) = &self.trouble {
            let told = format!("no answer, asked again every second: {trouble}");
            lines.push(Line::styled(told, Style::new().fg(Color::Red)));
        }
        let colours = [Color::Green, Color::Cyan, Color::Yellow, Color::Magenta, Color::Red, Color::Gray];
        let mut words = vec![(format!("requests/s {all}"), bold)];
        words.extend(OUTCOMES.iter().zip(figures.answers).zip(colours).map(|((name, count), colour)| {
            let style = if count > 0 { Style::new().fg(colour) } else { Style::new() };
            (format!("{name} {count}"), style)
        }));
        lines.extend(flowed(words, width));
        let latency =
            |(name, ms): (&&str, Option<f64>)| ms.map_or(format!("{name} -"), |ms| format!("{name} {ms:.1}ms"));
        let now = ["connections", "in flight", "buckets"].iter().zip(figures.now);
        let mut words: Vec<_> = LATENCIES.iter().zip(figures.latencies).map(latency).collect();
        words.extend(now.map(|(name, count)| format!("{name} {count}")));
        lines.extend(flowed(words.into_iter().map(|word| (word, Style::new())).collect(), width));
        lines
    }

    fn draw_pane(&self, pane: usize, area: Rect, buffer: &mut Buffer) {
        let by = |what: &str| format!(" {what}, last {} s ", self.figures.seconds);
        let title = match pane {
            0 => " backends ".to_owned(),
            1 => by("top talkers"),
            _ => by("most limited"),
        };
        let style = if pane == self.focus { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        let block = Block::new().borders(Borders::TOP).title(Line::styled(title, style));
        let narrow = area.width < SMALL.0;
        let (names, widths): (&[&str], &[Constraint]) = match (pane, narrow) {
            (0, false) => (
                &["pool", "backend", "state", "in flight", "requests/s", "failures"],
                &[
                    Constraint::Max(12),
                    Constraint::Fill(1),
                    Constraint::Length(8),
                    Constraint::Length(9),
                    Constraint::Length(10),
                    Constraint::Length(8),
                ],
            ),
            (0, true) => {
                (&["backend", "state", "req/s"], &[Constraint::Fill(1), Constraint::Length(8), Constraint::Length(8)])
            }
            _ => (
                &["caller", "requests", "limited"],
                &[Constraint::Fill(1), Constraint::Length(9), Constraint::Length(9)],
            ),
        };
        let header = Row::new(names.iter().copied()).style(Style::new().add_modifier(Modifier::DIM));
        let rows = match pane {
            0 => self.backend_rows(narrow),
            by => self.caller_rows(by - 1),
        };
        let rows = rows.into_iter().skip(self.first[pane]).take(usize::from(area.height));
        Widget::render(Table::new(rows, widths.iter().copied()).header(header).block(block), area, buffer);
    }

    fn backend_rows(&self, narrow: bool) -> Vec<Row<'static>> {
        let row = |backend: &BackendFigures| {
            let colour = match backend.state.as_str() {
                "up" => Color::Green,
                "down" | "ejected" => Color::Red,
                _ => Color::Yellow,
            };
            let state = Span::styled(backend.state.clone(), Style::new().fg(colour));
            let rate = Span::raw(backend.rate.map_or("-".to_owned(), |rate| format!("{rate:.0}")));
            let address = Span::raw(backend.address.clone());
            Row::new(match narrow {
                true => vec![address, state, rate],
                false => {
                    let [pool, in_flight, failures] =
                        [backend.pool.clone(), backend.in_flight.to_string(), backend.failures.to_string()]
                            .map(Span::raw);
                    vec![pool, address, state, in_flight, rate, failures]
                }
            })
        };
        self.figures.backends.iter().map(row).collect()
    }

    fn caller_rows(&self, by: usize) -> Vec<Row<'static>> {
        let callers = self.figures.callers[by].iter();
        callers.map(|one| Row::new([one.name.clone(), one.requests.to_string(), one.limited.to_string()])).collect()
    }
}

/// Draws lines from the top of `area` on; where they end.
fn draw_lines(lines: Vec<Line<'static>>, area: Rect, buffer: &mut Buffer) -> u16 {
    let mut top = area.y;
    for line in lines {
        if top < area.bottom() {
            line.render(Rect { y: top, height: 1, ..area }, buffer);
            top += 1;
        }
    }
    top
}

/// Words in lines of so much width.
fn flowed(words: Vec<(String, Style)>, width: u16) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (word, style) in words {
        let span = Span::styled(word, style);
        match lines.last_mut() {
            Some(line) if line.width() + GAP + span.width() <= usize::from(width) => {
                line.push_span("  ");
                line.push_span(span);
            }
            _ => lines.push(Line::from(span)),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
