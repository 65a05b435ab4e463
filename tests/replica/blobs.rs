//! Checkpoint files reach the replica, whole or not at all.

use tidelog_sync::BlobPolicy;

use super::*;

/// A finished session with a checkpoint of so many bytes in one array.
fn checkpoint(files: &Files, session: &str, bytes: usize) -> CheckpointId {
    let writer = files.session(session);
    let state = Value::Bytes((0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect());
    let id = writer.save_checkpoint(NewCheckpoint::new(state, 0.5)).unwrap();
    writer.end(Outcome::Completed).unwrap();
    id
}

fn path(files: &Files, id: &CheckpointId) -> PathBuf {
    files.store.root().join(format!("checkpoints/{id}.npz"))
}

/// Every complete file in the database, put together by the server.
fn complete(client: &mut Client) -> Vec<Vec<u8>> {
    let sql = "SELECT string_agg(bytes, '' ORDER BY chunk_no)
               FROM checkpoint_blobs JOIN checkpoint_chunks USING (blob_no)
               WHERE complete_at IS NOT NULL GROUP BY blob_no ORDER BY blob_no";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn once_with(files: &Files, database: &TestDatabase, policy: BlobPolicy) -> (Report, Vec<String>) {
    let (sender, notices) = mpsc::channel();
    let tell = move |notice: &Notice| sender.send(notice.to_string()).unwrap();
    let report =
        agent_with(files, database, "", tell).with_blobs(policy).once(Duration::ZERO).unwrap();
    (report, notices.try_iter().filter(|notice| notice.contains("not sent")).collect())
}

#[test]
fn a_checkpoint_file_reaches_the_replica_byte_for_byte() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let ids = [checkpoint(&files, "run-1", 3_000_000), checkpoint(&files, "run-2", 10)];
    assert_eq!(once(&files, &database).unwrap().checkpoint_files, 2);
    let mut expected = ids.map(|id| fs::read(path(&files, &id)).unwrap());
    let mut found = complete(&mut database.client());
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(once(&files, &database).unwrap().checkpoint_files, 0);
}

#[test]
fn a_file_is_sent_while_the_agent_follows() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let report = while_running(&files, &database, |notices| {
        await_notice(notices, "agent: ready");
        checkpoint(&files, "run-1", 2_000_000);
        let mut client = database.client();
        await_count(&mut client, "checkpoint_blobs WHERE complete_at IS NOT NULL", 1);
    });
    assert_eq!(report.unwrap().checkpoint_files, 1);
}

#[test]
fn a_file_that_was_sent_in_part_goes_on_behind_its_last_piece() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let id = checkpoint(&files, "run-1", 5_000_000);
    once(&files, &database).unwrap();
    let mut client = database.client();
    let back_to_two = "UPDATE checkpoint_blobs SET next_chunk = 2, complete_at = NULL;
                       DELETE FROM checkpoint_chunks WHERE chunk_no >= 2";
    let written = "SELECT string_agg(concat(chunk_no, ' ', xmin), ',' ORDER BY chunk_no)
                   FROM checkpoint_chunks WHERE chunk_no < 2";
    client.batch_execute(back_to_two).unwrap();
    let before: String = client.query_one(written, &[]).unwrap().get(0);
    once(&files, &database).unwrap();
    assert_eq!(client.query_one(written, &[]).unwrap().get::<_, String>(0), before);
    assert_eq!(complete(&mut client), [fs::read(path(&files, &id)).unwrap()]);
}

#[test]
fn pieces_of_another_file_are_sent_anew() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let id = checkpoint(&files, "run-1", 5_000_000);
    once(&files, &database).unwrap();
    let mut client = database.client();
    client
        .batch_execute(
            "UPDATE checkpoint_blobs SET complete_at = NULL;
             UPDATE checkpoint_chunks SET sha256 = '', bytes = 'other' WHERE chunk_no = 1",
        )
        .unwrap();
    once(&files, &database).unwrap();
    assert_eq!(complete(&mut client), [fs::read(path(&files, &id)).unwrap()]);
}

#[test]
fn a_file_that_is_not_what_the_journal_says_is_told_and_never_complete() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let id = checkpoint(&files, "run-1", 3_000_000);
    let good = fs::read(path(&files, &id)).unwrap();
    let mut flipped = good.clone();
    flipped[2_500_000] ^= 1;
    for (damaged, reason) in [(&flipped[..], "SHA-256"), (&good[1..], "the journal says 4000")] {
        fs::write(path(&files, &id), damaged).unwrap();
        let (report, told) = once_with(&files, &database, BlobPolicy::default());
        assert_eq!((report.checkpoint_files, told.len()), (0, 1), "{told:?}");
        assert!(told[0].contains(reason), "{told:?}");
        let mut client = database.client();
        assert_eq!(count(&mut client, "checkpoint_chunks"), 0);
        let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
        let found = status(files.store.root(), Some(&target)).unwrap();
        assert_eq!(found.checkpoint_files_missing, Some(1));
        assert!(found.checkpoint_files_problems[0].contains(reason), "{found:?}");
    }
    fs::write(path(&files, &id), &good).unwrap();
    assert_eq!(once(&files, &database).unwrap().checkpoint_files, 1);
    assert_eq!(complete(&mut database.client()), [good]);
}

#[test]
fn a_file_over_the_limit_is_not_sent_and_named() {
    let (files, database) = (Files::new(), TestDatabase::create());
    checkpoint(&files, "run-1", 10_000);
    let (report, _) = once_with(&files, &database, BlobPolicy::UpTo { bytes_max: 5_000 });
    assert_eq!(report.checkpoint_files, 0);
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    let found = status(files.store.root(), Some(&target)).unwrap();
    assert_eq!(found.checkpoint_files_missing, Some(1));
    assert!(found.checkpoint_files_problems[0].contains("--blob-max-size is 5000"), "{found:?}");
    let (report, _) = once_with(&files, &database, BlobPolicy::default());
    assert_eq!(report.checkpoint_files, 1);
}

#[test]
fn no_file_is_sent_unless_wanted_or_after_it_was_pruned() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let id = checkpoint(&files, "run-1", 10_000);
    once_with(&files, &database, BlobPolicy::Never);
    let mut client = database.client();
    assert_eq!(count(&mut client, "checkpoint_blobs"), 0);
    files.store.prune_checkpoint(&id).unwrap();
    let (report, told) = once_with(&files, &database, BlobPolicy::default());
    assert_eq!((report.checkpoint_files, told.len()), (0, 0));
    assert_eq!(count(&mut client, "checkpoint_blobs"), 0);
}

#[test]
fn pruning_keeps_a_file_in_the_replica_and_deletion_does_not() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let id = checkpoint(&files, "run-1", 10_000);
    checkpoint(&files, "run-2", 20_000);
    once(&files, &database).unwrap();
    files.store.prune_checkpoint(&id).unwrap();
    once(&files, &database).unwrap();
    let mut client = database.client();
    assert_eq!(complete(&mut client).len(), 2);
    client.batch_execute("DELETE FROM checkpoints WHERE session_id = 'run-1'").unwrap();
    assert_eq!((complete(&mut client).len(), count(&mut client, "checkpoint_chunks")), (1, 1));
}

#[test]
fn a_name_that_leads_out_of_the_store_is_not_read() {
    let (files, database) = (Files::new(), TestDatabase::create());
    checkpoint(&files, "run-1", 10);
    once_with(&files, &database, BlobPolicy::Never);
    database.client().batch_execute("UPDATE checkpoints SET file = '../store.json'").unwrap();
    let (report, told) = once_with(&files, &database, BlobPolicy::default());
    assert_eq!(report.checkpoint_files, 0);
    assert!(told[0].contains("not a plain file name"), "{told:?}");
}
