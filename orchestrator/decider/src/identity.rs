//! Which shard of which installation: what never changes, and is not in any record's content.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use sagamore_schemas::ids::Partition;
use sagamore_schemas::log::Digest256;
use sagamore_schemas::wire::Address;

/// The secret under which reply tokens are made. Never printed.
#[derive(Clone)]
pub struct ReplySecret(Vec<u8>);

impl ReplySecret {
    /// From its bytes; 16 at least, so that it cannot be guessed.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        const BYTES_MIN: usize = 16;
        (bytes.len() >= BYTES_MIN).then_some(Self(bytes))
    }

    /// What the settings record names it by.
    pub fn fingerprint(&self) -> Digest256 {
        Digest256(Sha256::digest(&self.0).into())
    }
}

impl std::fmt::Debug for ReplySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplySecret(…)")
    }
}

/// Which shard of which installation.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The installation, written by `topics apply`.
    pub instance: Uuid,
    /// The shard.
    pub partition: Partition,
    /// Partition count of the inbox.
    pub partitions: i32,
    /// Where replies go, `<prefix>.inbox/<partition>`.
    pub replyto: String,
    /// The inbox topic, for the headers of dead letters.
    pub inbox: String,
    /// Demanded once the settings hold its fingerprint.
    pub secret: Option<ReplySecret>,
}

impl Identity {
    /// Shard `partition` of an installation, whose inbox is the topic `inbox`.
    pub fn new(
        instance: Uuid,
        partition: Partition,
        partitions: i32,
        inbox: String,
        secret: Option<ReplySecret>,
    ) -> Self {
        Self { instance, partition, partitions, replyto: format!("{inbox}/{partition}"), inbox, secret }
    }

    /// HMAC-SHA-256 (RFC 2104) of the command's identity under the secret, in hexadecimal; `None` without a secret.
    pub fn reply_token(&self, address: &Address<'_>) -> Option<String> {
        let secret = self.secret.as_ref()?;
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&secret.0) else {
            unreachable!("HMAC takes a key of any length")
        };
        mac.update(self.instance.as_bytes());
        mac.update(address.command_id().as_bytes());
        Some(Digest256(mac.finalize().into_bytes().into()).to_string())
    }
}
