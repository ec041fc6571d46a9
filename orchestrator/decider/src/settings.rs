//! Every number the fold uses. They change by a settings record in the inbox only: no flag, file or reload reaches
//! the fold, so that audit and successor see the same numbers at the same offsets.

use serde::{Deserialize, Serialize};

use sagamore_schemas::ids::Span;
use sagamore_schemas::log::Digest256;

/// The highest level this binary knows. A shard at a higher level halts rather than guess.
pub const LEVEL_MAX: u32 = 1;

/// The numbers of the fold, with the defaults of level 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long an ended transaction is remembered, from its end and from its `time`.
    pub dedupe_window: Span,
    /// How far ahead of the log's clock the `time` of a start may be: clocks of callers differ.
    pub start_ahead: Span,
    /// How far behind the log's clock participants may purge at the latest.
    pub watermark_age: Span,
    /// Open transactions of a shard: at about 1.5 KiB each they fit in memory and are restored within seconds.
    pub open_max: u64,
    /// Bytes of all open transactions of a shard.
    pub open_bytes_max: u64,
    /// Bytes of one transaction, input and results: it must fit in one state record.
    pub transaction_bytes_max: u64,
    /// Ended transactions remembered by a shard, at up to 48 bytes each in the log.
    pub finished_max: u64,
    /// Definitions, all versions counted.
    pub definitions_max: u64,
    /// SHA-256 of the reply-token secret; tokens are demanded when it is set.
    pub reply_token: Option<Digest256>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dedupe_window: Span::from_secs(15 * 60),
            start_ahead: Span::from_secs(60),
            watermark_age: Span::from_secs(3 * 24 * 3600),
            open_max: 200_000,
            open_bytes_max: 512 * 1024 * 1024,
            transaction_bytes_max: 256 * 1024,
            finished_max: 4_000_000,
            definitions_max: 1_000,
            reply_token: None,
        }
    }
}

/// Why a settings record is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not an object of known settings.
    #[error("settings: {0}")]
    Document(String),
    /// A value that would break a promise.
    #[error("setting {0} = {1} is outside {2}")]
    OutOfRange(&'static str, u64, &'static str),
}

impl Settings {
    /// These settings with the ones that stand in `json` replaced; all or nothing.
    ///
    /// ```
    /// use sagamore_decider::settings::Settings;
    /// let settings = Settings::default().changed_by(r#"{"dedupe_window":"30s"}"#).unwrap();
    /// assert_eq!(settings.dedupe_window.to_string(), "30s");
    /// assert!(settings.changed_by(r#"{"dedupe_windows":"30s"}"#).is_err());
    /// ```
    pub fn changed_by(&self, json: &str) -> Result<Self, SettingsError> {
        let document = |error: serde_json::Error| SettingsError::Document(error.to_string());
        let change: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(json).map_err(document)?;
        let mut merged = match serde_json::to_value(self).map_err(document)? {
            serde_json::Value::Object(fields) => fields,
            other => unreachable!("a struct is an object, not {other}"),
        };
        merged.extend(change);
        let changed: Self = serde_json::from_value(merged.into()).map_err(document)?;
        changed.checked()
    }

    fn checked(self) -> Result<Self, SettingsError> {
        let ranges = [
            ("dedupe_window", self.dedupe_window.as_ms(), 1_000, 30 * 86_400_000, "1s..30d"),
            ("start_ahead", self.start_ahead.as_ms(), 1_000, 3_600_000, "1s..1h"),
            (
                "watermark_age",
                self.watermark_age.as_ms(),
                60_000,
                6 * 86_400_000,
                "1m..6d (commands live 7d)",
            ),
            ("open_max", self.open_max, 1, 10_000_000, "1..10000000"),
            ("open_bytes_max", self.open_bytes_max, 1024, 64 << 30, "1 KiB..64 GiB"),
            (
                "transaction_bytes_max",
                self.transaction_bytes_max,
                1024,
                1 << 20,
                "1 KiB..1 MiB (a state record takes 2)",
            ),
            ("finished_max", self.finished_max, 1, 100_000_000, "1..100000000"),
            ("definitions_max", self.definitions_max, 1, 100_000, "1..100000"),
        ];
        match ranges.into_iter().find(|(_, value, least, most, _)| value < least || value > most) {
            Some((name, value, _, _, range)) => Err(SettingsError::OutOfRange(name, value, range)),
            None => Ok(self),
        }
    }
}
