//! Power is cut under a real file system while several threads write to a store on it.
//!
//! A cut, in order: an empty ext4 or XFS in an image file is mounted; the program under test
//! writes; at a drawn moment the file system is shut down without a flush of its log, see
//! `volume`; the program is killed; the file system is mounted again and repairs itself; then
//! the oracle looks for everything that was acknowledged as durable. That is: each start, end,
//! emergency and checkpoint, what a returned `persist` covers, with `Persisted` each record, and
//! else each record that is older than the interval and the time that the disk takes. What nobody
//! was promised may be gone, but only from the end of a segment: a hole before a line that survived is a violation.
//! A call counts as acknowledged if its line had arrived before the cut.
//!
//! The **control** does the same with libeatmydata, which makes every fsync a lie. It must lose
//! what was acknowledged in most of its cuts; a harness that finds nothing then sees nothing.

mod volume;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tidelog::{FindingKind, Store};

use crate::check::{self, Crash};
use crate::crowd::{self, Crowd};
use crate::scenario::{Durability, Scenario, Task};
use crate::victim::Victim;
use crate::{Options, Report, Result};
use volume::{FileSystem, Volume};

/// Makes fsync and its kin return at once, having done nothing.
const LIAR: &str = "libeatmydata.so";
/// A control for so many cuts, and two at least.
const CUTS_PER_CONTROL: usize = 5;
const CONTROLS_MIN: usize = 2;
/// After so long the persist in the background has had its turn, with time to spare.
const SLOW_TIME: Duration = Duration::from_millis(2200);
/// A writer of nothing but records rests so long after each.
const RECORD_PAUSE_US: u64 = 1000;

/// Whether the disk is asked to persist, or only told to have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Honest,
    Lying,
}

/// Cuts power as many times as asked for on each file system, and the controls.
///
/// # Errors
/// A volume could not be made or mounted again, though one could when it was tried out.
pub fn run(options: &Options) -> Result<Report> {
    volume::sweep()?;
    let mut report = Report::default();
    for file_system in FileSystem::ALL {
        match volume::try_out(file_system) {
            Ok(()) => report.merge(on(file_system, options)?),
            Err(reason) => {
                let reason = format!("power cuts on {}: {reason}", file_system.name());
                report.skipped.push(reason);
            }
        }
    }
    Ok(report)
}

fn on(file_system: FileSystem, options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut rng = Rng::with_seed(options.seed);
    for number in 0..options.runs {
        let cut = Cut::draw(file_system, Disk::Honest, number, &mut rng);
        let found = cut.make(options, &mut report)?;
        report.executed += 1;
        report.count(&format!("cuts on {}", file_system.name()), 1);
        report.violations.extend(found.into_iter().map(|text| format!("{cut}: {text}")));
    }
    controls(file_system, options, &mut rng, &mut report)?;
    Ok(report)
}

/// Cuts under a disk that lies; most of them have to lose something that was acknowledged: another
/// complaint of the oracle does not show that a missing persist is seen.
fn controls(
    file_system: FileSystem,
    options: &Options,
    rng: &mut Rng,
    report: &mut Report,
) -> Result<()> {
    if let Err(reason) = try_out_the_liar() {
        report.skipped.push(format!("controls on {}: {reason}", file_system.name()));
        return Ok(());
    }
    let controls = (options.runs / CUTS_PER_CONTROL).max(CONTROLS_MIN);
    let mut lost = 0;
    for number in 1..=controls {
        let cut = Cut::draw(file_system, Disk::Lying, number, rng);
        let found = cut.make(options, &mut Report::default())?;
        lost += usize::from(found.iter().any(|text| check::is_loss(text)));
    }
    report.count(&format!("controls on {}", file_system.name()), controls);
    report.count(&format!("controls on {} that lost acknowledged data", file_system.name()), lost);
    if lost * 2 <= controls {
        let name = file_system.name();
        report.violations.push(format!(
            "only {lost} of {controls} cuts on {name} lost acknowledged data without fsync: these cuts show nothing"
        ));
    }
    Ok(())
}

/// The loader says on standard error that it does not find the library, and goes on.
fn try_out_the_liar() -> Result<()> {
    let output = Command::new("true").env("LD_PRELOAD", LIAR).output()?;
    match output.stderr.is_empty() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().into()),
    }
}

/// One power cut.
#[derive(Debug)]
struct Cut {
    file_system: FileSystem,
    disk: Disk,
    crowd: Crowd,
    moment: Moment,
}

/// When the power goes, in which scenario: so many lines after the first, and then so much later.
#[derive(Debug)]
struct Moment {
    scenario: Scenario,
    lines: usize,
    pause: Duration,
}

impl Moment {
    fn draw(number: usize, rng: &mut Rng) -> Self {
        let (scenario, lines_max, pause) = match number % 10 {
            0 => (Scenario::Records, 1, SLOW_TIME.mul_f64(1.0 + rng.f64() / 2.0)),
            1..=4 => (Scenario::Mixed, 100, Duration::from_millis(rng.u64(0..500))),
            5 => (Scenario::Checkpoints, 60, Duration::from_millis(rng.u64(0..20))),
            6 => (Scenario::Rotate, 60, Duration::from_millis(rng.u64(0..200))),
            _ => (crowd::brief(rng), 12, Duration::from_millis(rng.u64(0..20))),
        };
        Self { scenario, lines: rng.usize(0..=lines_max), pause }
    }
}

impl Cut {
    fn draw(file_system: FileSystem, disk: Disk, number: usize, rng: &mut Rng) -> Self {
        let moment = Moment::draw(number, rng);
        let scenario = moment.scenario;
        let durability = match rng.u8(0..4) {
            0 if moment.pause < SLOW_TIME => Durability::Persisted,
            1 => Durability::Buffered,
            _ => Durability::Written,
        };
        let seed = rng.u64(0..u64::from(u32::MAX)) << 8;
        let records = crowd::records(scenario);
        let threads = if scenario == Scenario::Import { 1 } else { rng.u64(1..=3) };
        let pause_us = if scenario == Scenario::Records { RECORD_PAUSE_US } else { 0 };
        let task = Task { scenario, seed, durability, records };
        Self { file_system, disk, crowd: Crowd { task, threads, pause_us }, moment }
    }

    /// What was promised and is not there.
    fn make(&self, options: &Options, report: &mut Report) -> Result<Vec<String>> {
        let mut volume = Volume::create(self.file_system)?;
        let store = volume.root().join("store");
        let mut command = self.crowd.command(options, &store);
        if self.disk == Disk::Lying {
            command.env("LD_PRELOAD", LIAR);
        }
        let mut victim = Victim::start(command)?;
        victim.wait_for(self.moment.lines)?;
        thread::sleep(self.moment.pause);
        let moment = Instant::now();
        volume.cut()?;
        let said = victim.kill()?.said;
        volume.reboot()?;
        report
            .count("lines told before a cut", said.iter().filter(|line| line.at < moment).count());
        let runs = self.crowd.runs(said, Crash::Power, moment);
        let mut found = check::check(&store, &runs);
        let holes = holes(&store).unwrap_or_else(|error| vec![format!("cannot be read: {error}")]);
        found.extend(holes);
        Ok(found)
    }
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file_system, crowd, moment: Moment { lines, pause, .. }, .. } = self;
        let name = file_system.name();
        write!(f, "{name}, {crowd}, cut {} ms after line {lines}", pause.as_millis())
    }
}

/// What survives of a segment is its beginning: no line is lost before one that is there.
fn holes(store: &std::path::Path) -> Result<Vec<String>> {
    let report = Store::open_read_only(store)?.verify(&mut |_| {})?;
    let invalid = |finding: &&tidelog::Finding| finding.kind == FindingKind::LineInvalid;
    let holes = report.findings.iter().filter(invalid);
    Ok(holes
        .map(|hole| format!("a hole: {} {:?}: {}", hole.path.display(), hole.line, hole.reason))
        .collect())
}
