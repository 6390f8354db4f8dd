//! Files: opening those that a person or another file names, and writing those that a graph names.
//!
//! Every file that is read is opened here: only regular files, and none larger than its [`Kind`] allows. A pipe or a device
//! would be read without end. `tests/layers.rs` checks that no other source file opens any.

#![warn(missing_docs)]

mod limits;
mod names;
mod open;
mod place;
mod ranges;
mod write;

pub use limits::raise_open_file_limit;
pub use names::{file_name_from, invalid_name, is_bidi_control};
pub use open::{Kind, open, open_with, read, read_or_stdin, read_text};
pub use place::{Leaves, create_folder, identity, normal, outside_by_links};
pub use ranges::RangeFile;
pub use write::{GrowingFile, can_hold_files, create_log, write_new, write_over};
