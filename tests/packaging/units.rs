//! `scripts/packaging` shows these files to systemd, hadolint and the schemas of Kubernetes.

use super::read;

const UNIT: &str = "packaging/systemd/tidelog-sync@.service";
const SIDECAR: &str = "packaging/kubernetes/sidecar.yaml";
const CONTAINER: &str = "packaging/container/Containerfile";

/// How long the agent goes on sending once asked to stop, unless it is told otherwise.
const DRAIN_SECONDS: u64 = 25;

/// The value after a key, without its unit of seconds.
fn seconds(text: &str, key: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix(key));
    let value = lines.next_back().unwrap_or_else(|| panic!("{key} is missing"));
    value.trim().trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{key}{value}"))
}

fn check_lines(file: &str, lines: &[&str]) {
    let text = read(file);
    for line in lines {
        assert!(text.lines().any(|found| found.trim() == *line), "{file}: {line}");
    }
}

#[test]
fn everybody_waits_longer_than_the_agent_drains() {
    let unit = seconds(&read(UNIT), "TimeoutStopSec=");
    let pod = seconds(&read(SIDECAR), "terminationGracePeriodSeconds:");
    assert!(unit > DRAIN_SECONDS + 10 && pod > DRAIN_SECONDS + 10, "{unit} {pod}");
}

#[test]
fn unit_is_told_of_readiness_and_life_and_knows_the_exit_codes() {
    let lines = [
        "Type=notify",
        "WatchdogSec=60s",
        "Restart=on-failure",
        "SuccessExitStatus=75",
        "RestartPreventExitStatus=2",
    ];
    check_lines(UNIT, &lines);
}

#[test]
fn agent_can_write_to_no_store_and_its_secret_is_a_file() {
    check_lines(
        UNIT,
        &[
            "ProtectSystem=strict",
            "ProtectHome=read-only",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "StateDirectory=tidelog-sync/%i",
        ],
    );
    for word in ["ReadWritePaths", "postgres://", "PGPASSWORD"] {
        assert!(!read(UNIT).contains(word), "{word}");
    }
    check_lines(SIDECAR, &["readOnlyRootFilesystem: true", "runAsNonRoot: true", "readOnly: true"]);
    check_lines(CONTAINER, &["USER 65532:65532"]);
    for file in [UNIT, SIDECAR, CONTAINER] {
        assert!(read(file).contains("TIDELOG_SYNC_DATABASE_URL_FILE"), "{file}");
    }
}

#[test]
fn sidecar_is_native_and_its_life_does_not_depend_on_the_database() {
    let text = read(SIDECAR);
    let (_, sidecar) = text.split_once("initContainers:").unwrap();
    let (sidecar, _) = sidecar.split_once("\n      containers:").unwrap();
    assert!(sidecar.contains("restartPolicy: Always"));
    let probe = |name: &str| sidecar.split_once(name).unwrap().1.lines().nth(1).unwrap();
    assert!(probe("livenessProbe:").contains("/livez"));
    assert!(probe("startupProbe:").contains("/livez"));
    assert!(probe("readinessProbe:").contains("/readyz"));
}

#[test]
fn container_is_built_with_the_pinned_toolchain() {
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain.split('"').nth(1).unwrap();
    assert!(read(CONTAINER).contains(&format!("rust:{version}-")), "{version}");
}
