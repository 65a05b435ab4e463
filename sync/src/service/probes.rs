//! Is the process alive, is it ready, and in a few words: how does it go?

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tidelog::Timestamp;

use crate::service::board::{Board, StoreBoard};
use crate::service::log;
use crate::state::{AgentState, Notice};

/// Whether every loop moves. A database that is away has no say in it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Liveness {
    pub(crate) alive: bool,
    /// Stores whose loop does not move.
    stuck: Vec<PathBuf>,
}

/// Whether everything reaches the replica soon.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    stores: BTreeMap<PathBuf, StoreReadiness>,
}

/// As [`Readiness`], of one store.
#[derive(Debug, PartialEq, Serialize)]
struct StoreReadiness {
    ready: bool,
    /// What the agent is doing.
    state: &'static str,
    /// Null before the first connection.
    lag_lines: Option<u64>,
    lag_bytes: Option<u64>,
    lag_seconds: Option<f64>,
    /// Why it is not ready; empty if it is.
    reasons: Vec<String>,
}

pub(crate) fn liveness(board: &Board, grace: Duration) -> Liveness {
    let stuck = board.stuck(grace);
    Liveness { alive: stuck.is_empty(), stuck }
}

pub(crate) fn readiness(board: &Board, lag_max: Duration) -> Readiness {
    let stores = board.stores().into_iter();
    let stores: BTreeMap<_, _> =
        stores.map(|(folder, store)| (folder, store_readiness(&store, lag_max))).collect();
    Readiness { ready: stores.values().all(|store| store.ready), stores }
}

fn store_readiness(store: &StoreBoard, lag_max: Duration) -> StoreReadiness {
    let state = store.facts().state;
    let lag = store.lag();
    let lag_seconds = lag.map(|lag| lag.oldest.map_or(0.0, age));
    let mut reasons: Vec<String> = state.as_ref().and_then(not_ready).into_iter().collect();
    if state.is_none() {
        reasons.push("is just beginning".to_owned());
    }
    if let Some(seconds) = lag_seconds.filter(|seconds| *seconds > lag_max.as_secs_f64()) {
        reasons.push(format!("the oldest line that is not sent is {seconds:.0} s old"));
    }
    StoreReadiness {
        ready: reasons.is_empty(),
        state: state.as_ref().map_or("starting", AgentState::as_str),
        lag_lines: lag.map(|lag| lag.lines),
        lag_bytes: lag.map(|lag| lag.bytes),
        lag_seconds,
        reasons,
    }
}

/// Why an agent in this state is not ready. Without a store there is nothing to send, and in standby
/// another one sends it.
fn not_ready(state: &AgentState) -> Option<String> {
    use AgentState::{AwaitingStore, Ready, Resting, Standby};
    match state {
        Ready | Resting | AwaitingStore(_) | Standby { .. } => None,
        _ => {
            let reason = log::trouble(&Notice::Agent(state.clone())).map(str::to_owned);
            Some(reason.unwrap_or_else(|| format!("is {}", state.as_str())))
        }
    }
}

pub(crate) fn age(time: Timestamp) -> f64 {
    Timestamp::now().seconds_since(time).max(0.0)
}

/// One line for whoever looks at the service.
pub(crate) fn summary(board: &Board) -> String {
    let stores = board.stores();
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines = 0;
    for store in stores.values() {
        let state = store.facts().state;
        *states.entry(state.as_ref().map_or("starting", AgentState::as_str)).or_default() += 1;
        lines += store.lag().map_or(0, |lag| lag.lines);
    }
    let states: Vec<String> =
        states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let noun = if stores.len() == 1 { "store" } else { "stores" };
    format!("{} {noun}: {}; {lines} lines behind", stores.len(), states.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn tell(store: &StoreBoard, state: AgentState) {
        store.note(&Notice::Agent(state));
    }

    #[test]
    fn readiness_tells_why_not() {
        let board = Board::default();
        let (one, other) = (board.add(Path::new("/one")), board.add(Path::new("/other")));
        assert!(!readiness(&board, MINUTE).ready);
        tell(&one, AgentState::Ready);
        let reason = "the schema is at version 2".to_owned();
        tell(&other, AgentState::Blocked { wait: MINUTE, reason });
        let found = serde_json::to_value(readiness(&board, MINUTE)).unwrap();
        assert_eq!(found["ready"], false);
        assert_eq!(found["stores"]["/one"]["ready"], true);
        assert_eq!(found["stores"]["/other"]["state"], "blocked");
        assert_eq!(found["stores"]["/other"]["reasons"][0], "the schema is at version 2");
        tell(&other, AgentState::Standby { holder: Some(1) });
        assert!(readiness(&board, MINUTE).ready);
        assert_eq!(summary(&board), "2 stores: 1 ready, 1 standby; 0 lines behind");
    }

    #[test]
    fn an_outage_of_the_database_is_no_death() {
        let board = Board::default();
        let store = board.add(Path::new("/s"));
        tell(&store, AgentState::Backoff { wait: MINUTE, reason: "no route".into() });
        assert!(liveness(&board, MINUTE).alive);
        std::thread::sleep(Duration::from_millis(20));
        let found = serde_json::to_value(liveness(&board, Duration::from_millis(10))).unwrap();
        assert_eq!(found, serde_json::json!({ "alive": false, "stuck": ["/s"] }));
    }
}
