//! What the proxy reads of a Kafka frame: the header, who sends it, and of a few kinds whose transaction it is.
//!
//! By hand, since only the first fields count: a library would decode whole batches to say the same. Offsets and
//! versions follow Kafka's message definitions (`clients/src/main/resources/common/message`). Everything behind the
//! length prefix of four bytes. Deliberately absent: writing a frame; what is passed on is what came.

use std::fmt;

/// A kind of request, by its number in Kafka's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Api(pub i16);

impl Api {
    /// Records to a partition.
    pub const PRODUCE: Self = Self(0);
    /// Records from partitions.
    pub const FETCH: Self = Self(1);
    /// Offsets at a time, or at an end.
    pub const LIST_OFFSETS: Self = Self(2);
    /// Brokers, topics, leaders.
    pub const METADATA: Self = Self(3);
    /// Offsets of a group.
    pub const OFFSET_COMMIT: Self = Self(8);
    /// Who coordinates a group or a transactional id.
    pub const FIND_COORDINATOR: Self = Self(10);
    /// A member joins its group.
    pub const JOIN_GROUP: Self = Self(11);
    /// A member lives.
    pub const HEARTBEAT: Self = Self(12);
    /// A member leaves.
    pub const LEAVE_GROUP: Self = Self(13);
    /// A member learns what it was assigned.
    pub const SYNC_GROUP: Self = Self(14);
    /// What a broker can do: the first request of a connection.
    pub const API_VERSIONS: Self = Self(18);
    /// A producer gets its id and epoch; with a transactional id it fences the former.
    pub const INIT_PRODUCER_ID: Self = Self(22);
    /// Partitions join a Kafka transaction.
    pub const ADD_PARTITIONS_TO_TXN: Self = Self(24);
    /// A group's offsets join a Kafka transaction.
    pub const ADD_OFFSETS_TO_TXN: Self = Self(25);
    /// A Kafka transaction is committed or aborted.
    pub const END_TXN: Self = Self(26);
    /// Offsets of a group within a Kafka transaction.
    pub const TXN_OFFSET_COMMIT: Self = Self(28);

    /// From this version on the header ends with tagged fields and strings are compact; known for the kinds whose
    /// body is read here.
    fn first_flexible_version(self) -> Option<i16> {
        match self {
            Self::PRODUCE => Some(9),
            Self::JOIN_GROUP => Some(6),
            Self::HEARTBEAT | Self::LEAVE_GROUP | Self::SYNC_GROUP => Some(4),
            Self::INIT_PRODUCER_ID => Some(2),
            Self::ADD_PARTITIONS_TO_TXN
            | Self::ADD_OFFSETS_TO_TXN
            | Self::END_TXN
            | Self::TXN_OFFSET_COMMIT => Some(3),
            _ => None,
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::PRODUCE => "Produce",
            Self::FETCH => "Fetch",
            Self::LIST_OFFSETS => "ListOffsets",
            Self::METADATA => "Metadata",
            Self::OFFSET_COMMIT => "OffsetCommit",
            Self::FIND_COORDINATOR => "FindCoordinator",
            Self::JOIN_GROUP => "JoinGroup",
            Self::HEARTBEAT => "Heartbeat",
            Self::LEAVE_GROUP => "LeaveGroup",
            Self::SYNC_GROUP => "SyncGroup",
            Self::API_VERSIONS => "ApiVersions",
            Self::INIT_PRODUCER_ID => "InitProducerId",
            Self::ADD_PARTITIONS_TO_TXN => "AddPartitionsToTxn",
            Self::ADD_OFFSETS_TO_TXN => "AddOffsetsToTxn",
            Self::END_TXN => "EndTxn",
            Self::TXN_OFFSET_COMMIT => "TxnOffsetCommit",
            Self(number) => return write!(formatter, "API {number}"),
        };
        formatter.write_str(name)
    }
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) api: Api,
    pub(super) version: i16,
    pub(super) correlation: i32,
    pub(super) client_id: Option<String>,
    /// Of the first Kafka transaction it names, if its kind names one.
    pub(super) transactional_id: Option<String>,
}

/// Reads the head of a request (without its length); none if it is not one.
pub(super) fn head(request: &[u8]) -> Option<Head> {
    let mut fields = Fields(request);
    let api = Api(fields.i16()?);
    let version = fields.i16()?;
    let correlation = fields.i32()?;
    // Of fixed length even in flexible headers.
    let client_id = fields.string()?;
    if api.0 < 0 || version < 0 {
        return None;
    }
    let transactional_id = transactional_id(api, version, fields);
    Some(Head { api, version, correlation, client_id, transactional_id })
}

fn transactional_id(api: Api, version: i16, mut fields: Fields<'_>) -> Option<String> {
    let is_first = match api {
        Api::PRODUCE => version >= 3,
        Api::INIT_PRODUCER_ID
        | Api::ADD_PARTITIONS_TO_TXN
        | Api::ADD_OFFSETS_TO_TXN
        | Api::END_TXN
        | Api::TXN_OFFSET_COMMIT => true,
        _ => false,
    };
    if !is_first {
        return None;
    }
    if version < api.first_flexible_version()? {
        return fields.string()?;
    }
    fields.skip_tags()?;
    // From version 4 on it names several Kafka transactions: the first stands for all.
    if api == Api::ADD_PARTITIONS_TO_TXN && version >= 4 {
        fields.varint()?;
    }
    fields.compact_string()?
}

/// Correlation id of a response (without its length).
pub(super) fn correlation(response: &[u8]) -> Option<i32> {
    Fields(response).i32()
}

/// What a broker answered: the error code of the response, or of its first partition, for the kinds that are worth
/// holding back.
pub(super) fn error_code(api: Api, version: i16, response: &[u8]) -> Option<i16> {
    let flexible = version >= api.first_flexible_version()?;
    let mut fields = Fields(response);
    fields.i32()?; // correlation id
    if flexible {
        fields.skip_tags()?;
    }
    let throttled_from = match api {
        // Its throttle time comes last.
        Api::PRODUCE => i16::MAX,
        Api::JOIN_GROUP => 2,
        Api::HEARTBEAT | Api::LEAVE_GROUP | Api::SYNC_GROUP => 1,
        _ => 0,
    };
    if version >= throttled_from {
        fields.i32()?;
    }
    match api {
        // From version 13 on it names topics by id.
        Api::PRODUCE if version >= 13 => None,
        Api::PRODUCE | Api::TXN_OFFSET_COMMIT => fields.code_of_first_partition(flexible),
        Api::ADD_PARTITIONS_TO_TXN if version < 4 => fields.code_of_first_partition(flexible),
        _ => fields.i16(),
    }
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// Unsigned, seven bits a byte, the lowest first.
    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The outer `None`: there is no string here; the inner: it is null.
    #[expect(clippy::option_option, reason = "missing and null are different findings")]
    fn string(&mut self) -> Option<Option<String>> {
        match self.i16()? {
            -1 => Some(None),
            length => self.text(usize::try_from(length).ok()?).map(Some),
        }
    }

    #[expect(clippy::option_option, reason = "missing and null are different findings")]
    fn compact_string(&mut self) -> Option<Option<String>> {
        match self.varint()? {
            0 => Some(None),
            length => self.text(length - 1).map(Some),
        }
    }

    fn text(&mut self, length: usize) -> Option<String> {
        String::from_utf8(self.bytes(length)?.to_vec()).ok()
    }

    fn skip_tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.bytes(length)?;
        }
        Some(())
    }

    /// Topics, each a name and partitions, each an index and an error code.
    fn code_of_first_partition(&mut self, flexible: bool) -> Option<i16> {
        if flexible {
            self.varint()?;
            self.compact_string()?;
            self.varint()?;
        } else {
            self.i32()?;
            self.string()?;
            self.i32()?;
        }
        self.i32()?;
        self.i16()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API, version, correlation id 7, client id `c`.
    fn header(api: i16, version: i16) -> Vec<u8> {
        [&api.to_be_bytes()[..], &version.to_be_bytes(), &7_i32.to_be_bytes(), b"\0\x01c"].concat()
    }

    fn read(api: Api, version: i16, body: &[u8]) -> Head {
        head(&[&header(api.0, version), body].concat()).expect("a request")
    }

    #[test]
    fn the_transactional_id_of_every_kind_that_names_one() {
        let cases: [(Api, i16, &[u8], Option<&str>); 10] = [
            (Api::END_TXN, 1, b"\0\x02id\x01", Some("id")),
            (Api::END_TXN, 3, b"\0\x03id\x01", Some("id")),
            (Api::END_TXN, 3, b"\x01\x05\x02xy\x03id", Some("id")), // a tagged field in the header
            (Api::INIT_PRODUCER_ID, 4, b"\0\x03id", Some("id")),
            (Api::INIT_PRODUCER_ID, 1, b"\xff\xff", None), // idempotent only
            (Api::ADD_PARTITIONS_TO_TXN, 0, b"\0\x02id", Some("id")),
            (Api::ADD_PARTITIONS_TO_TXN, 4, b"\0\x02\x03id", Some("id")),
            (Api::PRODUCE, 7, b"\0\x02id", Some("id")),
            (Api::PRODUCE, 9, b"\0\0", None),
            (Api::HEARTBEAT, 3, b"\0\x02id", None),
        ];
        for (api, version, body, expected) in cases {
            let head = read(api, version, body);
            assert_eq!(head.transactional_id.as_deref(), expected, "{api} {version}");
            assert_eq!((head.correlation, head.client_id.as_deref()), (7, Some("c")), "{api} {version}");
        }
    }

    #[test]
    fn what_is_cut_short_or_no_header_is_not_guessed() {
        for request in
            [&b""[..], b"\0\x1a\0", b"\0\x1a\0\x01\0\0\0\x07\0\x09c", b"\xff\xff\0\x01\0\0\0\x07\xff\xff"]
        {
            assert_eq!(head(request), None, "{request:?}");
        }
        // The header is right, the body is not: what is certain is kept.
        assert_eq!(read(Api::END_TXN, 1, b"\0\x09id").transactional_id, None);
        assert_eq!(error_code(Api::END_TXN, 1, b"\0\0\0\x07\0\0\0\0\0"), None);
    }

    #[test]
    fn error_codes() {
        let cases: [(Api, i16, &[u8], Option<i16>); 9] = [
            (Api::END_TXN, 1, b"\0\0\0\0\0\x2f", Some(47)),
            (Api::END_TXN, 3, b"\0\0\0\0\0\0\x5a", Some(90)),
            (Api::HEARTBEAT, 0, b"\0\x1b", Some(27)),
            (Api::HEARTBEAT, 3, b"\0\0\0\0\0\x1b", Some(27)),
            (Api::ADD_PARTITIONS_TO_TXN, 0, b"\0\0\0\0\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x05\0\x33", Some(51)),
            (Api::ADD_PARTITIONS_TO_TXN, 4, b"\0\0\0\0\0\0\x33", Some(51)),
            (Api::PRODUCE, 7, b"\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x05\0\x2d", Some(45)),
            (Api::PRODUCE, 9, b"\0\x02\x02t\x02\0\0\0\x05\0\x2d", Some(45)),
            (Api::FETCH, 11, b"\0\0\0\0\0\0", None),
        ];
        for (api, version, body, expected) in cases {
            let response = [&7_i32.to_be_bytes(), body].concat();
            assert_eq!(error_code(api, version, &response), expected, "{api} {version}");
            assert_eq!(correlation(&response), Some(7));
        }
    }
}
