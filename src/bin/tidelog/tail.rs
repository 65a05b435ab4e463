use std::thread;
use std::time::Duration;

use clap::Args;
use tidelog::{Entry, SessionId};

use crate::context::Context;
use crate::entry_line;
use crate::error::CliError;
use crate::followed::Followed;
use crate::output::{Output, remark};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// New segments and the session's end are looked for once in so many polls.
const POLLS_BETWEEN_LOOKS: u32 = 5;

/// Show the last entries of a session, and follow it while it is written.
///
/// Each entry is one line: records, emergencies, checkpoints, starts and ends. With --follow the
/// command goes on until no process writes the session any more. With --json each line is the
/// entry as it stands in the journal.
#[derive(Args)]
pub(crate) struct Tail {
    /// The session, as `tidelog sessions` lists it
    #[arg(value_name = "ID")]
    session: SessionId,
    /// How many entries of the past are shown
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    lines: u32,
    /// Go on with new entries until the session has ended
    #[arg(short, long)]
    follow: bool,
}

impl Tail {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let store = context.open()?;
        let mut followed = Followed::new(&store, &self.session);
        let past = followed.past(usize::try_from(self.lines).unwrap_or(usize::MAX))?;
        for entry in &past {
            print(entry, context, output)?;
        }
        output.flush()?;
        if self.follow { follow(&mut followed, context, output) } else { Ok(()) }
    }
}

fn follow(
    followed: &mut Followed<'_>,
    context: &Context,
    output: &mut Output,
) -> Result<(), CliError> {
    loop {
        // asked first: what a writer wrote before it went is found by the reading below
        let written = followed.is_written()?;
        followed.find_new_segments()?;
        for _ in 0..POLLS_BETWEEN_LOOKS {
            followed.new_entries(|entry| print(entry, context, output))?;
            output.flush()?;
            if !written {
                remark("no process writes the session any more");
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

fn print(entry: &Entry, context: &Context, output: &mut Output) -> Result<(), CliError> {
    match context.json {
        true => Ok(output.json_line(entry)?),
        false => Ok(output.line(entry_line::line(entry))?),
    }
}
