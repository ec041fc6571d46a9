//! What travels in `data`: raw JSON, byte for byte, or base64 for anything else.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// A payload borrowed from a record.
#[derive(Debug, Clone)]
pub enum PayloadRef<'a> {
    /// `data`.
    Json(&'a RawValue),
    /// `data_base64`, still encoded.
    Base64(Cow<'a, str>),
    /// Neither.
    Absent,
}

impl<'a> PayloadRef<'a> {
    /// The JSON text, when it is JSON; an absent payload reads as `null`.
    pub fn json(&self) -> Option<&'a str> {
        match self {
            Self::Json(raw) => Some(raw.get()),
            Self::Base64(_) => None,
            Self::Absent => Some("null"),
        }
    }

    /// An owned copy.
    pub fn to_payload(&self) -> Payload {
        match self {
            Self::Json(raw) => Payload::Json((*raw).to_owned()),
            Self::Base64(text) => Payload::Base64(text.as_ref().into()),
            Self::Absent => Payload::Absent,
        }
    }

    /// Size in bytes, as it stands on the wire.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Json(raw) => raw.get().len(),
            Self::Base64(text) => text.len(),
            Self::Absent => 0,
        }
    }

    /// SHA-256 over the kind and the bytes: what stands in the journal instead of the payload.
    pub fn sha256(&self) -> [u8; 32] {
        let (kind, bytes) = match self {
            Self::Json(raw) => (b"j", raw.get()),
            Self::Base64(text) => (b"b", text.as_ref()),
            Self::Absent => (b"a", ""),
        };
        Sha256::new().chain_update(kind).chain_update(bytes).finalize().into()
    }
}

/// A payload on its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// `data`.
    Json(Box<RawValue>),
    /// `data_base64`, still encoded.
    Base64(Box<str>),
    /// Neither.
    #[default]
    Absent,
}

impl Payload {
    /// From JSON text, if it is.
    pub fn from_json(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self::Json)
    }

    /// Borrowed.
    pub fn as_ref(&self) -> PayloadRef<'_> {
        match self {
            Self::Json(raw) => PayloadRef::Json(raw),
            Self::Base64(text) => PayloadRef::Base64(Cow::Borrowed(text)),
            Self::Absent => PayloadRef::Absent,
        }
    }

    /// Size in bytes, as it stands on the wire.
    pub fn size_bytes(&self) -> usize {
        self.as_ref().size_bytes()
    }
}
