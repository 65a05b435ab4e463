//! Checkpoints: each becomes a file of tidelog's own form under the same id, and an entry.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;

use super::Run;
use super::archive::{self, Archive};
use super::emergencies::read_json_file;
use super::fields::Fields;
use super::known::Known;
use super::report::Area;
use super::time::LocalTimes;
use crate::checkpoint::{self, NewCheckpoint};
use crate::entry::{Body, CheckpointCreated, Entry, line};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, SessionId};
use crate::journal::Header;
use crate::journal::whole::WholeSegment;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// One segment holds so many checkpoints at most. A crash before it is written leaves their files
/// without an entry; the next import takes them.
const BATCH_CHECKPOINTS: usize = 256;

/// What the files beside an NPZ say of it.
#[derive(Debug, Default)]
struct About {
    created_at: Option<Timestamp>,
    session_id: Option<SessionId>,
    step: Option<i64>,
    phi: Option<f64>,
    kappa: Option<f64>,
    regime: Option<String>,
    metadata: Option<Value>,
}

/// The indexes of the folders that checkpoints lie in, each read once.
#[derive(Default)]
struct Indexes(HashMap<PathBuf, HashMap<String, Value>>);

/// Imports checkpoint files.
///
/// # Errors
/// The store cannot be written. What is wrong with a file is reported.
pub(super) fn import_files<'p>(
    run: &mut Run<'_>,
    known: &mut Known,
    paths: impl Iterator<Item = &'p Path>,
) -> Result<()> {
    let mut indexes = Indexes::default();
    let mut pending = Vec::new();
    for path in paths {
        if let Some(entry) = import_file(run, known, &mut indexes, path)? {
            pending.push(entry);
        }
        if pending.len() >= BATCH_CHECKPOINTS {
            write(run, &std::mem::take(&mut pending))?;
        }
        run.file_done(path);
    }
    write(run, &pending)?;
    indexes.refuse_what_has_no_file(run)
}

fn write(run: &Run<'_>, pending: &[Entry]) -> Result<()> {
    if run.dry_run || pending.is_empty() {
        return Ok(());
    }
    let mut segment = WholeSegment::of_store(run.store.root())?;
    for entry in pending {
        segment.append(entry)?;
    }
    segment.finish(&Header::new(run.store.id(), None))
}

/// Writes the file of a new checkpoint; its entry, unless it was refused or is there already.
fn import_file(
    run: &mut Run<'_>,
    known: &mut Known,
    indexes: &mut Indexes,
    path: &Path,
) -> Result<Option<Entry>> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let id = match CheckpointId::new(stem) {
        Ok(id) => id,
        Err(error) => return refuse(run, path, format!("{error}; rename the file")),
    };
    let indexed = indexes.take(run, path, &id)?;
    if known.has_checkpoint(&id) {
        run.recorder.report.checkpoints.already_there += 1;
        return Ok(None);
    }
    let archive = match archive::read(path) {
        Ok(archive) => archive,
        Err(reason) => return refuse(run, path, reason),
    };
    for note in &archive.notes {
        run.recorder.note(path, note.clone())?;
    }
    let about = about(run, path, &id, indexed)?;
    match save(run, known, &id, archive, about) {
        Err(error @ Error::Io { .. }) => Err(error),
        Err(error) => refuse(run, path, error.to_string()),
        Ok(entry) => {
            run.recorder.report.checkpoints.taken += 1;
            known.add_checkpoint(&id);
            Ok((!run.dry_run).then_some(entry))
        }
    }
}

fn refuse(run: &mut Run<'_>, path: &Path, reason: String) -> Result<Option<Entry>> {
    run.recorder.refuse(Area::Checkpoints, path, reason).map(|()| None)
}

/// Saves the file, once it is sure that a line can hold its entry.
fn save(
    run: &Run<'_>,
    known: &Known,
    id: &CheckpointId,
    archive: Archive,
    about: About,
) -> Result<Entry> {
    let timestamp = about.created_at.unwrap_or_else(Timestamp::now);
    let session_id = about.session_id.or_else(|| known.session_at(timestamp));
    let phi = about.phi;
    let new = NewCheckpoint {
        checkpoint_id: Some(id.clone()),
        step: about.step,
        kappa: about.kappa,
        regime: about.regime,
        basin_coords: archive.basin_coords,
        metadata: with_coords(about.metadata, archive.other_coords),
        ..NewCheckpoint::new(archive.state_dict, phi.unwrap_or(f64::NAN))
    };
    let entry = |created: CheckpointCreated| {
        let created = CheckpointCreated { session_id: session_id.clone(), phi, ..created };
        Entry { timestamp, body: Body::CheckpointCreated(Box::new(created)) }
    };
    let expected = checkpoint::expect(&new)?;
    line::check(&entry(expected.clone()))?;
    if run.dry_run {
        return Ok(entry(expected));
    }
    checkpoint::save_or_adopt(run.store.root(), &new, expected).map(entry)
}

/// Keeps coordinates that are no basin's among the metadata.
fn with_coords(metadata: Option<Value>, coords: Option<Value>) -> Option<Value> {
    let Some(coords) = coords else { return metadata };
    let mut pairs = vec![("basin_coords".into(), coords)];
    pairs.extend(metadata.map(|metadata| ("metadata".into(), metadata)));
    Some(Value::Dict(pairs))
}

/// What is known of a checkpoint: from its own metadata file, else from the index, else from its
/// id and the time of its file.
fn about(
    run: &mut Run<'_>,
    path: &Path,
    id: &CheckpointId,
    indexed: Option<Value>,
) -> Result<About> {
    let own = path.with_file_name(format!("{id}_metadata.json"));
    let mut fields = None;
    if own.is_file() {
        match read_json_file(&own).and_then(|bytes| Fields::parse(&bytes)) {
            Ok(found) => fields = Some(found),
            Err(reason) => run.recorder.refuse(Area::Checkpoints, &own, reason)?,
        }
    }
    let found = fields.or_else(|| indexed.and_then(Fields::of));
    if found.is_none() {
        run.recorder.note(path, "has no metadata, neither a file nor in the index".into())?;
    }
    let mut about = match read_about(found.unwrap_or_default(), id, &mut run.times) {
        Ok(about) => about,
        Err(reason) => {
            run.recorder.note(path, format!("has metadata that is passed over: {reason}"))?;
            About::default()
        }
    };
    if about.phi.is_none() {
        about.phi = phi_of(id);
        let note = match about.phi {
            Some(phi) => format!("has no phi beside it; its name tells {phi}"),
            None => "has no phi, neither beside it nor in its name".to_owned(),
        };
        run.recorder.note(path, note)?;
    }
    if about.created_at.is_none() {
        let (time, place) = match time_of(id, &mut run.times) {
            Some(time) => (Some(time), "name"),
            None => (modified(path), "file's time of change"),
        };
        about.created_at = time;
        run.recorder.note(path, format!("has no timestamp beside it; its {place} tells it"))?;
    }
    Ok(about)
}

fn read_about(
    mut fields: Fields,
    id: &CheckpointId,
    times: &mut LocalTimes,
) -> Result<About, String> {
    let session = fields.text("session_id");
    let time = fields.text("timestamp");
    let about = About {
        created_at: time.map(|time| times.read(&time)).transpose()?,
        session_id: session.map(SessionId::new).transpose().map_err(|error| error.to_string())?,
        step: fields.integer("step"),
        phi: fields.float("phi"),
        kappa: fields.float("kappa"),
        regime: fields.text("regime"),
        metadata: None,
    };
    fields.drop_text("checkpoint_id", id.as_str());
    Ok(About { metadata: fields.into_metadata(), ..about })
}

/// Φ from the end of an id such as `checkpoint_20251218_081815_0.981`.
fn phi_of(id: &CheckpointId) -> Option<f64> {
    id.as_str().rsplit('_').next()?.parse().ok()
}

/// Time from an id such as `checkpoint_20251218_081815_0.981`.
fn time_of(id: &CheckpointId, times: &mut LocalTimes) -> Option<Timestamp> {
    let parts: Vec<&str> = id.as_str().split('_').collect();
    let local = parts.windows(2).find_map(|pair| match pair {
        [day, time] if day.len() == 8 && time.len() == 6 => {
            DateTime::strptime("%Y%m%d%H%M%S", format!("{day}{time}")).ok()
        }
        _ => None,
    })?;
    times.resolve(local).ok()
}

fn modified(path: &Path) -> Option<Timestamp> {
    let time = fs::metadata(path).and_then(|found| found.modified()).ok()?;
    Timestamp::from_jiff(time.try_into().ok()?).ok()
}

impl Indexes {
    /// Takes what the index of the checkpoint's folder says of it.
    fn take(&mut self, run: &mut Run<'_>, npz: &Path, id: &CheckpointId) -> Result<Option<Value>> {
        let path = npz.with_file_name("checkpoint_index.json");
        if !self.0.contains_key(&path) {
            let index = match path.is_file().then(|| read_index(&path)) {
                Some(Err(reason)) => {
                    run.recorder.refuse(Area::Checkpoints, &path, reason)?;
                    HashMap::new()
                }
                Some(Ok(index)) => index,
                None => HashMap::new(),
            };
            self.0.insert(path.clone(), index);
        }
        Ok(self.0.get_mut(&path).and_then(|index| index.remove(id.as_str())))
    }

    /// Names the checkpoints that an index lists and no file holds.
    fn refuse_what_has_no_file(self, run: &mut Run<'_>) -> Result<()> {
        for (path, index) in self.0 {
            let mut ids: Vec<String> = index.into_keys().collect();
            ids.sort();
            for id in ids {
                let id: String = id.chars().take(crate::ID_BYTES_MAX).collect();
                let reason = format!("lists {id:?}, and there is no NPZ file of it");
                run.recorder.refuse(Area::Checkpoints, &path, reason)?;
            }
        }
        Ok(())
    }
}

fn read_index(path: &Path) -> Result<HashMap<String, Value>, String> {
    let fields = Fields::parse(&read_json_file(path)?)?;
    Ok(fields.into_rest().into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> CheckpointId {
        CheckpointId::new(text).unwrap()
    }

    #[test]
    fn phi_and_time_are_found_in_an_id() {
        let old = id("checkpoint_20251218_081815_0.981");
        let mut times = LocalTimes::new(jiff::tz::TimeZone::UTC);
        assert_eq!(phi_of(&old), Some(0.981));
        let time = time_of(&old, &mut times).unwrap().to_string();
        assert_eq!(time, "2025-12-18T08:18:15.000000Z");
        assert!(phi_of(&id("checkpoint_20251218_081815_nan")).unwrap().is_nan());
        assert_eq!(
            (phi_of(&id("best")), time_of(&id("best_99999999_999999"), &mut times)),
            (None, None)
        );
    }

    #[test]
    fn unknown_keys_of_the_metadata_are_kept() {
        let json = br#"{"checkpoint_id": "c", "phi": NaN, "kappa": 3, "seed": 7, "metadata": {}}"#;
        let mut times = LocalTimes::new(jiff::tz::TimeZone::UTC);
        let about = read_about(Fields::parse(json).unwrap(), &id("c"), &mut times).unwrap();
        assert!(about.phi.unwrap().is_nan());
        let kept = vec![("seed".into(), Value::Int(7)), ("metadata".into(), Value::Dict(vec![]))];
        assert_eq!((about.kappa, about.metadata), (Some(3.0), Some(Value::Dict(kept))));
    }
}
