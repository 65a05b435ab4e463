//! `tidelog-sync quarantine`

use std::io::{self, Write};

use clap::{Args, Subcommand};
use tidelog::{SegmentId, StoreId};
use tidelog_sync::{Quarantine as Lines, QuarantinedLine, Retried, Selection};
use uuid::Uuid;

use super::{DatabaseArgs, Failure, print, print_json, say};

/// Lines that PostgreSQL refused, or could not hold exactly: list, show, retry, drop
///
/// They are whole in the database, of every store, so this needs no store and may run anywhere.
#[derive(Debug, Args)]
pub(super) struct Quarantine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Retry(Retry),
    Drop(Drop),
}

/// Lists the lines, by segment and line
#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    which: Which,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Write one JSON array, whose fields are listed in the README of tidelog-sync
    #[arg(long)]
    json: bool,
}

/// Shows one line and why it is here
#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    place: Place,
    /// Write the exact bytes of the line and nothing else, without a newline
    #[arg(long)]
    raw: bool,
}

/// Tries lines again, as the database takes them now; what is written leaves the quarantine
#[derive(Debug, Args)]
struct Retry {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    chosen: Chosen,
    /// Write one JSON object: applied, beside, refused
    #[arg(long)]
    json: bool,
}

/// Lets go of lines for good; their files are not touched
#[derive(Debug, Args)]
struct Drop {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    chosen: Chosen,
    /// Do it; without, it only tells how many lines it would be
    #[arg(long)]
    yes: bool,
}

/// Conditions, all of which hold.
#[derive(Debug, Args)]
struct Which {
    /// Lines of this store, by its id
    #[arg(long, value_name = "ID")]
    store_id: Option<Uuid>,
    /// Lines of this segment
    #[arg(long = "segment", value_name = "ID")]
    of_segment: Option<Uuid>,
    /// Lines whose reason holds this text, or that have this SQLSTATE
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// One line.
#[derive(Debug, Args)]
struct Place {
    /// Id of the segment
    #[arg(value_name = "SEGMENT")]
    segment: Uuid,
    /// Number of the line in its file
    #[arg(value_name = "LINE")]
    line: u32,
}

/// One line, or all that meet the conditions.
#[derive(Debug, Args)]
struct Chosen {
    /// Id of the segment
    #[arg(value_name = "SEGMENT", requires = "line", required_unless_present = "all")]
    segment: Option<Uuid>,
    /// Number of the line in its file
    #[arg(value_name = "LINE")]
    line: Option<u32>,
    /// All lines that meet the conditions
    #[arg(long, conflicts_with = "segment")]
    all: bool,
    #[command(flatten)]
    which: Which,
}

impl Which {
    fn selection(&self) -> Selection {
        Selection {
            store: self.store_id.map(StoreId::from),
            segment: self.of_segment.map(SegmentId::from),
            line: None,
            reason: self.reason.clone(),
        }
    }
}

impl Place {
    fn selection(&self) -> Selection {
        let (segment, line) = (Some(SegmentId::from(self.segment)), Some(self.line));
        Selection { segment, line, ..Selection::default() }
    }
}

impl Chosen {
    fn selection(&self) -> Selection {
        match (self.segment, self.line) {
            (Some(segment), Some(line)) => Selection {
                segment: Some(segment.into()),
                line: Some(line),
                ..self.which.selection()
            },
            _ => self.which.selection(),
        }
    }

    /// One line that was named and is not there is a mistake; no line of many is none.
    fn check_found(&self, found: u64) -> Result<(), Failure> {
        match (self.segment, self.line) {
            (Some(segment), Some(line)) if found == 0 => {
                Err(Failure::NotQuarantined { segment, line })
            }
            _ => Ok(()),
        }
    }
}

impl Quarantine {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match &self.command {
            Command::List(command) => command.run(),
            Command::Show(command) => command.run(),
            Command::Retry(command) => command.run(),
            Command::Drop(command) => command.run(),
        }
    }
}

impl List {
    fn run(&self) -> Result<(), Failure> {
        let mut lines = Lines::connect(&self.database.target()?)?;
        let selection = self.which.selection();
        let found = lines.list(&selection, self.limit)?;
        if self.json {
            return print_json(&found);
        }
        if !found.is_empty() {
            print(&columns("segment", "line", "state", "file", "reason"))?;
        }
        for line in &found {
            print(&row(line))?;
        }
        if i64::try_from(found.len()).unwrap_or(i64::MAX) == self.limit {
            let all = lines.count(&selection)?;
            say(&format!("{} of {all} lines; --limit shows more", found.len()));
        }
        Ok(())
    }
}

/// A line of the table, whose first two words are what the other commands ask for.
fn row(line: &QuarantinedLine) -> String {
    let (segment, number) = (line.segment_id.to_string(), line.line.to_string());
    let sqlstate = line.sqlstate.as_deref().unwrap_or("-");
    columns(&segment, &number, sqlstate, &printable(&line.file), &printable(&line.reason))
}

fn columns(segment: &str, number: &str, sqlstate: &str, file: &str, reason: &str) -> String {
    format!("{segment:<36}  {number:<10}  {sqlstate:<5}  {file:<30}  {reason}")
}

impl Show {
    fn run(&self) -> Result<(), Failure> {
        let mut lines = Lines::connect(&self.database.target()?)?;
        let Place { segment, line } = self.place;
        let missing = Failure::NotQuarantined { segment, line };
        let Some(found) = lines.list(&self.place.selection(), 1)?.pop() else {
            return Err(missing);
        };
        let Some(raw) = lines.raw(segment.into(), line)? else { return Err(missing) };
        if i64::from(found.bytes_kept) < found.bytes {
            say(&format!("only the first {} of {} bytes are kept", found.bytes_kept, found.bytes));
        }
        if self.raw {
            let mut out = io::stdout().lock();
            return out.write_all(&raw).and_then(|()| out.flush()).map_err(Failure::Output);
        }
        for field in fields(&found) {
            print(&field)?;
        }
        print(&format!("line      {}", printable(&String::from_utf8_lossy(&raw))))
    }
}

fn fields(line: &QuarantinedLine) -> Vec<String> {
    vec![
        format!("store     {}", line.store_id),
        format!("segment   {} ({})", line.segment_id, printable(&line.file)),
        format!("number    {}", line.line),
        format!("session   {}", line.session_id.as_deref().unwrap_or("-")),
        format!("sqlstate  {}", line.sqlstate.as_deref().unwrap_or("-")),
        format!("reason    {}", printable(&line.reason)),
        format!("bytes     {}", line.bytes),
        format!("sha256    {}", line.sha256),
        format!("attempts  {}", line.attempts),
        format!("seen      {} to {}", line.first_seen, line.last_seen),
        format!("agent     {}", line.agent_version.as_deref().unwrap_or("-")),
    ]
}

impl Retry {
    fn run(&self) -> Result<(), Failure> {
        let mut lines = Lines::connect(&self.database.target()?)?;
        let retried = lines.retry(&self.chosen.selection())?;
        let Retried { applied, beside, refused } = retried;
        self.chosen.check_found(applied + beside + refused)?;
        match self.json {
            true => print_json(&retried)?,
            false => print(&format!(
                "{applied} lines applied, {beside} have their rows and stay beside them, {refused} \
                 still refused"
            ))?,
        }
        if refused > 0 { Err(Failure::StillRefused(refused)) } else { Ok(()) }
    }
}

impl Drop {
    fn run(&self) -> Result<(), Failure> {
        let selection = self.chosen.selection();
        if self.chosen.all && selection == Selection::default() {
            return Err(Failure::DropsEverything);
        }
        let mut lines = Lines::connect(&self.database.target()?)?;
        if !self.yes {
            let count = lines.count(&selection)?;
            self.chosen.check_found(count.unsigned_abs())?;
            return Err(Failure::Unconfirmed(format!("{count} lines would be dropped for good")));
        }
        let dropped = lines.drop_lines(&selection)?;
        self.chosen.check_found(dropped)?;
        print(&format!("{dropped} lines dropped"))
    }
}

/// Text that cannot drive the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
