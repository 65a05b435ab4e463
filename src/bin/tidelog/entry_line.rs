//! One entry in one line, for people.

use tidelog::{Action, Body, Emergency, Entry, Outcome, Telemetry, Value};

use crate::text;

/// How much of a free text is shown.
const TEXT_CHARS_MAX: usize = 80;

/// Time, then what happened.
pub(crate) fn line(entry: &Entry) -> String {
    let time = entry.timestamp.to_jiff().strftime("%Y-%m-%d %H:%M:%S%.3fZ");
    format!("{time}  {}", what(&entry.body))
}

fn what(body: &Body) -> String {
    match body {
        Body::Record(record) => format!("step {}{}", record.step, fields(&record.telemetry)),
        Body::SessionStarted(started) => format!("session started, attempt {}", started.attempt),
        Body::SessionEnded(ended) => {
            let word = ended.outcome.as_str();
            let reason = ended.reason.as_deref().map_or(String::new(), |why| format!(": {why}"));
            let is_fine = matches!(ended.outcome, Outcome::Completed | Outcome::Continued);
            let mark = if is_fine { "" } else { "!! " };
            format!("{mark}session {word}{}", shown(&reason))
        }
        Body::Emergency(emergency) => emergency_text(emergency),
        Body::Basin(point) => {
            format!("basin point{}{}", step(point.step), number("phi", point.phi))
        }
        Body::CheckpointCreated(created) => format!(
            "checkpoint {}{}{}  {}",
            created.checkpoint_id,
            step(created.step),
            number("phi", created.phi),
            text::bytes(created.size_bytes)
        ),
        Body::Checkpoint(action) => {
            let word = match action.action {
                Action::Ranked => "is the best so far",
                other => other.as_str(),
            };
            format!("checkpoint {} {word}", action.checkpoint_id)
        }
        Body::Gap(gap) => {
            let steps = match (gap.first_step, gap.last_step) {
                (Some(first), Some(last)) => format!(", steps {first}–{last}"),
                _ => String::new(),
            };
            format!("!! gap of {} records{steps}: {}", gap.records, shown(&gap.reason))
        }
        Body::SessionDeleted { session_id } => format!("session {session_id} deleted"),
        Body::Unknown { event } => format!("{} (of a newer tidelog)", shown(event)),
        _ => "an entry of a newer tidelog".into(),
    }
}

fn emergency_text(emergency: &Emergency) -> String {
    let metric = emergency.metric.as_deref().unwrap_or("value");
    format!(
        "!! {} emergency{}: {}{}{}",
        shown(&emergency.severity),
        step(emergency.step),
        shown(&emergency.reason),
        number(&shown(metric), emergency.value),
        number("threshold", emergency.threshold)
    )
}

fn fields(telemetry: &Telemetry) -> String {
    let mut line = number("phi", telemetry.phi) + &number("kappa", telemetry.kappa_eff);
    if let Some(regime) = &telemetry.regime {
        line.push_str(&format!("  {}", shown(regime)));
    }
    line.push_str(&number("basin", telemetry.basin_distance));
    for (name, value) in &telemetry.extra {
        match value {
            Value::Float(measured) => line.push_str(&number(&shown(name), Some(*measured))),
            Value::Int(counted) => line.push_str(&format!("  {} {counted}", shown(name))),
            _ => {} // not a number, and perhaps long
        }
    }
    if telemetry.emergency == Some(true) {
        line.push_str("  !!");
    }
    line
}

fn step(step: Option<i64>) -> String {
    step.map_or(String::new(), |step| format!(" at step {step}"))
}

fn number(name: &str, value: Option<f64>) -> String {
    value.map_or(String::new(), |_| format!("  {name} {}", text::number(value)))
}

fn shown(free: &str) -> String {
    text::cut(&text::clean(free), TEXT_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_with_its_numbers() {
        let telemetry =
            Telemetry { phi: Some(0.72), regime: Some("a\nb".into()), ..Telemetry::default() }
                .with("loss", 0.31);
        let body = Body::Record(tidelog::Record { step: 42, telemetry });
        let timestamp = "2026-01-05T09:30:00.1234Z".parse().unwrap();
        let text = line(&Entry { timestamp, body });
        assert_eq!(text, "2026-01-05 09:30:00.123Z  step 42  phi 0.7200  a\\nb  loss 0.3100");
    }
}
