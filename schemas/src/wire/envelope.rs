//! Every attribute we know, optional, borrowed from the record: the one JSON shape that is read.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::text;

#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    pub specversion: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type", deserialize_with = "text")]
    pub kind: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub source: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub time: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub subject: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub definition: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub instance: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub birth: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub step: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub branch: Option<Cow<'a, str>>,
    pub operation: Option<super::Operation>,
    pub attempt: Option<u32>,
    pub depth: Option<u32>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub issued: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub watermark: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub deadline: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub replyto: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub replytoken: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub unilateralafter: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub participant: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub parent: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub wish: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub decision: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub heuristic: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub traceparent: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub outcome: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub reason: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub cause: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub actor: Option<Cow<'a, str>>,
    pub revision: Option<u64>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub due: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub target: Option<Cow<'a, str>>,
    pub level: Option<u32>,
    pub definitionsoffset: Option<i64>,
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "text")]
    pub data_base64: Option<Cow<'a, str>>,
}
