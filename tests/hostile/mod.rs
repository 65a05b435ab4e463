//! Input that somebody made to do harm, or that no program of ours ever wrote: ids, lines,
//! archives, pickles, links, a broken index. Nothing panics, nothing hangs, nothing leaves the
//! store, and what is refused hides nothing else.
//!
//! What one parser alone must bear stands with that parser; whole stores with one fault each are
//! in `fixtures/faults`; `fuzz/` gives every parser every kind of bytes. The bad inputs, and what
//! shows that each is borne:
//!
//! | input | shown by |
//! | --- | --- |
//! | ids that are paths, too long, or trick a reader | `ids_that_are_paths_or_trick_a_reader_are_refused`, `no_id_leaves_its_folder` |
//! | two spellings of é | the same: neither is an id |
//! | `Run` and `run` where the disk ignores case | `ids_that_a_disk_takes_for_one_name_replace_nothing_of_each_other` |
//! | an id that is no UTF-8 | `an_id_that_is_no_text_is_wrong_usage` |
//! | ids that end like our own files | `every_id_that_is_allowed_comes_back_and_stays_in_the_store` |
//! | the id of a session that has ended | `a_resume_is_the_next_attempt_in_a_segment_of_its_own` |
//! | one id, several writers | `ranks_that_write_one_session_at_once_share_its_attempt` |
//! | NaN, infinities, -0.0, limits of integers, steps that repeat | `edges_of_numbers_and_steps_come_back_bit_for_bit` |
//! | 1e400 in a line | `numbers_come_back_exactly_or_not_at_all` |
//! | times that do not exist | fixture `impossible_times`, `the_year_300000_is_an_error_that_names_the_value` |
//! | vectors of other lengths | `coordinates_are_sixty_four_numbers` |
//! | Fortran order, big endian, float16 | `orders_and_widths_of_other_machines_are_converted`, `every_dtype_comes_back` |
//! | texts of a megabyte, with NUL | `texts_of_every_kind_come_back`, fixture `nul_in_text` |
//! | a field that is missing | `what_is_no_object_of_ours_is_refused` |
//! | unknown fields | fixture `unknown_event_and_key` |
//! | null everywhere | `null_is_not_measured` |
//! | a record after the end | the compiler: `end` takes the session |
//! | empty, torn, glued and NUL-filled files | fixtures `empty_file`, `only_a_partial_line`, `torn_tail`, `glued_lines`, `nul_tail`, `nul_run_in_the_middle`, `only_nul` |
//! | BOM, CRLF, UTF-16 | fixtures `byte_order_mark`, `carriage_returns`, `utf_16` |
//! | bad UTF-8, also where nobody looks | fixture `not_utf_8`, `a_line_is_utf_8_also_where_it_is_passed_over` |
//! | half a surrogate, NUL, a key twice, an array, two objects | fixtures `half_surrogate`, `nul_in_text`, `duplicate_key`, `array_instead_of_object`, `two_objects_on_a_line`; `text_is_utf_8_whole_and_may_hold_nul` |
//! | nesting of 100,000 | `nesting_without_end_is_refused_where_it_is_kept_and_passed_over_where_it_is_not` |
//! | a line of a gibibyte; one full of zeros | `a_line_of_a_gibibyte_takes_a_quarter_of_that_memory_at_most`, `a_line_full_of_small_values_is_refused_in_little_memory` |
//! | Python's NaN | fixture `nan_tokens`, `pythons_numbers_and_unknown_fields_are_kept` |
//! | a flipped bit | `no_flipped_bit_changes_an_entry_unseen`, fixture `flipped_bit` |
//! | lines that went, or changed | `lines_that_left_the_file_leave_the_index`, `a_changed_line_is_found_when_the_file_grows` |
//! | a file that shrinks or is replaced | `a_file_that_shrinks_or_changes_under_its_reader_ends_the_reading` |
//! | folders, pipes, devices, sockets, links | `what_is_no_regular_file_is_passed_over_wherever_it_lies`, and all of `links` |
//! | a file that nobody may read | `a_segment_that_nobody_may_read_is_named_and_hides_no_other` |
//! | a compressed copy, another version, one segment twice | fixtures `compressed_copy`, `future_version`, `future_store_version`, `segment_twice` |
//! | shapes that no file holds | `shapes_that_no_file_holds_are_refused_at_once`, `a_forged_shape_is_refused_before_allocating` |
//! | headers that are none | `a_header_that_is_none_is_refused` |
//! | pickled objects | `pickled_objects_are_left_to_the_importer`, and all of `pickles` |
//! | archives that unpack to a thousand times their size | `a_bomb_that_lies_is_not_inflated`, `an_honest_bomb_is_refused_within_limits`, `an_import_refuses_what_unpacks_to_many_times_its_size` |
//! | 70,000 members | `seventy_thousand_members_are_refused_at_once`, `a_claimed_number_of_members_is_not_allocated` |
//! | members whose names lead out or repeat | `names_that_lead_out_or_appear_twice_are_refused` |
//! | flipped, cut, surplus bytes | `a_flipped_byte_names_the_member`, `a_file_cut_anywhere_is_an_error`, `missing_and_surplus_bytes_are_refused`, fixtures `flipped_npz`, `truncated_npz`, `empty_npz` |
//! | other byte orders, and fields of 64 bits | `big_endian_is_converted_part_by_part`, `archives_with_64_bit_fields_are_read` |
//! | coordinates of another shape | `coordinates_that_are_not_sixty_four_floats_are_refused` |
//! | files without an entry, entries without a file | fixtures `orphan_npz`, `missing_npz` |
//! | encrypted members, unknown compression | `encrypted_and_oddly_compressed_members_are_refused_by_name` |
//! | a checkpoint larger than memory | `a_checkpoint_larger_than_memory_is_verified` |
//! | an index that is cut, flipped, zeroed, foreign, text | `an_index_cut_anywhere_is_made_anew`, `whatever_lies_in_the_place_of_the_index_is_replaced`, `no_zeroed_page_gives_another_answer`, `no_overwritten_block_keeps_a_query_from_answering` |
//! | an index of another version | fixture `index_of_another_version`, `the_index_of_another_version_is_rebuilt` |
//! | an index ahead of the files, or behind | `lines_that_left_the_file_leave_the_index`, `a_rebuild_gives_the_same_rows` |
//! | the journal of another database | `a_journal_of_another_database_beside_the_index_is_not_taken_for_its_own` |
//! | a folder that cannot be written | `a_store_that_cannot_be_written_is_read_all_the_same` |
//! | an index that another process holds | `an_index_that_another_process_holds_keeps_no_reader_out` |
//! | an index deleted between two queries | `an_index_deleted_between_two_queries_comes_back` |
//! | a store that is a file, a link, missing | `a_store_that_lies_in_a_file_a_device_or_nowhere_is_refused_by_name`, `a_store_that_is_itself_reached_through_a_link_is_a_store`, `a_folder_without_a_store_is_an_error_and_stays_as_it_is` |
//! | no home, no language, no time zones | `the_program_needs_nothing_of_its_environment` |
//!
//! What databases do is in `replica`, what disks and processes do in the package `faults`.

mod archives;
mod environment;
mod ids;
mod index;
#[cfg(unix)]
mod kinds;
mod lines;
#[cfg(unix)]
mod links;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(unix)]
mod modes;
mod pickles;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use tidelog::{Outcome, Store, VerifyReport};

use crate::support::{TestStore, session_id, telemetry};

const SEGMENT: &str = "logs/telemetry/session_run-7.jsonl";

/// A store with one session of three records.
fn store() -> TestStore {
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    for step in 0..3 {
        session.record_telemetry(step, &telemetry(0.5)).unwrap();
    }
    session.end(Outcome::Completed).unwrap();
    store
}

/// Steps of a session's records, as a query finds them.
fn steps(store: &Store, session: &str) -> Vec<i64> {
    let points = store.get_telemetry_trajectory(&session_id(session), 1_000).unwrap();
    points.into_iter().map(|point| point.step).collect()
}

fn verify(root: &Path) -> VerifyReport {
    Store::open_read_only(root).unwrap().verify(&mut |_| {}).unwrap()
}

/// Every entry below a folder, links not followed.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&entry.path()));
        }
        found.push(entry.path());
    }
    found.sort();
    found
}

#[test]
fn every_test_and_fixture_of_the_table_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: String = ["src", "tests"]
        .iter()
        .flat_map(|folder| below(&root.join(folder)))
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let table = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let names =
        table.flat_map(|row| row.rsplit(" | ").next().unwrap().split('`').skip(1).step_by(2));
    for name in names.filter(|name| name.contains('_')) {
        let is_test = sources.contains(&format!("fn {name}("));
        assert!(is_test || root.join("fixtures/faults").join(name).is_dir(), "{name}");
    }
}
