use clap::Args;
use tidelog::SessionRow;

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::table::{self, Side};
use crate::text;

/// List the sessions, newest first.
#[derive(Args)]
pub(crate) struct Sessions {}

impl Sessions {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let sessions = context.open_snapshot()?.sessions()?;
        if context.json {
            return Ok(output.json(&sessions)?);
        }
        let headings = [
            ("session", Side::Left),
            ("status", Side::Left),
            ("started", Side::Left),
            ("ended", Side::Left),
            ("attempts", Side::Right),
            ("records", Side::Right),
            ("avg phi", Side::Right),
            ("max phi", Side::Right),
            ("emergencies", Side::Right),
        ];
        Ok(output.lines(table::lines(&headings, sessions.iter().map(cells).collect()))?)
    }
}

fn cells(session: &SessionRow) -> Vec<String> {
    vec![
        session.session_id.to_string(),
        session.status.clone(),
        text::optional(session.started_at.map(text::time)),
        text::optional(session.ended_at.map(text::time)),
        session.attempts.to_string(),
        session.total_steps.to_string(),
        text::number(session.avg_phi),
        text::number(session.max_phi),
        session.emergency_count.to_string(),
    ]
}
