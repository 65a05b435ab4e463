//! Arguments that say which checkpoint files are sent.

use clap::Args;
use tidelog_sync::BlobPolicy;
use tidelog_sync::config::Size;

/// Which checkpoint files.
#[derive(Debug, Args)]
pub(super) struct BlobArgs {
    /// Largest checkpoint file that is sent, in bytes or with KiB, MiB, GiB; `status` names larger
    /// ones
    #[arg(long, value_name = "SIZE", env = "TIDELOG_SYNC_BLOB_MAX_SIZE", default_value = "1GiB")]
    blob_max_size: Size,
    /// Send no checkpoint files, only what the journal says of them
    #[arg(long, env = "TIDELOG_SYNC_NO_BLOBS")]
    no_blobs: bool,
}

impl BlobArgs {
    pub(super) fn policy(&self) -> BlobPolicy {
        match self.no_blobs {
            true => BlobPolicy::Never,
            false => BlobPolicy::UpTo { bytes_max: self.blob_max_size.0 },
        }
    }
}
