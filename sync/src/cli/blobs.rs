//! Arguments that say which checkpoint files are sent.

use clap::Args;
use tidelog_sync::BlobPolicy;

/// Which checkpoint files.
#[derive(Debug, Args)]
pub(super) struct BlobArgs {
    /// Largest checkpoint file that is sent, in bytes or with KiB, MiB, GiB; `status` names larger
    /// ones
    #[arg(long, value_name = "SIZE", env = "TIDELOG_BLOB_MAX_SIZE", default_value = "1GiB",
          value_parser = bytes)]
    blob_max_size: u64,
    /// Send no checkpoint files, only what the journal says of them
    #[arg(long, env = "TIDELOG_NO_BLOBS")]
    no_blobs: bool,
}

impl BlobArgs {
    pub(super) fn policy(&self) -> BlobPolicy {
        match self.no_blobs {
            true => BlobPolicy::Never,
            false => BlobPolicy::UpTo { bytes_max: self.blob_max_size },
        }
    }
}

/// Reads `1048576`, `1024KiB` or `1MiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1_u64 << 40)];
    let found = units.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (number, unit) = found.unwrap_or((text, 1));
    let number: u64 = number
        .trim_end()
        .parse()
        .map_err(|_| "is no size; write it as 1073741824, 1024MiB or 1GiB".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "is more than 16 EiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_may_have_a_unit() {
        for (text, size) in [("0", 0), ("1048576", 1 << 20), ("1MiB", 1 << 20), ("2 GiB", 2 << 30)]
        {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "MiB", "1MB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
