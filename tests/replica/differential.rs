//! Random journals give the same answers in the index and in PostgreSQL, for every table, view and
//! function, and `verify` finds the replica equal to the files.
//!
//! `TIDELOG_DIFFERENTIAL_CASES` says how many; a case that fails names its seed, and
//! `TIDELOG_DIFFERENTIAL_SEED` begins with it.

use fastrand::Rng;
use tidelog_sync::verify;

use super::*;
use crate::support::compare::{Numbers, check_replica, check_same};
use crate::support::specification::{ACTIVE_SESSIONS, DIRECT_QUERIES};

const CASES: u64 = 20;

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap())
}

/// One of the words, most of the time the first ones.
fn pick<'a>(random: &mut Rng, words: &[&'a str]) -> &'a str {
    words[random.usize(..words.len())]
}

/// A number as JSON. Sums of these are the same in twelve digits in any order.
fn float(random: &mut Rng) -> String {
    const SPECIAL: [&str; 9] = [
        "null",
        "\"NaN\"",
        "\"Infinity\"",
        "\"-Infinity\"",
        "-0.0",
        "5e-324",
        "1e300",
        "1e-7",
        "64.0",
    ];
    match random.u8(..3) {
        0 => pick(random, &SPECIAL).to_owned(),
        _ => random.f64().to_string(),
    }
}

fn step(random: &mut Rng) -> String {
    match random.u8(..8) {
        0 => pick(random, &["-1", "9223372036854775807", "-9223372036854775808"]).to_owned(),
        _ => random.u8(..6).to_string(),
    }
}

/// Within two hours; now and then the clock goes back, or far ahead.
fn time(random: &mut Rng) -> String {
    let year = if random.u8(..20) == 0 { "2031" } else { "2026" };
    let micros = pick(random, &["", ".5", ".000001", ".123456"]);
    format!(
        "{year}-01-05T{:02}:{:02}:{:02}{micros}Z",
        random.u8(9..11),
        random.u8(..60),
        random.u8(..3)
    )
}

fn text(random: &mut Rng) -> &'static str {
    const TEXTS: [&str; 7] = [
        "\"geometric\"",
        "\"linear\"",
        "\"\"",
        "null",
        "\"é\\n\\\"\"",
        "\"a\\u0000b\"",
        "\"\\u001f𝛷\"",
    ];
    pick(random, &TEXTS)
}

fn free(random: &mut Rng) -> String {
    match random.u8(..5) {
        0 => "null".to_owned(),
        1 => format!("{{\"lr\":0.1,\"deep\":[1,[2.5,{{\"x\":{}}}]]}}", random.i64(..)),
        2 => "{\"$float\":\"-0.0\"}".to_owned(),
        3 => format!("[{},1e-9,true,\"t\"]", random.f64()),
        _ => format!("{{\"longer key\":1,\"b\":{}}}", text(random)),
    }
}

fn telemetry(random: &mut Rng) -> String {
    const FLOATS: [&str; 8] = [
        "phi",
        "kappa_eff",
        "basin_distance",
        "geodesic_distance",
        "curvature",
        "breakdown_pct",
        "grounding",
        "external_coupling",
    ];
    let mut fields: Vec<String> = Vec::new();
    for name in FLOATS.iter().take(random.usize(..=FLOATS.len())) {
        fields.push(format!("\"{name}\":{}", float(random)));
    }
    fields.push(format!("\"regime\":{}", text(random)));
    if random.bool() {
        fields.push(format!(
            "\"emergency\":{},\"recursion_depth\":{}",
            random.bool(),
            step(random)
        ));
    }
    if random.u8(..3) == 0 {
        fields.push(format!("\"loss\":{},\"more\":{}", random.f64(), free(random)));
    }
    format!("{{{}}}", fields.join(","))
}

fn coords(random: &mut Rng) -> String {
    let special = pick(random, &["\"NaN\"", "1e39", "0.1", "0.5", "-0.0"]).to_owned();
    let numbers: Vec<String> =
        (0..64).map(|n| if n == 7 { special.clone() } else { "0.25".to_owned() }).collect();
    format!("[{}]", numbers.join(","))
}

fn emergency(random: &mut Rng) -> String {
    let severity = pick(random, &["info", "low", "warning", "medium", "high", "critical", "odd"]);
    let session = if random.bool() {
        format!("\"session_id\":\"{}\",", session(random))
    } else {
        String::new()
    };
    format!(
        "\"event\":\"emergency\",{session}\"emergency\":{{\"event_id\":\"e-{}\",\"step\":{},\
         \"reason\":\"r\",\"severity\":\"{severity}\",\"value\":{},\"telemetry\":{},\"metadata\":{}}}",
        random.u16(..),
        step(random),
        float(random),
        telemetry(random),
        free(random),
    )
}

fn created(random: &mut Rng) -> String {
    format!(
        "\"event\":\"checkpoint_created\",\"checkpoint\":{{\"checkpoint_id\":\"c-{}\",\"step\":{},\
         \"phi\":{},\"kappa\":{},\"regime\":{},\"basin_coords\":{},\"state_dict\":{{\"epoch\":1}},\
         \"metadata\":{},\"file\":\"c.npz\",\"size_bytes\":7,\"sha256\":\"{:02x}\"}}",
        random.u8(..4),
        step(random),
        pick(random, &["0.5", "0.5", "0.7", "\"NaN\"", "\"Infinity\"", "null"]),
        float(random),
        text(random),
        coords(random),
        free(random),
        random.u8(..4),
    )
}

fn session(random: &mut Rng) -> String {
    format!("s-{}", random.u8(..4))
}

fn ended(random: &mut Rng, parts: u8) -> String {
    let status = pick(random, &["completed", "failed", "aborted", "continued"]);
    let of = match random.bool() {
        true => String::new(),
        false => {
            let part = random.u8(..parts);
            format!(",\"session_id\":\"{}\",\"segment\":\"{}\"", session_of(part), segment_id(part))
        }
    };
    format!("\"event\":\"session_ended\",\"status\":\"{status}\",\"reason\":{}{of}", text(random))
}

/// One line, of any kind, without its newline.
fn line(random: &mut Rng, parts: u8) -> String {
    let body = match random.u8(..40) {
        0..20 => format!("\"step\":{},\"telemetry\":{}", step(random), telemetry(random)),
        20..24 => emergency(random),
        24..28 => created(random),
        28 | 29 => {
            let action = pick(random, &["loaded", "pruned", "ranked"]);
            let (id, details) = (random.u8(..4), free(random));
            format!(
                "\"event\":\"checkpoint_{action}\",\"checkpoint_id\":\"c-{id}\",\"details\":{details}"
            )
        }
        30 | 31 => format!(
            "\"event\":\"basin\",\"step\":{},\"basin_coords\":{},\"phi\":{},\"kappa\":{}",
            step(random),
            coords(random),
            float(random),
            float(random)
        ),
        32 | 33 => format!(
            "\"event\":\"gap\",\"gap\":{{\"records\":{},\"first_step\":1,\"last_step\":{},\
             \"since\":\"{}\"}},\"reason\":\"no space\"",
            random.u64(..),
            step(random),
            time(random)
        ),
        34 | 35 => ended(random, parts),
        36 => format!("\"event\":\"session_started\",\"attempt\":2,\"metadata\":{}", free(random)),
        37 => "\"event\":\"of_tomorrow\",\"x\":1".to_owned(),
        38 if random.u8(..3) == 0 => {
            format!("\"event\":\"session_deleted\",\"session_id\":\"{}\"", session(random))
        }
        _ => return pick(random, &["no json", "{\"timestamp\":7}", "", "{\"step\":1}"]).to_owned(),
    };
    format!("{{\"timestamp\":\"{}\",{body}}}", time(random))
}

fn segment_id(part: u8) -> String {
    format!("6f2a3b1c-0000-4000-8000-{part:012}")
}

/// Parts of one session in several segments, and every fifth segment of none.
fn session_of(part: u8) -> String {
    format!("s-{}", part % 3)
}

/// The lines of each segment, headers first.
fn journal(random: &mut Rng, store: tidelog::StoreId) -> Vec<Vec<String>> {
    let parts = random.u8(1..=6);
    let segment = |random: &mut Rng, part: u8| {
        let session = match part % 5 {
            4 => "null".to_owned(),
            _ => format!("\"{}\",\"attempt\":{}", session_of(part), random.u8(1..4)),
        };
        let header = format!(
            "{{\"tidelog\":1,\"segment\":\"{}\",\"store\":\"{store}\",\"session\":{session},\
             \"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\
             \"created_at\":\"2026-01-05T09:30:00Z\"}}",
            segment_id(part)
        );
        let count = random.usize(..60);
        std::iter::once(header).chain((0..count).map(|_| line(random, parts))).collect()
    };
    (0..parts).map(|part| segment(random, part)).collect()
}

/// Writes the segments piece by piece, in any order, and sends now and then.
fn write_and_send(
    random: &mut Rng,
    files: &Files,
    database: &TestDatabase,
    mut left: Vec<Vec<String>>,
) {
    let folder = files.store.root().join("logs/telemetry");
    fs::create_dir_all(&folder).unwrap();
    while left.iter().any(|lines| !lines.is_empty()) {
        let part = random.usize(..left.len());
        let count = random.usize(..=left[part].len());
        let piece: String = left[part].drain(..count).map(|line| line + "\n").collect();
        let path = folder.join(format!("part-{part}.jsonl"));
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(piece.as_bytes()).unwrap();
        if random.u8(..4) == 0 {
            once(files, database).unwrap();
        }
    }
    once(files, database).unwrap();
}

fn check_case(seed: u64) {
    let mut random = Rng::with_seed(seed);
    let (files, database) = (Files::new(), TestDatabase::create());
    let journal = journal(&mut random, files.store.id());
    write_and_send(&mut random, &files, &database, journal);
    let mut client = database.client();
    check_replica(&files.store, &mut client);
    for sql in DIRECT_QUERIES.iter().chain([&ACTIVE_SESSIONS]) {
        let sql = sql.replace("session_20251218_001", "s-1");
        check_same(&files.store, &mut client, &sql, Numbers::Twelve);
    }
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let found = verify(files.store.root(), &target, None, |_| {}).unwrap();
    assert_eq!(
        (found.verdict, found.differences.as_slice()),
        ("equal", [].as_slice()),
        "{found:#?}"
    );
}

#[test]
fn random_journals_give_the_same_answers_in_index_and_replica() {
    let first = number("TIDELOG_DIFFERENTIAL_SEED").unwrap_or(0);
    let cases = number("TIDELOG_DIFFERENTIAL_CASES").unwrap_or(CASES);
    let fails = |seed: &u64| std::panic::catch_unwind(|| check_case(*seed)).is_err();
    let failed: Vec<u64> = (first..first + cases).filter(fails).collect();
    assert!(failed.is_empty(), "cases that fail, by TIDELOG_DIFFERENTIAL_SEED: {failed:?}");
}
