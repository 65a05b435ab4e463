use std::collections::BTreeSet;

use serde_json::Value;

use super::{Files, read};
use crate::packaging::roles::Roles;
use crate::support::postgres::TestDatabase;

const TRAINING: &str = "packaging/grafana/tidelog-postgres.json";
const AGENTS: &str = "packaging/grafana/tidelog-sync-metrics.json";

fn dashboard(file: &str) -> Value {
    serde_json::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

/// This text of every query of the panels.
fn queries(dashboard: &Value, key: &str) -> Vec<String> {
    let targets = panels(dashboard).iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| target[key].as_str().unwrap_or_else(|| panic!("{target}")).into())
        .collect()
}

/// What Grafana makes of its macros and variables, as far as the dashboards use them.
fn substitute(sql: &str) -> String {
    let (from, to) = ("'2026-01-01T00:00:00Z'", "'2099-01-01T00:00:00Z'");
    sql.replace("$__timeFilter(timestamp)", &format!("timestamp BETWEEN {from} AND {to}"))
        .replace(
            "$__timeGroupAlias(timestamp, $__interval)",
            "floor(extract(epoch from timestamp)/60)*60 AS \"time\"",
        )
        .replace("$__timeFrom()", from)
        .replace("$__timeTo()", to)
        .replace("${session:sqlstring}", "'run-1','run-2'")
}

/// The words of a text that begin so.
fn words<'a>(text: &'a str, beginning: &str) -> BTreeSet<&'a str> {
    let words = text.split(|character: char| !character.is_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with(beginning)).collect()
}

#[test]
fn every_query_of_the_training_dashboard_runs_with_the_rights_of_an_analyst() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let roles = Roles::create(&database);
    files.every_kind("run-1", 5);
    files.send(&database.url()).unwrap();
    let dashboard = dashboard(TRAINING);
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let of_variables = variables
        .filter(|variable| variable["type"] == "query")
        .map(|variable| variable["query"].as_str().unwrap().to_owned());
    let mut analyst = roles.client("analyst");
    let mut answered = 0;
    for sql in queries(&dashboard, "rawSql").into_iter().chain(of_variables) {
        let sql = substitute(&sql);
        assert!(!sql.contains('$'), "{sql}");
        let rows = analyst.query(&sql, &[]).unwrap_or_else(|error| panic!("{error}: {sql}"));
        answered += usize::from(!rows.is_empty());
    }
    assert!(answered >= 18, "{answered} queries have an answer");
}

#[test]
fn time_series_have_a_column_of_time_and_an_order() {
    let dashboard = dashboard(TRAINING);
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] == "timeseries") {
        let target = &panel["targets"][0];
        let sql = target["rawSql"].as_str().unwrap();
        assert_eq!(target["format"], "time_series", "{sql}");
        assert!(
            sql.starts_with("SELECT $__timeGroupAlias(") && sql.ends_with("ORDER BY 1"),
            "{sql}"
        );
    }
}

#[test]
fn every_metric_of_the_dashboard_is_explained() {
    let page = read("docs/operations.md");
    let explained = words(&page, "tidelog_");
    for expression in queries(&dashboard(AGENTS), "expr") {
        for word in words(&expression, "tidelog_") {
            let metric = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(explained.contains(metric), "{metric} in docs/operations.md");
        }
    }
}

#[test]
fn every_metric_of_the_dashboard_is_one_of_the_agent() {
    let source = read("sync/src/service/metrics.rs");
    let metrics = words(&source, "tidelog_");
    for expression in queries(&dashboard(AGENTS), "expr") {
        for word in words(&expression, "tidelog_") {
            let metric = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(metrics.contains(metric), "{metric} in {expression}");
        }
    }
}

#[test]
fn dashboards_have_what_grafana_needs() {
    for file in [TRAINING, AGENTS] {
        let dashboard = dashboard(file);
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39, "{file}");
        assert!(!dashboard["uid"].as_str().unwrap().is_empty(), "{file}");
        assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource", "{file}");
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: twice: {}", panel["id"]);
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {}", panel["title"]);
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{file}: {panel}");
        }
    }
}

#[test]
fn no_panel_covers_another() {
    for file in [TRAINING, AGENTS] {
        let mut cells = BTreeSet::new();
        for panel in panels(&dashboard(file)) {
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{file}: {}", panel["title"]);
            for cell in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
                assert!(cells.insert(cell), "{file}: {} covers another", panel["title"]);
            }
        }
    }
}
