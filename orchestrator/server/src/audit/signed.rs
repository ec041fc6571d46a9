//! Heads of the journal's chain, signed (Ed25519, RFC 8032), to be kept where nobody who can write to Kafka can write: who
//! alters inbox and journal together, so that the fold agrees with itself, does not agree with them.

use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sagamore_schemas::ids::Time;
use sagamore_schemas::log::Digest256;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::site::{Site, SiteError};

/// Where the chain of a shard stood, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// The installation.
    pub instance: Uuid,
    /// The shard.
    pub partition: i32,
    /// Inbox offset of the last entry.
    pub offset: i64,
    /// Its number among those of that input.
    pub sequence: u32,
    /// The chain up to it.
    pub hash: Digest256,
    /// The fold's clock then.
    pub at: Time,
    /// In hexadecimal, over what stands before, each in a line of its own.
    pub signature: String,
}

/// Why a key or a signature is not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No such file, or not readable.
    #[error("{path}: {cause}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// Not a key.
    #[error(
        "{path}: not an Ed25519 key in PEM: `openssl genpkey -algorithm ed25519 -out key.pem` makes one, `openssl pkey -in \
         key.pem -pubout -out public.pem` its public part",
        path = path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Not what `sign` writes.
    #[error("{path}, line {line}: {cause}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        cause: serde_json::Error,
    },
    /// Somebody else's, or altered.
    #[error("{path}, line {line}: this key has not signed this", path = path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

impl SignedHead {
    fn message(&self) -> Vec<u8> {
        let Self { instance, partition, offset, sequence, hash, at, signature: _ } = self;
        format!("sagamore chain v1\n{instance}\n{partition}\n{offset}\n{sequence}\n{hash}\n{at}\n")
            .into_bytes()
    }

    fn is_by(&self, key: &VerifyingKey) -> bool {
        let signature = self.signature.parse::<Signature>();
        signature.is_ok_and(|signature| key.verify_strict(&self.message(), &signature).is_ok())
    }
}

/// Signs the chain of each shard as its newest checkpoint has it; a shard without entries has none.
pub fn sign(site: &Site, key: &Path) -> Result<Result<Vec<SignedHead>, KeyError>, SiteError> {
    let key = match read(key)
        .and_then(|pem| SigningKey::from_pkcs8_pem(&pem).map_err(|_| KeyError::Key { path: key.to_owned() }))
    {
        Ok(key) => key,
        Err(error) => return Ok(Err(error)),
    };
    let checkpoints = site.newest_checkpoints()?.into_values().filter_map(|newest| newest.checkpoint);
    let heads = checkpoints.filter(|checkpoint| checkpoint.chain.offset >= 0).map(|checkpoint| {
        let mut head = SignedHead {
            instance: checkpoint.instance,
            partition: checkpoint.partition.0,
            offset: checkpoint.chain.offset,
            sequence: checkpoint.chain.sequence,
            hash: checkpoint.chain.hash,
            at: checkpoint.clock,
            signature: String::new(),
        };
        head.signature = format!("{:x}", key.sign(&head.message()));
        head
    });
    Ok(Ok(heads.collect()))
}

/// Heads that were signed by the owner of `public_key`, one JSON object a line.
pub fn read_signed(file: &Path, public_key: &Path) -> Result<Vec<SignedHead>, KeyError> {
    let key = VerifyingKey::from_public_key_pem(&read(public_key)?)
        .map_err(|_| KeyError::Key { path: public_key.to_owned() })?;
    let text = read(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let head = |(at, line): (usize, &str)| {
        let (path, line_number) = (file.to_owned(), at + 1);
        let head: SignedHead = serde_json::from_str(line).map_err(|cause| KeyError::Line {
            path: path.clone(),
            line: line_number,
            cause,
        })?;
        if head.is_by(&key) { Ok(head) } else { Err(KeyError::Signature { path, line: line_number }) }
    };
    lines.map(head).collect()
}

fn read(path: &Path) -> Result<String, KeyError> {
    std::fs::read_to_string(path).map_err(|cause| KeyError::File { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_holds_and_what_is_altered_does_not() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let mut head = SignedHead {
            instance: Uuid::from_u128(7),
            partition: 3,
            offset: 88_121,
            sequence: 0,
            hash: Digest256([5; 32]),
            at: Time::from_epoch_ms(1_767_225_600_000),
            signature: String::new(),
        };
        head.signature = format!("{:x}", key.sign(&head.message()));
        assert!(head.is_by(&key.verifying_key()));
        assert!(!head.is_by(&SigningKey::from_bytes(&[8; 32]).verifying_key()));
        for altered in [
            SignedHead { offset: 88_122, ..head.clone() },
            SignedHead { hash: Digest256([6; 32]), ..head.clone() },
            SignedHead { signature: head.signature[2..].to_owned(), ..head.clone() },
            SignedHead { signature: "é".repeat(64), ..head.clone() },
        ] {
            assert!(!altered.is_by(&key.verifying_key()), "{altered:?}");
        }
    }
}
